"""``lab data build-maze``: generated mazes, or the published CSV files."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import build_config
from hrm_engine.config.datasets import MazeConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.flags import config_flags
from lab.cli.places import relative


@config_flags(MazeConfig)
def build_maze(**given: Any) -> int:
    """Build a maze dataset: labels are shortest paths, no training maze is a test maze in any orientation."""
    settings = build_config(MazeConfig, overrides=given, typed=True)

    from hrm_engine.data.puzzles.maze import build

    workspace = Workspace.find()
    with progress_bar("Mazes") as progress:
        report = build.build_mazes(settings, workspace, progress=progress)
    if report.is_proxy:
        console().print("PROXY: results on this dataset are not comparable with published ones.", style="yellow")
    facts = [
        ("folder", relative(report.folder, workspace)),
        ("what", report.description),
        ("training", f"{report.num_train_mazes:,} mazes, {report.num_train_rows:,} rows with their orientations"),
        ("test", f"{report.num_test_mazes:,} mazes"),
        ("path, in steps", f"{report.shortest} to {report.longest}, mean {report.mean:.1f}"),
    ]
    if settings.files.csv:
        facts += [
            ("left out", f"{report.num_left_out:,} training mazes that are test mazes"),
            ("several shortest paths", f"{report.num_several:,} mazes; the given path is the label"),
            ("bad rows", f"{report.num_skipped:,} skipped"),
        ]
    show_facts([*facts, ("time", human_seconds(report.seconds))])
    return 0
