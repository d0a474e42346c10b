"""Cross-entropy over the small vocabularies of puzzles, by token and by sequence.

Shapes: B sequences, S positions, V vocabulary (6 to 12). ``IGNORE`` in the labels marks positions without a label.

Stablemax (Prieto et al. 2025, arXiv 2501.04697) puts ``s(x) = x + 1`` for ``x >= 0`` and ``1 / (1 - x)`` for ``x < 0``
in the place of the exponential. It is usually evaluated in float64, because ``log(s_y / sum s)`` loses the digits of a
small loss. The fast form needs no wide type: with ``r`` the sum over the *other* tokens the loss is ``log1p(r / s_y)``,
and because ``d log s / dx = 1 / (1 + |x|)`` on both sides, its gradient is ``(p_i - [i = y]) / (1 + |x_i|)``, which
neither overflows nor has a kink at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm_engine.kernels.losses import IGNORE

LossKind = Literal["stablemax", "softmax"]


@dataclass(frozen=True)
class SequenceScores:
    """Scores of each of B sequences; everything stays on the device."""

    loss: Tensor
    """(B,) mean loss over the labelled positions in nats, to be differentiated; 0 without labels."""
    correct: Tensor
    """(B, S) bool: labelled, and the most likely token is the label."""
    exact: Tensor
    """(B,) bool: every labelled position is correct (so also a sequence without labels)."""
    num_labels: Tensor
    """(B,) int64."""

    @property
    def accuracy(self) -> Tensor:
        """(B,) share of the labelled positions that are correct; 0 without labels."""
        return self.correct.sum(-1) / self.num_labels.clamp_min(1)


def stablemax_losses_reference(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Loss of each token in nats, shape of ``labels``, in float64 and as the equation reads; 0 at ``IGNORE``."""
    x, labels = logits.double(), labels.long()
    # both branches are evaluated, so each gets only what it can take
    s = torch.where(x < 0, 1 / (1 - x.clamp_max(0)), x.clamp_min(0) + 1)
    log_probability = (s / s.sum(-1, keepdim=True)).log()
    has_label = labels != IGNORE
    index = torch.where(has_label, labels, 0)[..., None]
    loss = -(1 - label_smoothing) * log_probability.gather(-1, index)[..., 0]
    loss = loss - label_smoothing * log_probability.mean(-1)
    return torch.where(has_label, loss, 0.0)


def stablemax_losses(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The same in float32 (float64 for float64 logits), with gradients in the dtype of the logits.

    Args:
        logits: (..., V), any floating dtype.
        labels: (...) of any integer dtype, 0 to V - 1 or ``IGNORE``.
        label_smoothing: share of the target that is spread evenly over the vocabulary.
    """
    return _StablemaxLosses.apply(logits, labels.long(), label_smoothing)


def log_stablemax(logits: Tensor) -> Tensor:
    """Log-probabilities (..., V) of stablemax in at least float32, to be shown: learning goes through the losses."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    log_s = torch.copysign(torch.log1p(x.abs()), x)
    return log_s - log_s.logsumexp(-1, keepdim=True)


def softmax_losses(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each token in nats, shape of ``labels``, in at least float32; 0 at ``IGNORE``."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(
        wide.flatten(0, -2),
        labels.long().flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return losses.view(labels.shape)


def score_sequences(
    logits: Tensor, labels: Tensor, *, kind: LossKind = "stablemax", label_smoothing: float = 0.0
) -> SequenceScores:
    """Mean loss and exactness of each sequence from logits (B, S, V) and labels (B, S), without asking the host."""
    labels = labels.long()
    losses = (stablemax_losses if kind == "stablemax" else softmax_losses)(
        logits, labels, label_smoothing=label_smoothing
    )
    with torch.no_grad():
        has_label = labels != IGNORE
        num_labels = has_label.sum(-1)
        correct = has_label & (logits.argmax(-1) == labels)
        exact = (correct == has_label).all(-1)
    return SequenceScores(losses.sum(-1) / num_labels.clamp_min(1), correct, exact, num_labels)


class _StablemaxLosses(torch.autograd.Function):
    """The gradient falls out of the forward pass: it is kept instead of the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        x = logits if logits.dtype == torch.float64 else logits.float()
        negative = x < 0
        slope = x.abs().add_(1).reciprocal_()
        s, inverse = torch.where(negative, slope, x + 1), torch.where(negative, 1 - x, slope)
        size = logits.shape[-1]
        # compared, not one_hot or gather: IGNORE then selects nothing, and nothing has to be checked on the host
        chosen = labels[..., None] == torch.arange(size, device=labels.device)
        has_label = (labels != IGNORE)[..., None]
        others = s.masked_fill(chosen, 0).sum(-1, keepdim=True)
        total = others + torch.where(chosen, s, 0).sum(-1, keepdim=True)
        loss = torch.log1p(others * torch.where(chosen, inverse, 0).sum(-1, keepdim=True))
        error = torch.where(chosen, -others, s) / total
        if label_smoothing:
            log_s = torch.copysign(torch.log1p(x.abs()), x)
            even = total.log() - log_s.mean(-1, keepdim=True)
            loss = loss.lerp(even, label_smoothing)
            error = error + label_smoothing * (chosen.to(error.dtype) - 1 / size)
        ctx.save_for_backward(torch.where(has_label, error * slope, 0))
        ctx.logits_dtype = logits.dtype
        return torch.where(has_label, loss, 0)[..., 0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (by_logit,) = ctx.saved_tensors
        return (by_logit * grads[0][..., None]).to(ctx.logits_dtype), None, None
