"""Puzzle trainings that take a second: a workspace with 4x4 Sudokus and the settings of a tiny solver."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.config import PuzzleTrainConfig, build_config
from hrm_engine.data.puzzles.sudoku.build import build_sudokus
from hrm_engine.store.paths import Workspace
from hrm_engine.training import TrainResult, train
from tests.tiny_runs import interrupter, kept_run, made_once

DATASET = "training_data/puzzles/tiny"

PUZZLE_SETTINGS: dict[str, Any] = {
    "data_path": DATASET,
    "arch": "trm",
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 64,
    "h_layers": 1,
    "l_layers": 1,
    "h_cycles": 1,
    "l_cycles": 2,
    "puzzle_tokens": 1,
    "halt_max_steps": 3,
    "batch_size": 8,
    "lr": 3e-3,
    "weight_decay": 0.1,
    "steps": 6,
    "eval_every": 3,
    "eval_rows": 8,
    "save_every": 2,
    "device": "cpu",
}


def make_puzzles(folder: Path) -> Path:
    """A dataset of 24 training and 16 test puzzles, made once; returns its folder."""
    if not folder.exists():
        build_sudokus(output_dir=folder, size=4, count=24, test_count=16, blanks=6, seed=0)
    return folder


@pytest.fixture(scope="session")
def puzzle_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A puzzle dataset that all processes share."""
    return made_once(tmp_path_factory, "tiny-puzzles", make_puzzles)


class PuzzleLab:
    """A workspace with a small dataset, and trainings in it."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        self.source = source
        self.workspace = Workspace(root)
        shutil.copytree(source, root / DATASET)

    def config(self, **changed: Any) -> PuzzleTrainConfig:
        """The configuration of a tiny run."""
        kept = {name: value for name, value in PUZZLE_SETTINGS.items() if name != "steps" or "epochs" not in changed}
        return build_config(PuzzleTrainConfig, overrides={**kept, **changed})

    def run_dir(self, name: str) -> Path:
        """Where a run of that name lies."""
        return self.workspace.runs / name

    def train(self, name: str | None = None, **changed: Any) -> TrainResult:
        """A run from beginning to end."""
        return train(self.config(run_name=name, **changed), workspace=self.workspace)

    def trained(self, name: str, **changed: Any) -> TrainResult:
        """The same, trained once in a process and copied: for what begins with a run that has ended."""
        return kept_run(lambda: self.train(name, **changed), self.run_dir(name), self.source, changed)

    def interrupted(self, name: str, at_step: int, **changed: Any) -> TrainResult:
        """A run that is told to stop by SIGTERM in the middle of step ``at_step``."""
        config = self.config(run_name=name, **changed)
        return train(config, workspace=self.workspace, observer=interrupter(at_step))

    def resume(self, name: str, **given: Any) -> TrainResult:
        """Continue a run; ``given`` are flags on the command line."""
        return train(self.config(run_name=name), resume=True, given=given, workspace=self.workspace)
