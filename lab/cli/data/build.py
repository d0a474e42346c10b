"""``lab data build-...``: datasets of puzzles, and a text corpus that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hrm_engine.config.datasets import ArcConfig, DatasetConfig, MazeConfig, PythonDocsConfig, SudokuConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import PROXY, human_bytes, human_seconds, progress_bar, relative, say, show_facts, show_report
from lab.cli.flags import config_flags

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hrm_engine.data.puzzles.arc.build import ArcReport
    from hrm_engine.data.puzzles.rated import BuildReport

Facts = list[tuple[str, object]]


@config_flags(PythonDocsConfig)
def build_python_docs(settings: PythonDocsConfig) -> int:
    """Build a corpus from the documentation inside this Python installation; needs no network."""
    from hrm_engine.data.text.python_docs import build_python_docs as build

    workspace = Workspace.find()
    return show_report(build(workspace.resolve(settings.output_dir)), workspace)


@config_flags(SudokuConfig)
def build_sudoku(settings: SudokuConfig) -> int:
    """Build a Sudoku dataset: every puzzle has one solution, no training puzzle is a test puzzle."""
    from hrm_engine.data.puzzles.sudoku.build import build_sudokus

    def facts(report: BuildReport) -> Facts:
        return [
            ("training", f"{len(report.train_ratings):,} puzzles, {report.num_train_rows:,} rows with their variants"),
            ("test", f"{len(report.test_ratings):,} puzzles"),
            ("guesses, training", _span(report.train_ratings)),
            ("guesses, test", _span(report.test_ratings)),
            ("left out", f"{report.num_left_out:,} training puzzles that are test puzzles"),
        ]

    return _build(settings, build_sudokus, "Sudoku", facts)


@config_flags(MazeConfig)
def build_maze(settings: MazeConfig) -> int:
    """Build a maze dataset: labels are shortest paths, no training maze is a test maze in any orientation."""
    import numpy as np

    from hrm_engine.data.puzzles.maze.build import build_mazes

    def facts(report: BuildReport) -> Facts:
        steps = report.train_ratings, report.test_ratings
        both = np.concatenate(steps)
        of_files: Facts = [
            ("left out", f"{report.num_left_out:,} training mazes that are test mazes"),
            ("several shortest paths", f"{report.num_several:,} mazes; the given path is the label"),
            ("bad rows", f"{report.num_skipped:,} skipped"),
        ]
        return [
            ("training", f"{len(steps[0]):,} mazes, {report.num_train_rows:,} rows with their orientations"),
            ("test", f"{len(steps[1]):,} mazes"),
            ("path, in steps", f"{both.min()} to {both.max()}, mean {both.mean():.1f}"),
            *(of_files if settings.files.csv else []),
        ]

    return _build(settings, build_mazes, "Mazes", facts)


@config_flags(ArcConfig)
def build_arc(settings: ArcConfig) -> int:
    """Build an ARC dataset; the answers of evaluation tasks stand in the test split alone."""
    from hrm_engine.data.puzzles.arc.build import build_arc as build

    def facts(report: ArcReport) -> Facts:
        return [
            ("training tasks", f"{report.num_training_tasks:,}"),
            ("evaluation tasks", f"{report.num_evaluation_tasks:,}"),
            ("copies left out", f"{report.num_copies:,}"),
            ("renamed", f"{report.num_renamed:,} tasks, because another one has the same name"),
            ("puzzles", f"{report.num_puzzles:,} tasks and augmentations"),
            ("fewer variants", f"{report.num_short:,} tasks do not have {settings.num_aug:,} different augmentations"),
            ("training", f"{report.num_train_rows:,} rows"),
            ("test", f"{report.num_test_rows:,} rows"),
            ("size", human_bytes(report.num_bytes)),
        ]

    return _build(settings, build, "Tasks", facts)


def _build(settings: DatasetConfig, build: Callable[..., Any], label: str, facts: Callable[[Any], Facts]) -> int:
    workspace = Workspace.find()
    with progress_bar(label) as progress:
        report = build(settings=settings, workspace=workspace, progress=progress)
    if report.is_proxy:
        say(PROXY, style="yellow")
    head: Facts = [("folder", relative(report.folder, workspace)), ("what", report.description)]
    show_facts([*head, *facts(report), ("time", human_seconds(report.seconds))])
    for message in report.messages:
        say(f"- {message}")
    return 0


def _span(ratings: npt.NDArray[np.int64]) -> str:
    import numpy as np

    return f"{ratings.min():,} to {ratings.max():,}, median {int(np.median(ratings)):,}"
