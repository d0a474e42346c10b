"""The text subjects of the bench, at sizes that say nothing: that they run, and count what they say they count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import text_gpu
from bench.__main__ import TINY
from bench.text_peer import our_trainer, their_step

CPU = torch.device("cpu")


def test_both_sides_are_the_same_network_and_waits_of_a_step_are_counted(workspace: Path) -> None:
    trace = workspace / "trace" / "step.json"
    with their_step(CPU, TINY) as (step, theirs), our_trainer(CPU, TINY) as trainer:
        step()
        assert sum(parameter.numel() for parameter in trainer.setup.model.parameters()) == pytest.approx(
            theirs, rel=0.001
        )
        # on a CPU, where no call waits, every step is read at once
        waits = text_gpu.waits_of(trainer, trace, ("aten::_local_scalar_dense",))
    assert waits["aten::_local_scalar_dense"] >= text_gpu.STEADY_STEPS
    assert trace.stat().st_size > 1000


def test_the_size_for_a_gpu_is_what_it_is_called() -> None:
    layer = 5 * text_gpu.SIZE.hidden**2 + 3 * text_gpu.SIZE.hidden * 2048
    parameters = 2 * text_gpu.SIZE.layers * layer + 2 * 8192 * text_gpu.SIZE.hidden
    assert parameters == pytest.approx(100e6, rel=0.1)
