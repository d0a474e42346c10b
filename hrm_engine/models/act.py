"""Adaptive computation time for causal text: segments within the step.

A causal model cannot judge a sequence from its first token, so halting is one logit per token, read at that token, and
nothing is carried from one optimizer step to the next. A batch of fresh rows runs N segments; the states are detached
in between and the backward pass of a segment frees its graph, so memory does not grow with N.

Shapes: B batch, S sequence, D hidden, N segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm_engine.errors import ConfigError
from hrm_engine.kernels.losses import IGNORE, head_statistics, token_losses
from hrm_engine.models.cache import HeldKeys
from hrm_engine.models.core import Carry, RecurrentCore
from hrm_engine.models.moe import Dispatch, RoutingSums

GAIN_SHARPNESS = 50.0
"""Slope of the label for continuing, per nat of loss that the next segment saves."""
GAIN_THRESHOLD = 0.005
"""Nats that the next segment must save to be worth it."""
HALT_LOSS_WEIGHT = 0.05


@dataclass(frozen=True)
class TextBatch:
    """Packed rows on the device, (B, S) each; ``documents`` is None where every row is one document."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor | None
    depths: Tensor | None = None
    """(B, S) segments after which each position stops, in training that makes stopping early familiar."""
    starts: Tensor | None = None
    """Where the documents begin, on a device whose attention uses it (:func:`~.kernels.attention.document_starts`)."""


@dataclass(frozen=True)
class TextLosses:
    """Sums over label tokens of this process, on the device, without graph; stopped positions are in none of them."""

    ce_by_segment: Tensor
    """(N,) sum of the token losses in nats at each depth, over the positions that run it."""
    halt: Tensor
    """Scalar sum of the halting losses, 0 where there is one segment."""
    routing: RoutingSums | None = None
    """Sums about the routers, where there are experts."""

    def __add__(self, other: TextLosses) -> TextLosses:
        routing = self.routing + other.routing if self.routing and other.routing else None
        return TextLosses(self.ce_by_segment + other.ce_by_segment, self.halt + other.halt, routing)


def run_segments(
    core: RecurrentCore,
    batch: TextBatch,
    *,
    num_segments: int,
    checkpointing: bool = False,
    dispatch: Dispatch | None = None,
    grad_calls: int | None = None,
    halt_threshold: float | None = None,
) -> Iterator[Carry]:
    """The states after each segment; gradients reach back to the beginning of the same segment, never further.

    A position stops after the segments that ``batch.depths`` says, or where the probability that another one is worth
    it is not above ``halt_threshold``: its states stay, and deeper positions see its last keys and values. The input
    embedding is made anew for each segment, because the backward pass of the one before has freed it.
    """
    context = core.context(
        batch.positions, documents=batch.documents, starts=batch.starts, checkpointing=checkpointing, dispatch=dispatch
    )
    carry: Carry | None = None
    stopped: Tensor | None = None
    held = None if batch.depths is None and halt_threshold is None else HeldKeys(core.config)
    for number in range(num_segments):
        x = core.embed(batch.inputs, batch.positions)
        if carry is not None and batch.depths is not None:
            stopped = batch.depths <= number
        elif carry is not None and halt_threshold is not None:
            stopped = halts(core, carry.z_h, halt_threshold, stopped)
        if held is not None:
            held.begin(stopped)
        before = core.initial_carry(x) if carry is None else carry
        carry = core.segment(before, x, context, cache=held, grad_calls=grad_calls).but_stopped(before, stopped)
        yield carry
        carry = carry.detach()


