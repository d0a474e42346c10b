"""Rows are prepared in a thread while a step is made: no thread stays, and its errors are errors of the step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hrm_engine.data.text.packing import Batch, PackedRows
from hrm_engine.errors import DataError, HRMError
from hrm_engine.training import Trainer, train
from tests.tiny_runs import Lab, assert_same_end, row_of

IMPOSSIBLE_BYTES = 1 << 55


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hrm-lab-rows")]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Have the rows with these numbers fail, once, while they are prepared."""
    batch = PackedRows.batch

    def arm(row: int, fail: Callable[[], None]) -> None:
        armed = [True]

        def prepare(self: PackedRows, indices: np.ndarray[Any, Any]) -> Batch:
            if row in indices and armed:
                assert threading.current_thread().name.startswith("hrm-lab-rows")
                armed.clear()
                fail()
            return batch(self, indices)

        monkeypatch.setattr(PackedRows, "batch", prepare)

    return arm


def stop_at(step: int, by: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train":
            if not threads():
                raise SystemExit("rows are prepared in a thread")
            if row["step"] == step:
                by()

    return observe


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", ["finished", "sigterm", "left", "ctrl-c"])
def test_no_thread_is_left_however_a_run_ends(lab: Lab, end: str) -> None:
    config = lab.config(brain_name="run")
    if end == "left":
        with Trainer(config, workspace=lab.workspace) as trainer:
            trainer.step()
            assert threads()
    elif end == "ctrl-c":
        with pytest.raises(KeyboardInterrupt):
            train(config, workspace=lab.workspace, observer=stop_at(2, interrupt))
    else:
        by = (lambda: signal.raise_signal(signal.SIGTERM)) if end == "sigterm" else (lambda: None)
        assert train(config, workspace=lab.workspace, observer=stop_at(2, by)).step == (2 if end == "sigterm" else 6)
    assert threads() == []


def test_what_fails_in_the_thread_fails_the_step_that_needs_it(lab: Lab, failing: Any) -> None:
    def fail() -> None:
        raise DataError("rows 4 and 5 are broken")

    lab.train("straight", eval_batches=0)
    failing(4, fail)  # two rows a step: it is prepared while step 2 is made, and step 3 needs it
    with pytest.raises(HRMError, match="rows 4 and 5 are broken"):
        lab.train("run", eval_batches=0)
    assert threads() == []
    stop = row_of(lab.run_dir("run"), "stop")
    assert (stop["step"], stop["exit_code"], stop["reason"]) == (2, 2, "rows 4 and 5 are broken")
    assert lab.resume("run").step == 6
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_memory_that_runs_out_in_the_thread_halves_the_micro_batch(lab: Lab, failing: Any) -> None:
    failing(4, lambda: torch.empty(IMPOSSIBLE_BYTES, dtype=torch.uint8) and None)
    lab.train("run", eval_batches=0)
    oom = row_of(lab.run_dir("run"), "oom")
    assert (oom["step"], oom["micro_batch_size"]) == (2, 1)
    assert row_of(lab.run_dir("run"), "final")["step"] == 6
