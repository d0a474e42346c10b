"""Cross-entropy of the cells of whole boards, over small vocabularies.

Shapes: B boards, C cells, V tokens.

Stablemax (Prieto et al. 2025, arXiv 2501.04697; used by 2506.21734) replaces exp by ``s(x) = x + 1`` for x >= 0 and
``1 / (1 - x)`` below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CellLosses:
    """Per board: ``loss`` (B,) mean nats over its labelled cells; ``accuracy`` (B,) share of them that is right;
    ``exact`` (B,) whether all are."""

    loss: Tensor
    accuracy: Tensor
    exact: Tensor


def cell_losses(
    logits: Tensor, labels: Tensor, has_label: Tensor, *, kind: Literal["stablemax", "softmax"], label_smoothing: float
) -> CellLosses:
    """Losses and hits of boards.

    Args:
        logits: (B, C, V), any dtype; computed in fp32, in float64 for float64.
        labels: (B, C) int64. has_label: (B, C) bool, where a label counts.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_probabilities = log_stablemax(wide) if kind == "stablemax" else F.log_softmax(wide, -1)
    of_label = log_probabilities.gather(-1, labels[..., None])[..., 0]
    if label_smoothing:
        of_label = torch.lerp(of_label, log_probabilities.mean(-1), label_smoothing)
    count = has_label.sum(-1)
    divisor = count.clamp_min(1)
    loss = -(of_label * has_label).sum(-1) / divisor
    right = ((logits.detach().argmax(-1) == labels) & has_label).sum(-1)
    return CellLosses(loss, right / divisor, right == count)


def log_stablemax(logits: Tensor) -> Tensor:
    """Log-probabilities (..., V) of stablemax."""
    scores = torch.where(logits < 0, 1 / (1 - logits.clamp_max(0)), logits + 1)
    return torch.log(scores / scores.sum(-1, keepdim=True))
