"""The rows of one step of a text training, and how deep each of their positions goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hrm_engine.config.text import DepthConfig
from hrm_engine.data.random import stream
from hrm_engine.data.text.packing import IGNORE, Batch
from hrm_engine.inference.text.reading import on_device
from hrm_engine.models.act import TextBatch


@dataclass(frozen=True)
class StepRows:
    """The rows of one optimizer step; what is counted of them was counted before they went to the device."""

    batches: list[TextBatch]
    num_tokens: int
    """Label tokens."""
    num_segments: int
    """Segments that the step runs."""
    token_segments: int
    """Pairs of a label token and a segment that it runs."""
    grad_calls: int | None = None
    """Module calls of a segment with gradient, where their number is warmed up."""


def step_rows(
    parts: list[Batch], device: torch.device, *, depth: DepthConfig, most_segments: int, seed: int, position: int
) -> StepRows:
    """The rows of a step in micro-batches on the device, with the depths that are drawn for them.

    With ``sample_segments`` the step runs 1 to ``most_segments``, each as likely. In a share ``freeze_positions`` of
    the steps some positions stop earlier: for each row a share of them is drawn, for each of these a segment. All is
    drawn from the seed and ``position``, the rows consumed before, whatever the micro-batches are.
    """
    draw = stream(seed, "depths", position)
    num_segments = int(draw.integers(1, most_segments + 1)) if depth.sample_segments else most_segments
    labels = [part.labels != IGNORE for part in parts]
    num_tokens = sum(int(label.sum()) for label in labels)
    if num_segments == 1 or draw.random() >= depth.freeze_positions:
        batches = [on_device(part, device) for part in parts]
        return StepRows(batches, num_tokens, num_segments, num_tokens * num_segments)
    shape = (sum(len(part.inputs) for part in parts), parts[0].inputs.shape[1])
    stops = draw.random(shape) < draw.random((shape[0], 1))
    drawn = np.where(stops, draw.integers(1, num_segments, shape), num_segments)
    depths = torch.from_numpy(drawn).split([len(part.inputs) for part in parts])
    return StepRows(
        [on_device(part, device, of_part) for part, of_part in zip(parts, depths, strict=True)],
        num_tokens,
        num_segments,
        sum(int(of_part[label].sum()) for label, of_part in zip(labels, depths, strict=True)),
    )
