"""Every subject of the bench, at its smallest size: that its report is made, and has the rows it should have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import adaptive_depth
from bench.__main__ import SUBJECTS

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
