"""Evaluation of a solver on many puzzles: at every depth, and when it halts by itself.

Shapes: N rows, B rows of a batch, C cells, T segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_engine.errors import DataError
from hrm_engine.inference.puzzles.thinking import FirstStates, Thinker
from hrm_engine.kernels.stablemax import score_sequences
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Objective, Rows, with_ignored


@dataclass(frozen=True)
class PuzzleEvaluation:
    """Results by row and segment (N, T): ``exact`` and ``cells`` accuracy, ``halt`` whether it would stop there."""

    exact: npt.NDArray[np.bool_]
    cells: npt.NDArray[np.float64]
    halt: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float64]
    """(N, T) probability of being right, as the halting head sees it."""
    loss: npt.NDArray[np.float64]
    """(N,) nats per cell after the last segment."""
    predictions: npt.NDArray[np.uint8]
    """(N, C) tokens after the last segment."""

    @property
    def segments(self) -> npt.NDArray[np.int64]:
        """(N,) segments until it halts by itself, all T where it never does."""
        never = ~self.halt.any(1)
        return np.where(never, self.halt.shape[1], self.halt.argmax(1) + 1)

    @property
    def exact_when_halting(self) -> npt.NDArray[np.bool_]:
        """(N,) whether it is right at the segment at which it halts."""
        return np.take_along_axis(self.exact, self.segments[:, None] - 1, 1)[:, 0]


@torch.no_grad()
def evaluate_puzzles(
    core: RecurrentCore, batches: Iterable[Rows], objective: Objective, *, num_segments: int
) -> PuzzleEvaluation:
    """Think ``num_segments`` segments about every row of every batch, and score each.

    Raises:
        DataError: there is no row.
    """
    parts = [_one_batch(core, rows, objective, num_segments) for rows in batches]
    if not parts:
        raise DataError("there is no puzzle to evaluate on")
    exact, cells, halt, confidence, loss, predictions = (
        torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
    )
    return PuzzleEvaluation(
        exact, cells.astype(np.float64), halt, confidence.astype(np.float64), loss.astype(np.float64), predictions
    )


def _one_batch(core: RecurrentCore, rows: Rows, objective: Objective, num_segments: int) -> tuple[Tensor, ...]:
    labels = with_ignored(rows.labels.long(), objective.ignore_label)
    thinker = Thinker(core)
    x = thinker.embed(rows.inputs, rows.identifiers)
    # every board begins as start 0 of a solver does, whichever batch it is in
    carry = FirstStates(core, [0], drawn=False)(x, torch.zeros(len(labels), dtype=torch.int64, device=x.device))
    exact, accuracy, halt, confidence = [], [], [], []
    for _ in range(num_segments):
        carry, thought = thinker.think(carry, x)
        scores = score_sequences(thought.logits, labels, kind=objective.loss, label_smoothing=objective.label_smoothing)
        # a board whose answer nobody knows is not solved by saying nothing wrong
        exact.append(scores.exact & (scores.num_labels > 0))
        accuracy.append(scores.accuracy)
        halt.append(thought.wants_to_halt)
        confidence.append(torch.sigmoid(thought.q[:, 0]))
    predictions = thought.logits.argmax(-1).to(torch.uint8)
    by_segment = (torch.stack(values, 1) for values in (exact, accuracy, halt, confidence))
    return (*by_segment, scores.loss, predictions)
