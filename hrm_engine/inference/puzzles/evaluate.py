"""How well a solver does on many puzzles: at every depth, and when it halts by itself.

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
from hrm_engine.inference.puzzles.thinking import FirstStates
from hrm_engine.kernels.stablemax import score_sequences
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import (
    Objective,
    Rows,
    embed_rows,
    repeat_latents,
    wants_to_halt,
    with_ignored,
)


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
    """Think ``num_segments`` segments about every row of every batch, noting the state of things after each.

    Raises:
        DataError: there is no row.
    """
    parts: list[tuple[Tensor, ...]] = []
    for rows in batches:
        parts.append(_one_batch(core, rows, objective, num_segments))
    if not parts:
        raise DataError("there is no puzzle to evaluate on")
    exact, cells, halt, confidence, loss, predictions = (
        torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
    )
    return PuzzleEvaluation(
        exact, cells.astype(np.float64), halt, confidence.astype(np.float64), loss.astype(np.float64), predictions
    )


def _one_batch(core: RecurrentCore, rows: Rows, objective: Objective, num_segments: int) -> tuple[Tensor, ...]:
    latents, labels = core.config.num_latents, rows.labels.long()
    labels = with_ignored(labels, objective.ignore_label)
    puzzle = None if core.puzzle_embedding is None else core.puzzle_embedding(rows.identifiers.long())
    x = repeat_latents(embed_rows(core, rows.inputs.long(), puzzle), latents)
    context = core.context(torch.arange(core.config.max_seq_len, device=x.device)[None])
    # every board begins as start 0 of a solver does, whichever batch it is in
    first = FirstStates(core, [0], drawn=False)
    carry = first(x, torch.zeros(len(labels), dtype=torch.int64, device=x.device))
    exact, accuracy, halt, confidence = [], [], [], []
    for _ in range(num_segments):
        carry = core.segment(carry, x, context)
        q = core.q_values(carry.z_h)
        # of several latents, the one that is surest is the answer
        best = q[:, 0].view(-1, latents).argmax(1) + torch.arange(len(labels), device=x.device) * latents
        logits = core.logits(carry.z_h)[best]
        scores = score_sequences(logits, labels, kind=objective.loss, label_smoothing=objective.label_smoothing)
        # a board whose answer nobody knows is not solved by saying nothing wrong
        exact.append(scores.exact & (scores.num_labels > 0))
        accuracy.append(scores.accuracy)
        halt.append(wants_to_halt(q)[best])
        confidence.append(torch.sigmoid(q[best, 0]))
    predictions = logits.argmax(-1).to(torch.uint8)
    return (
        torch.stack(exact, 1),
        torch.stack(accuracy, 1),
        torch.stack(halt, 1),
        torch.stack(confidence, 1),
        scores.loss,
        predictions,
    )
