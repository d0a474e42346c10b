"""Watch a solver think: its answer after each segment, the changed cells, and whether it would halt.

Shapes: T segments, C cells, S positions, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.data.puzzles.board import Board
from hrm_engine.inference.puzzles.thinking import (
    Boards,
    FirstStates,
    Thinker,
    check_boards,
    check_identifiers,
    check_segments,
)
from hrm_engine.kernels.stablemax import log_stablemax

TRACE_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Segment:
    """The outcome of one segment."""

    number: int
    """From 1."""
    prediction: npt.NDArray[np.int64]
    """(C,) tokens."""
    changed: npt.NDArray[np.bool_]
    """(C,) cells that differ from the segment before, in the first segment from the board as it was given."""
    q_halt: float
    """Probability, as the halting head sees it, that the prediction is right."""
    q_continue: float | None
    """Value of going on as a probability; None for a model without Q-learning."""
    wants_to_halt: bool
    residual: float
    """Norm of the change of both states, relative to their norm."""
    cell_confidence: npt.NDArray[np.float32] | None = None
    """(C,) probability of each predicted token; None where the bundle does not say which loss it was trained with."""
    z_h: Tensor | None = None
    """(S, D) fp32 on the CPU, the positions of the puzzle embedding first; None unless states are kept."""
    z_l: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """Thinking about one board, segment by segment."""

    board: Board
    height: int
    width: int
    inputs: npt.NDArray[np.int64]
    """(C,) tokens as given."""
    segments: tuple[Segment, ...]

    @cached_property
    def halted_at(self) -> int | None:
        """Number of the segment at which it halts by itself; None if it never does."""
        return next((segment.number for segment in self.segments if segment.wants_to_halt), None)

    @property
    def answer(self) -> npt.NDArray[np.int64]:
        """(C,) the prediction when it halts by itself, else the last one."""
        return self.segments[(self.halted_at or len(self.segments)) - 1].prediction

    @property
    def is_valid(self) -> bool | None:
        """Whether the answer follows the rules; None for boards without rules (ARC, other)."""
        return self.board.is_valid(self.inputs, self.answer)

    def states(self, level: str) -> Tensor:
        """``z_h`` or ``z_l`` of all segments, (T, S, D) fp32. Raises ValueError unless states were kept."""
        states: list[Any] = [getattr(segment, level, None) for segment in self.segments]
        if level not in ("z_h", "z_l") or any(state is None for state in states):
            raise ValueError(f"no states {level!r}: trace with keep_states=True, and ask for z_h or z_l")
        return torch.stack(states)

    def as_json(self) -> dict[str, Any]:
        """Everything but the states, as JSON: tokens as numbers, changed cells as their numbers."""
        return {
            "schema_version": TRACE_SCHEMA,
            "kind": self.board.kind,
            "height": self.height,
            "width": self.width,
            "inputs": self.inputs.tolist(),
            "answer": self.answer.tolist(),
            "halted_at": self.halted_at,
            "is_valid": self.is_valid,
            "segments": [_segment_json(segment) for segment in self.segments],
        }


def trace(
    bundle: PuzzleBundle,
    inputs: Boards,
    *,
    identifier: int | None = None,
    segments: int | None = None,
    keep_states: bool = False,
) -> Trace:
    """Think about one board (C,) for all ``segments``, also beyond the one at which it would stop.

    Args:
        identifier: puzzle identifier; by default the blank one, which ARC solvers do not have.
        segments: 1 to 64; by default as many as the model was trained for.
        keep_states: keep z_h and z_l of each segment.

    Raises:
        DataError: a board that the solver cannot take. ConfigError: segments or identifier out of range.
    """
    thoughts = tuple(watch(bundle, inputs, identifier=identifier, segments=segments, keep_states=keep_states))
    card = bundle.card
    return Trace(card.board, card.height, card.width, np.asarray(inputs).astype(np.int64), thoughts)


@torch.no_grad()
def watch(
    bundle: PuzzleBundle,
    inputs: Boards,
    *,
    identifier: int | None = None,
    segments: int | None = None,
    keep_states: bool = False,
) -> Iterator[Segment]:
    """The segments of :func:`trace`, each as soon as it has been thought."""
    num_segments = check_segments(bundle, segments)
    boards = check_boards(bundle, np.asarray(inputs)[None])
    identifiers = check_identifiers(bundle, None if identifier is None else np.array([identifier]), 1)
    thinker = Thinker(bundle.model)
    x = thinker.embed(torch.from_numpy(boards), torch.from_numpy(identifiers))
    carry = FirstStates(thinker.core, [0], drawn=False)(x, torch.zeros(1, dtype=torch.int64, device=x.device))
    loss = bundle.card.loss
    before = boards[0].astype(np.int64)
    for number in range(1, num_segments + 1):
        carry, thought = thinker.think(carry, x)
        prediction = thought.logits[0].argmax(-1)
        values = torch.sigmoid(thought.q[0]).tolist()
        after = prediction.cpu().numpy()
        states = [carry.z_h, carry.z_l] if keep_states else []
        yield Segment(
            number,
            after,
            after != before,
            values[0],
            values[1] if len(values) == 2 else None,
            bool(thought.wants_to_halt[0]),
            float(thought.residual[0]),
            _confidence(thought.logits[0], prediction, loss),
            *(state[thought.places[0]].float().cpu().clone() for state in states),
        )
        before = after


def principal_components(
    states: Tensor | npt.NDArray[Any], *, num_components: int = 2, by_position: bool = False
) -> npt.NDArray[np.float64]:
    """States (T, S, D), or (T, D), on their first principal axes over the segments, float64 (T, num_components).

    Positions are averaged first, which shows where the board as a whole is; with ``by_position`` they stay apart as
    coordinates of their own (S * D), which also shows moves that cancel out in the mean. T states span T - 1 axes:
    further ones are zero. The sign of an axis is chosen so that its largest coordinate is positive.

    Raises:
        ValueError: states of another shape, or not 1 to 3 components.
    """
    values = np.asarray(states, dtype=np.float64)
    if values.ndim not in (2, 3) or not len(values) or not 1 <= num_components <= 3:
        raise ValueError(f"states of shape {values.shape} on {num_components} axes: (T, S, D) on 1 to 3 are possible")
    if values.ndim == 3:
        values = values.reshape(len(values), -1) if by_position else values.mean(1)
    left, sizes, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    points = np.zeros((len(values), num_components))
    rank = min(num_components, len(sizes))
    points[:, :rank] = left[:, :rank] * sizes[:rank]
    largest = np.take_along_axis(points, np.abs(points).argmax(0)[None], 0)
    return points * np.where(largest < 0, -1.0, 1.0)


def _segment_json(segment: Segment) -> dict[str, Any]:
    confidence = segment.cell_confidence
    return {
        "number": segment.number,
        "prediction": segment.prediction.tolist(),
        "changed": np.flatnonzero(segment.changed).tolist(),
        "q_halt": segment.q_halt,
        "q_continue": segment.q_continue,
        "wants_to_halt": segment.wants_to_halt,
        "residual": segment.residual,
        "cell_confidence": None if confidence is None else [round(float(value), 4) for value in confidence],
    }


def _confidence(logits: Tensor, prediction: Tensor, loss: str | None) -> npt.NDArray[np.float32] | None:
    if loss is None:
        return None
    log_probabilities = log_stablemax(logits) if loss == "stablemax" else logits.float().log_softmax(-1)
    return log_probabilities.gather(-1, prediction[:, None])[:, 0].exp().cpu().numpy()