def accumulate_gradients(
    core: RecurrentCore,
    batch: TextBatch,
    *,
    num_segments: int,
    normaliser: float,
    backward: Callable[[Tensor], None],
    checkpointing: bool = False,
    dispatch: Dispatch | None = None,
    grad_calls: int | None = None,
) -> TextLosses:
    """Run N segments with a backward pass each.

    The loss is ``(sum over segments of CE / N + 0.05 * halting loss) / normaliser``; segment weights sum to 1. Where
    there are experts, the losses of their routers come to it, with this batch's share of the label tokens. A position
    that has stopped (``batch.depths``) has no further loss.

    Args:
        dispatch: behaviour of the routers in training; needed where there are experts.
        grad_calls: last module calls of a segment with gradient, where they are not all that the model is set to.
        normaliser: label tokens of the whole optimizer step, so that micro-batches add up to the large batch's mean;
            where positions stop early, the pairs of label token and segment that it runs, divided by N.
        backward: what to call with a loss that must be differentiated now (it may scale it).
    """
    labels = batch.labels.flatten()
    sums: list[Tensor] = []
    halt_sum = torch.zeros((), device=labels.device)
    previous: tuple[Tensor, Tensor] | None = None
    routing: RoutingSums | None = None
    segments = run_segments(
        core, batch, num_segments=num_segments, checkpointing=checkpointing, dispatch=dispatch, grad_calls=grad_calls
    )
    for carry in segments:
        hidden = carry.z_h.flatten(0, 1)
        stopped = None if carry.stopped is None else carry.stopped.flatten()
        running = labels if stopped is None else labels.masked_fill(stopped, IGNORE)
        total, by_token = token_losses(hidden, core.lm_head.weight, running)
        loss = total / (num_segments * normaliser)
        if previous is not None:
            halt = halting_loss(core, *previous, by_token, running != IGNORE)
            halt_sum = halt_sum + halt.detach()
            loss = loss + HALT_LOSS_WEIGHT * halt / normaliser
            by_token = by_token if stopped is None else torch.where(stopped, previous[1], by_token)
        if dispatch is not None:
            balancing, part = dispatch.take((running != IGNORE).sum() / (num_segments * normaliser))
            loss = loss + balancing
            routing = part if routing is None else routing + part
        backward(loss)
        sums.append(total.detach())
        previous = (hidden.detach(), by_token)
    return TextLosses(torch.stack(sums), halt_sum, routing)


def halting_loss(core: RecurrentCore, hidden: Tensor, losses: Tensor, next_losses: Tensor, has_label: Tensor) -> Tensor:
    """Sum over label tokens of the cross-entropy between the halting logit and the label for continuing.

    The label is ``sigmoid(50 * (CE_s - CE_{s+1} - 0.005))``: how surely the next segment saves more than 0.005 nat.
    ``hidden`` (B*S, D) is detached: halting learns to read the state, it does not shape it.
    """
    label = torch.sigmoid(GAIN_SHARPNESS * (losses - next_losses - GAIN_THRESHOLD))
    logit = continue_logits(core, hidden).to(label.dtype)
    return (F.binary_cross_entropy_with_logits(logit, label, reduction="none") * has_label).sum()


def halts(core: RecurrentCore, hidden: Tensor, threshold: float, before: Tensor | None = None) -> Tensor:
    """Which positions (B, S) stop, from high-level states (B, S, D); those of ``before`` had stopped already.

    A position goes on where the probability that another segment is worth it is above ``threshold``: 0 lets every one
    go on, 1 none.
    """
    stops = torch.sigmoid(continue_logits(core, hidden).float()) <= threshold
    return stops if before is None else stops | before


def check_threshold(core: RecurrentCore, threshold: float) -> None:
    """Raise ConfigError where a threshold is no probability, or the model has no halting head to compare with it."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--halt-threshold {threshold}: use a probability from 0 (full depth) to 1 (one segment)")
    if core.halt_head is None:
        raise ConfigError(
            f"--halt-threshold {threshold}: this model was trained with one segment and has no halting head; "
            "leave it out"
        )


def continue_logits(core: RecurrentCore, hidden: Tensor) -> Tensor:
    """Logit (...,) that another segment is worth it, from a high-level state (..., D)."""
    if core.halt_head is None:
        raise ValueError("this model has one segment and no halting head")
    return core.halt_head(hidden)[..., 0]


@torch.no_grad()
def depth_statistics(core: RecurrentCore, batch: TextBatch, *, num_segments: int) -> tuple[Tensor, Tensor]:
    """Sum of the token losses and number of right next tokens at each depth: two tensors (N,)."""
    labels = batch.labels.flatten()
    losses, correct = [], []
    for carry in run_segments(core, batch, num_segments=num_segments):
        by_token, right = head_statistics(carry.z_h.flatten(0, 1), core.lm_head.weight, labels)
        losses.append(_sum(by_token))
        correct.append(right.sum())
    return torch.stack(losses), torch.stack(correct)


@torch.no_grad()
def adaptive_statistics(
    core: RecurrentCore, batch: TextBatch, *, num_segments: int, halt_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each token stops by itself: sums over label tokens of the losses, of the right ones, and of the depths."""
    labels = batch.labels.flatten()
    depths = torch.zeros_like(batch.labels)
    for carry in run_segments(core, batch, num_segments=num_segments, halt_threshold=halt_threshold):
        depths += 1 if carry.stopped is None else ~carry.stopped
    by_token, right = head_statistics(carry.z_h.flatten(0, 1), core.lm_head.weight, labels)
    return _sum(by_token), right.sum(), depths.flatten()[labels != IGNORE].sum()


def _sum(by_token: Tensor) -> Tensor:
    return by_token.sum() if by_token.device.type == "mps" else by_token.sum(dtype=torch.float64)
