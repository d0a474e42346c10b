"""Numbers of steps are read late, so that a GPU is not waited for: what a run does must not depend on when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.paths import Workspace
from hrm_engine.training import Trainer
from hrm_engine.training.tasks import puzzle_rows
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, lasting_rows


def stepped(config: Any, workspace: Workspace, interval: int) -> Path:
    """A run whose numbers are read after every ``interval`` steps, as on a GPU; its folder."""
    with Trainer(config, workspace=workspace) as trainer:
        trainer.journal._interval = interval
        while trainer.step_number < trainer.total_steps:
            trainer.step()
        trainer.finish()
        return trainer.run_dir


def assert_same(late: Path, at_once: Path) -> None:
    assert [row for row in lasting_rows(late) if row["event"] == "train"] == [
        row for row in lasting_rows(at_once) if row["event"] == "train"
    ]
    for file in ("model.safetensors", "optimizer.safetensors"):
        newest = [max((run / "checkpoints").iterdir()) / file for run in (late, at_once)]
        assert newest[0].read_bytes() == newest[1].read_bytes()


def test_text(lab: Lab) -> None:
    runs = {every: lab.config(brain_name=f"every-{every}", eval_batches=0, steps=7) for every in (1, 3)}
    assert_same(*(stepped(config, lab.workspace, every) for every, config in runs.items()))


@pytest.mark.parametrize("ahead", [2, 24])
def test_puzzles(puzzle_lab: PuzzleLab, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    """Also where the ring of rows could run empty in between: then the device is asked."""
    monkeypatch.setattr(puzzle_rows, "READ_AHEAD_STEPS", ahead)
    monkeypatch.setattr(puzzle_rows, "RING_BYTES", 1)
    runs = {every: puzzle_lab.config(run_name=f"every-{every}", eval_rows=0, steps=12) for every in (1, 5)}
    assert_same(*(stepped(config, puzzle_lab.workspace, every) for every, config in runs.items()))
