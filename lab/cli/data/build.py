"""``lab data build-...``: datasets of puzzles, and a text corpus that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hrm_engine.config import Config, build_config
from hrm_engine.config.datasets import ArcConfig, MazeConfig, PythonDocsConfig, SudokuConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_bytes, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.flags import config_flags
from lab.cli.places import relative

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.arc.build import ArcReport
    from hrm_engine.data.puzzles.maze.build import MazeReport
    from hrm_engine.data.puzzles.rated import Progress
    from hrm_engine.data.puzzles.sudoku.build import BuildReport

Facts = list[tuple[str, object]]


@config_flags(PythonDocsConfig)
def build_python_docs(**given: Any) -> int:
    """Build a corpus from the documentation inside this Python installation; needs no network."""
    settings = build_config(PythonDocsConfig, overrides=given, typed=True)

    from hrm_engine.data.text.python_docs import build_python_docs as build
    from lab.cli.reports import show_report

    workspace = Workspace.find()
    show_report(build(workspace.resolve(settings.output_dir)), workspace)
    return 0


@config_flags(SudokuConfig)
def build_sudoku(**given: Any) -> int:
    """Build a Sudoku dataset: every puzzle has one solution, no training puzzle is a test puzzle."""
    from hrm_engine.data.puzzles.sudoku.build import build_sudokus

    def facts(report: BuildReport) -> Facts:
        return [
            ("training", f"{report.num_train_puzzles:,} puzzles, {report.num_train_rows:,} rows with their variants"),
            ("test", f"{report.num_test_puzzles:,} puzzles"),
            ("guesses, training", _span(report.train_ratings)),
            ("guesses, test", _span(report.test_ratings)),
            ("left out", f"{report.num_left_out:,} training puzzles that are test puzzles"),
        ]

    return _build(SudokuConfig, given, build_sudokus, "Sudoku", facts)


@config_flags(MazeConfig)
def build_maze(**given: Any) -> int:
    """Build a maze dataset: labels are shortest paths, no training maze is a test maze in any orientation."""
    from hrm_engine.data.puzzles.maze.build import build_mazes

    def facts(report: MazeReport) -> Facts:
        of_files: Facts = [
            ("left out", f"{report.num_left_out:,} training mazes that are test mazes"),
            ("several shortest paths", f"{report.num_several:,} mazes; the given path is the label"),
            ("bad rows", f"{report.num_skipped:,} skipped"),
        ]
        return [
            ("training", f"{report.num_train_mazes:,} mazes, {report.num_train_rows:,} rows with their orientations"),
            ("test", f"{report.num_test_mazes:,} mazes"),
            ("path, in steps", f"{report.shortest} to {report.longest}, mean {report.mean:.1f}"),
            *(of_files if given.get("csv") else []),
        ]

    return _build(MazeConfig, given, build_mazes, "Mazes", facts)


@config_flags(ArcConfig)
def build_arc(**given: Any) -> int:
    """Build an ARC dataset; the answers of evaluation tasks stand in the test split alone."""
    from hrm_engine.data.puzzles.arc import build

    def build_tasks(settings: ArcConfig, workspace: Workspace, *, progress: Progress | None) -> ArcReport:
        how = settings.model_dump(exclude={"output_dir", "source"})
        folder = workspace.resolve(settings.output_dir)
        return build.build_arc(folder, settings.source, root=workspace.root, progress=progress, **how)

    def facts(report: ArcReport) -> Facts:
        return [
            ("training tasks", f"{report.num_training_tasks:,}"),
            ("evaluation tasks", f"{report.num_evaluation_tasks:,}"),
            ("copies left out", f"{report.num_copies:,}"),
            ("puzzles", f"{report.num_puzzles:,} tasks and augmentations"),
            ("short of variants", f"{report.num_short:,} tasks, which have fewer different augmentations"),
            ("training", f"{report.num_train_rows:,} rows"),
            ("test", f"{report.num_test_rows:,} rows"),
            ("size", human_bytes(report.num_bytes)),
        ]

    return _build(ArcConfig, given, build_tasks, "Tasks", facts)


def _build(
    model: type[Config], given: dict[str, Any], build: Callable[..., Any], what: str, facts: Callable[[Any], Facts]
) -> int:
    settings, workspace = build_config(model, overrides=given, typed=True), Workspace.find()
    with progress_bar(what) as progress:
        report = build(settings, workspace, progress=progress)
    if report.is_proxy:
        console().print("PROXY: results on this dataset are not comparable with published ones.", style="yellow")
    head: Facts = [("folder", relative(report.folder, workspace)), ("what", report.description)]
    show_facts([*head, *facts(report), ("time", human_seconds(report.seconds))])
    return 0


def _span(ratings: tuple[int, int, int]) -> str:
    smallest, median, greatest = ratings
    return f"{smallest:,} to {greatest:,}, median {median:,}"
