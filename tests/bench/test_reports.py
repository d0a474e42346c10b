"""Every subject of the bench, at its smallest size: its report is made, and what it counts is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import adaptive_depth, text_gpu
from bench.__main__ import SUBJECTS, TINY
from bench.text_peer import our_trainer, their_step

CPU = torch.device("cpu")
FIRST_CELLS = {
    "text_step": ["default: the gradient reaches the embeddings", "one_step"],
    "text_peer": ["HrmTextForCausalLM", "lab train actv1"],
    "text_gpu": [],
    "adaptive_depth": [
        *(f"all of {depth}" for depth in range(1, adaptive_depth.SEGMENTS + 1)),
        *(f"by itself, threshold {threshold}" for threshold in adaptive_depth.THRESHOLDS),
    ],
    "generation": ["8", "2"],
    "kernels": ["head 64 x 64 x 256", "attention 2 x 32, 4 heads"],
    "moe_layer": [
        "dense, 2 x 32 (equal active)",
        "MoE, 4 experts, top 2, dropless",
        "MoE, 4 experts, top 2, capacity 1.25",
        "dense, 4 x 32 (equal total)",
    ],
    "hrm_step": ["ours, eager, Q-continue on", "ours, eager, Q-continue off"],
}


def test_every_subject_is_expected() -> None:
    assert FIRST_CELLS.keys() == SUBJECTS.keys()


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_report_is_made(name: str, workspace: Path) -> None:
    report = SUBJECTS[name].report(CPU, **SUBJECTS[name].smallest)
    first_cells = [line.removeprefix("| ").split(" | ")[0] for line in report.splitlines() if line.startswith("| ")]
    assert report.startswith("## ")
    assert set(FIRST_CELLS[name]) <= set(first_cells)
    if name == "text_gpu":
        assert "not measured: there is no CUDA device here" in report


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
