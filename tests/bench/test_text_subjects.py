"""The text subjects of the bench, at sizes that say nothing: that they run, and count what they say they count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import adaptive_depth, text_gpu, text_step
from bench.text_peer import Size, our_trainer, their_step

CPU = torch.device("cpu")
TINY = Size(rows=2, length=16, hidden=64, heads=1, layers=1)


def test_both_sides_are_the_same_network_and_waits_of_a_step_are_counted(workspace: Path) -> None:
    trace = workspace / "trace" / "step.json"
    with their_step(CPU, TINY) as (step, theirs), our_trainer(CPU, TINY) as trainer:
        step()
        assert sum(parameter.numel() for parameter in trainer.model.parameters()) == pytest.approx(theirs, rel=0.001)
        # on a CPU, where no call waits, every step is read at once
        waits = text_gpu.waits_of(trainer, trace, ("aten::_local_scalar_dense",))
    assert waits["aten::_local_scalar_dense"] >= text_gpu.STEADY_STEPS
    assert trace.stat().st_size > 1000


def test_the_size_for_a_gpu_is_what_it_is_called() -> None:
    layer = 5 * text_gpu.SIZE.hidden**2 + 3 * text_gpu.SIZE.hidden * 2048
    parameters = 2 * text_gpu.SIZE.layers * layer + 2 * 8192 * text_gpu.SIZE.hidden
    assert parameters == pytest.approx(100e6, rel=0.1)


def test_without_a_gpu_it_says_so() -> None:
    assert "not measured: there is no CUDA device here" in text_gpu.report(CPU)


def test_adaptive_depth_is_told_beside_full_depth(workspace: Path) -> None:
    told = adaptive_depth.report(CPU, steps=1, width=64, eval_rows=2)
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + adaptive_depth.SEGMENTS + len(adaptive_depth.THRESHOLDS)
    assert "all of 4" in told
    assert "threshold 0.5" in told


def test_label_tokens_of_a_step_are_counted_for_its_throughput() -> None:
    report = text_step.report(CPU, TINY, steps=3, warmup=1)
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["5", "2"]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
