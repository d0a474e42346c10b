"""Adaptive computation time for puzzles: slots that keep their row until they halt (2506.21734).

A batch is B slots. Each holds a row (a puzzle with its solution) and the latent states of thinking about it. An
optimizer step is one segment of every slot; a slot that halts takes a fresh row at the beginning of the next step.
Everything here has static shapes and never asks the host: which slots halted is known only on the device.

Shapes: B slots, K latents per slot, S positions with the P of the puzzle embedding, C = S - P cells, D hidden, V
vocabulary, Q cells of the row queue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm_engine.kernels.losses import IGNORE
from hrm_engine.kernels.stablemax import score_sequences
from hrm_engine.models.core import Carry, RecurrentCore
from hrm_engine.models.layers import Context
from hrm_engine.models.moe import RoutingSums


class Rows(NamedTuple):
    """Puzzles on the device, or a ring of them: ``inputs`` and ``labels`` (Q, C), ``identifiers`` (Q,)."""

    inputs: Tensor
    labels: Tensor
    identifiers: Tensor


@dataclass(frozen=True)
class Slots:
    """State of the slots of this process between steps."""

    carry: Carry
    """(B * K, S, D), the K latents of a slot one after the other."""
    rows: Rows
    """B rows."""
    segments: Tensor
    """(B,) segments that the slot has spent on its row."""
    halted: Tensor
    """(B,) whether the slot is done with it."""

    def part(self, start: int, stop: int) -> Slots:
        """The slots ``start:stop``."""
        latents = len(self.carry.z_h) // len(self.segments)
        return Slots(
            Carry(*(state[start * latents : stop * latents] for state in (self.carry.z_h, self.carry.z_l))),
            Rows(*(column[start:stop] for column in self.rows)),
            self.segments[start:stop],
            self.halted[start:stop],
        )

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint."""
        return {
            "z_h": self.carry.z_h,
            "z_l": self.carry.z_l,
            **self.rows._asdict(),
            "steps": self.segments,  # its name in checkpoints
            "halted": self.halted,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Slots:
        """Read back what :meth:`tensors` gave."""
        rows = Rows(*(tensors[name] for name in Rows._fields))
        return cls(Carry(tensors["z_h"], tensors["z_l"]), rows, tensors["steps"], tensors["halted"].bool())


def join(parts: list[Slots]) -> Slots:
    """Slots one after the other; undoes :meth:`Slots.part`."""
    if len(parts) == 1:
        return parts[0]
    columns = [part.tensors() for part in parts]
    return Slots.from_tensors({name: torch.cat([column[name] for column in columns]) for name in columns[0]})


def empty_slots(core: RecurrentCore, num_slots: int, queue: Rows) -> Slots:
    """Slots that are all halted: the first step fills them."""
    config, device = core.config, queue.inputs.device
    shape = (num_slots * config.num_latents, config.max_seq_len, config.hidden_size)
    states = (torch.zeros(shape, dtype=core.lm_head.weight.dtype, device=device) for _ in range(2))
    rows = Rows(*(torch.zeros(num_slots, *column.shape[1:], dtype=column.dtype, device=device) for column in queue))
    segments = torch.zeros(num_slots, dtype=torch.int32, device=device)
    return Slots(Carry(*states), rows, segments, torch.ones(num_slots, dtype=torch.bool, device=device))


def refill(slots: Slots, queue: Rows, cursor: Tensor) -> tuple[Slots, Tensor]:
    """Fresh rows for the slots that have halted, in order; the marks ``halted`` stay, for :func:`think` to start anew.

    Args:
        queue: a ring in which row number r stands at ``r % Q``.
        cursor: scalar int64, number of rows that this process has taken so far.

    Returns:
        The slots, and the number of rows taken now. No row is dropped or given twice.
    """
    place = ((cursor + slots.halted.cumsum(0) - 1) % len(queue.inputs)).clamp_min(0)

    def fresh(new: Tensor, old: Tensor) -> Tensor:
        halted = slots.halted.view(-1, *[1] * (old.ndim - 1))
        return torch.where(halted, new[place], old)

    rows = Rows(*map(fresh, queue, slots.rows))
    return replace(slots, rows=rows), cursor + slots.halted.sum()


@dataclass(frozen=True)
class Objective:
    """The loss of a step. Labels equal to ``ignore_label`` carry no loss; None: all do."""

    loss: Literal["stablemax", "softmax"] = "stablemax"
    label_smoothing: float = 0.0
    halt_loss_weight: float = 0.5
    ignore_label: int | None = 0


NUMBERS = (
    "loss",
    "ce",
    "halt_loss",
    "continue_loss",
    "num_halted",
    "cell_accuracy",
    "exact_accuracy",
    "halt_accuracy",
    "segments",
    "fresh_rows",
    "fresh_tokens",
    "tokens",
)
"""Measurements of a step: sums over the slots of this process, accuracies and segments over those that halted now."""


@dataclass(frozen=True)
class Thought:
    """One segment of some slots."""

    loss: Tensor
    """Scalar, to be differentiated: the mean over the whole step's slots once all parts are added up."""
    slots: Slots
    numbers: Tensor
    """(len(NUMBERS),) fp32, without graph."""
    routing: RoutingSums | None = None
    """Sums about the routers, where there are experts."""


def think(
    core: RecurrentCore,
    slots: Slots,
    context: Context,
    objective: Objective,
    *,
    num_slots: int,
    min_segments: Tensor,
    puzzle: Tensor | None = None,
    cycles: tuple[int, int] | None = None,
    grad_calls: int | None = None,
    noise: torch.Generator | None = None,
) -> Thought:
    """One segment of slots that :func:`refill` has filled: losses, halting, metrics.

    The loss is, summed over slots and divided by ``num_slots``: the mean cross-entropy of a slot's cells, plus
    ``halt_loss_weight`` times the cross-entropies of its Q values: of halting against "every cell is right", and with
    Q-learning of going on against the value of the next segment, which runs without gradient.

    Args:
        num_slots: B of the whole step; these slots are a part of them.
        min_segments: (B,) segments that a slot must think before it may halt (exploration; 0 = none, at most
            ``halt_max_steps``).
        puzzle: (B, P * D) rows of the puzzle embedding, with gradient.
        grad_calls: last module calls with gradient, where they are not all that the model is set to.
        noise: draws initial states and state noise, where the model has them.
    """
    config, latents, fresh = core.config, core.config.num_latents, slots.halted
    inputs, labels = slots.rows.inputs.long(), slots.rows.labels.long()
    x = repeat_latents(embed_rows(core, inputs, puzzle), latents)
    carry = start_fresh(core, slots.carry, fresh, x, noise)
    carry = core.segment(carry, x, context, cycles=cycles, grad_calls=grad_calls, noise=noise)
    routing: RoutingSums | None = None
    balancing = torch.zeros((), device=x.device)
    if context.dispatch is not None:
        balancing, routing = context.dispatch.take(len(inputs) / num_slots)

    scores = score_sequences(
        core.logits(carry.z_h),
        repeat_latents(with_ignored(labels, objective.ignore_label), latents),
        kind=objective.loss,
        label_smoothing=objective.label_smoothing,
    )
    q = core.q_values(carry.z_h)
    # Several latents: the best one of a row takes the gradient of its cells (2601.19085); all learn when to halt.
    winner = scores.loss.detach().view(-1, latents).argmin(1, keepdim=True)

    def best(values: Tensor) -> Tensor:
        return values.view(-1, latents).gather(1, winner)[:, 0]

    exact = scores.exact.to(q.dtype)
    halt_loss = F.binary_cross_entropy_with_logits(q[:, 0], exact, reduction="sum") / latents
    carry = carry.detach()
    segments = torch.where(fresh, 0, slots.segments) + 1
    is_last = segments >= config.halt_max_steps
    q_halt = q[:, 0].detach()
    continue_loss = torch.zeros_like(halt_loss)
    if config.halting == "q_halt_continue":
        ahead = _next_values(core, carry, x.detach(), context, cycles)
        target = torch.sigmoid(torch.where(repeat_latents(is_last, latents), ahead[:, 0], ahead.amax(1)))
        continue_loss = F.binary_cross_entropy_with_logits(q[:, 1], target, reduction="sum") / latents
    # with exploration a slot must go on for a while although it is sure
    halted = (wants_to_halt(q.detach()).view(-1, latents).any(1) | is_last) & (segments >= min_segments)

    ce = best(scores.loss).sum()
    loss = (ce + objective.halt_loss_weight * (halt_loss + continue_loss)) / num_slots + balancing
    num_tokens = scores.num_labels[::latents]
    counted = halted & (num_tokens > 0)
    halt_right = (q_halt >= 0) == scores.exact
    sums = (
        loss * num_slots,
        ce,
        halt_loss,
        continue_loss,
        counted.sum(),
        (best(scores.accuracy) * counted).sum(),
        (best(scores.exact) & counted).sum(),
        (best(halt_right) & counted).sum(),
        (segments * counted).sum(),
        fresh.sum(),
        (num_tokens * fresh).sum(),
        num_tokens.sum(),
    )
    numbers = torch.stack([number.detach().float() for number in sums])
    return Thought(loss, Slots(carry, slots.rows, segments.to(slots.segments.dtype), halted), numbers, routing)


def with_ignored(labels: Tensor, ignore_label: int | None) -> Tensor:
    """Labels with ``IGNORE`` where there is none, which is where they are ``ignore_label``."""
    return labels if ignore_label is None else labels.masked_fill(labels == ignore_label, IGNORE)


def embed_rows(core: RecurrentCore, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
    """Input x (B, S, D) of rows of tokens (B, C) with their puzzle embedding (B, P * D), if the model has one."""
    positions = torch.arange(core.config.max_seq_len, device=inputs.device)[None]
    return core.embed(inputs, positions, puzzle=puzzle)


def repeat_latents(rows: Tensor, latents: int) -> Tensor:
    """(B, ...) to (B * K, ...), each row K times in a row."""
    return rows if latents == 1 else rows.repeat_interleave(latents, 0)


def start_fresh(
    core: RecurrentCore, carry: Carry, fresh: Tensor, x: Tensor, generator: torch.Generator | None = None
) -> Carry:
    """The carry with the initial states where a slot is ``fresh`` (B,)."""
    first = core.initial_carry(x, generator=generator)
    mask = repeat_latents(fresh, len(x) // len(fresh)).view(-1, 1, 1)
    return Carry(torch.where(mask, first.z_h, carry.z_h), torch.where(mask, first.z_l, carry.z_l))


def wants_to_halt(q: Tensor) -> Tensor:
    """Whether Q values (..., 1 or 2) say that thinking should end: halting is worth more than going on, or than not."""
    return q[..., 0] > (q[..., 1] if q.shape[-1] == 2 else 0)


@torch.no_grad()
def _next_values(
    core: RecurrentCore, carry: Carry, x: Tensor, context: Context, cycles: tuple[int, int] | None
) -> Tensor:
    """Q values (B, 2) after one segment more: they are read at position 0, so only that is computed at the end."""
    context = replace(context, dispatch=None)  # what is only looked at neither drops tokens nor counts them
    return core.q_values(core.segment(carry, x, context, cycles=cycles, first_only=True).z_h)
