"""``lab data build-sudoku``: generated puzzles, the published CSV files, or the hard proxy."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import build_config
from hrm_engine.config.datasets import SudokuConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.flags import config_flags
from lab.cli.places import relative


@config_flags(SudokuConfig)
def build_sudoku(**given: Any) -> int:
    """Build a Sudoku dataset: every puzzle has one solution, no training puzzle is a test puzzle."""
    settings = build_config(SudokuConfig, overrides=given, typed=True)

    from hrm_engine.data.puzzles.sudoku import build

    workspace = Workspace.find()
    with progress_bar("Sudoku") as progress:
        report = build.build_sudokus(settings, workspace, progress=progress)
    if report.is_proxy:
        console().print("PROXY: results on this dataset are not comparable with published ones.", style="yellow")
    show_facts(
        [
            ("folder", relative(report.folder, workspace)),
            ("what", report.description),
            ("training", f"{report.num_train_puzzles:,} puzzles, {report.num_train_rows:,} rows with their variants"),
            ("test", f"{report.num_test_puzzles:,} puzzles"),
            ("guesses, training", _span(report.train_ratings)),
            ("guesses, test", _span(report.test_ratings)),
            ("left out", f"{report.num_left_out:,} training puzzles that are test puzzles"),
            ("time", human_seconds(report.seconds)),
        ]
    )
    return 0


def _span(ratings: tuple[int, int, int]) -> str:
    smallest, median, greatest = ratings
    return f"{smallest:,} to {greatest:,}, median {median:,}"
