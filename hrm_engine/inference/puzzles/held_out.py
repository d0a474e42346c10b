"""Accuracies of a solver on held-out puzzles, beside answers that need no model, and the votes of ARC.

Trainings measure with this, and so does ``lab eval puzzle``. Shapes: N rows, C cells, T segments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.data.puzzles.row_arrays import RowArrays
from hrm_engine.data.random import stream
from hrm_engine.inference.puzzles.arc import ArcScore, vote, write_score
from hrm_engine.inference.puzzles.evaluate import PuzzleEvaluation, evaluate_puzzles
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Objective, Rows
from hrm_engine.store.files import write_text

MAJORITY_ROWS = 20_000
ROWS_FILE = "rows.jsonl"
BASELINES = ("copy", "padding", "majority")
MOST_GROUPS = 12
"""Difficulties up to which each is a group of its own; more are put into groups of about equally many puzzles."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Report:
    """An evaluation of one solver: all that was measured, as the fields of an ``eval`` row, and by row."""

    held_out: HeldOut
    result: PuzzleEvaluation
    fields: dict[str, Any]
    arc: ArcScore | None
    """The votes on whole grids, of a whole ARC split."""

    def write_files(self, folder: Path) -> None:
        """Write a line for each row, and for ARC results and submission. Raises StorageError."""
        write_text(folder / ROWS_FILE, "\n".join(map(json.dumps, self.lines())) + "\n")
        if self.arc is not None:
            write_score(self.arc, folder)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Results of each row."""
        result, ratings = self.result, self.held_out.ratings
        segments, when_halting = result.segments, result.exact_when_halting
        for place, row in enumerate(self.held_out.rows):
            line = {
                "row": int(row),
                "exact": bool(result.exact[place, -1]),
                "cell_accuracy": round(float(result.cells[place, -1]), 6),
                "exact_when_halting": bool(when_halting[place]),
                "segments": int(segments[place]),
                "confidence": round(float(result.confidence[place, -1]), 6),
                "loss": round(float(result.loss[place]), 6),
            }
            yield line if ratings is None else {**line, "rating": float(ratings[place])}

    def by_difficulty(self) -> list[dict[str, Any]]:
        """Rows in groups of like rating, easy ones first; nothing where puzzles are not rated."""
        ratings, groups = self.held_out.ratings, []
        if ratings is None:
            return []
        upper = np.unique(ratings)
        if len(upper) > MOST_GROUPS:
            shares = np.arange(1, MOST_GROUPS + 1) / MOST_GROUPS
            upper = np.unique(np.quantile(ratings, shares, method="inverted_cdf"))
        group_of = np.searchsorted(upper, ratings)
        for group in range(len(upper)):
            of_group = group_of == group
            groups.append(
                {
                    "rating": [float(ratings[of_group].min()), float(ratings[of_group].max())],
                    "num_rows": int(of_group.sum()),
                    "exact_accuracy": float(self.result.exact[of_group, -1].mean()),
                    "exact_accuracy_when_halting": float(self.result.exact_when_halting[of_group].mean()),
                    "cell_accuracy": float(self.result.cells[of_group, -1].mean()),
                    "act_steps_mean": float(self.result.segments[of_group].mean()),
                }
            )
        return groups


class HeldOut:
    """Rows of a test split that a solver is measured on: always the same ``most``, or all of them.

    Args:
        train_set: training split, which the baseline ``majority`` reads; None leaves it out.
        identifiers: (number of the dataset's identifiers,) the solver's for each of them; by default the same.
    """

    def __init__(
        self,
        train_set: PuzzleDataset | None,
        test_set: PuzzleDataset,
        most: int | None,
        *,
        identifiers: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._train_set, self.test_set = train_set, test_set
        count = test_set.num_rows
        self._is_whole = most is None
        self.rows = np.arange(count)
        if most is not None and count > most:
            bits = stream(0, "evaluation-subset", 0)  # the same for every seed of the run, so that runs compare
            self.rows = np.sort(bits.choice(count, most, replace=False))
        self.inputs, self.labels, self._own_identifiers = RowArrays(test_set).take(self.rows)
        own = self._own_identifiers
        self.identifiers = own if identifiers is None else identifiers[own]
        ignored = test_set.info.ignore_label_id
        self._has_label = np.ones_like(self.labels, dtype=bool) if ignored is None else self.labels != ignored
        self._counted = self._has_label.any(1)

    @property
    def num_counted(self) -> int:
        """Rows with an answer."""
        return int(self._counted.sum())

    @cached_property
    def ratings(self) -> npt.NDArray[np.float64] | None:
        """(N,) difficulty of each row; None where puzzles are not rated."""
        ratings = [part.ratings for part in self.test_set.sets]
        if any(part is None for part in ratings):
            return None
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in ratings])[self.rows]

    def evaluate(self, model: RecurrentCore, objective: Objective, *, batch_size: int, num_segments: int) -> Report:
        """Let the solver think ``num_segments`` segments about every row.

        Raises:
            DataError: there is no row.
        """
        batches = self._batches(batch_size, model.lm_head.weight.device)
        result = evaluate_puzzles(model, batches, objective, num_segments=num_segments)
        exact = [self.mean(column) for column in result.exact.T]
        cells = [self.mean(column) for column in result.cells.T]
        fields: dict[str, Any] = {
            "loss": self.mean(result.loss),
            "cell_accuracy": cells[-1],
            "exact_accuracy": exact[-1],
            "halt_accuracy": self.mean((result.confidence[:, -1] >= 0.5) == result.exact[:, -1]),
            "exact_accuracy_when_halting": self.mean(result.exact_when_halting),
            "act_steps_mean": self.mean(result.segments),
            "exact_accuracy_by_segment": exact,
            "cell_accuracy_by_segment": cells,
            "num_rows": self.num_counted,
            **self.baselines(),
        }
        score = self.votes(result.predictions, result.confidence[:, -1])
        if score is not None:
            fields |= {f"pass_at_{k}": share for k, share in score.pass_at.items()}
        return Report(self, result, fields, score)

    def votes(self, answers: Array, confidence: npt.NDArray[np.float64]) -> ArcScore | None:
        """The votes for answers (N, C) to a whole ARC split; None for others."""
        if not self._is_whole or not self.test_set.about.board.has_tasks or self.test_set.identifiers is None:
            return None
        return vote(self.test_set, answers, self._own_identifiers, confidence, rows=self.rows)

    def accuracies(self, answers: Array) -> tuple[float, float]:
        """Share of the rows that answers (N, C) have right in every cell, and of their cells."""
        right, num_labels = ((answers == self.labels) & self._has_label).sum(1), self._has_label.sum(1)
        return self.mean(right == num_labels), self.mean(right / num_labels.clip(1))

    def baselines(self) -> dict[str, float]:
        """Cell and exact accuracy of three answers that need no model.

        ``copy`` answers the input, ``padding`` the padding token, ``majority`` the most frequent label of each cell in
        (at most 20,000 rows of) the training split. Rows without any label count for nothing.
        """
        answers = {"copy": self.inputs, "padding": np.full_like(self.labels, self.test_set.info.pad_id)}
        if self._train_set is not None:
            answers["majority"] = np.broadcast_to(_majority(self._train_set), self.labels.shape)
        scores = {}
        for name, answer in answers.items():
            scores[f"{name}_exact_accuracy"], scores[f"{name}_cell_accuracy"] = self.accuracies(answer)
        return scores

    def mean(self, values: npt.ArrayLike) -> float:
        """Mean over the rows with an answer."""
        return float(np.asarray(values)[self._counted].mean()) if self._counted.any() else math.nan

    def _batches(self, size: int, device: torch.device) -> Iterator[Rows]:
        for start in range(0, len(self.rows), size):
            columns = (column[start : start + size] for column in (self.inputs, self.labels, self.identifiers))
            yield Rows(*(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in columns))


def _majority(train_set: PuzzleDataset) -> Array:
    labels = np.concatenate([part.labels[:MAJORITY_ROWS] for part in train_set.sets])[:MAJORITY_ROWS]
    counts = np.stack([(labels == token).sum(0) for token in range(train_set.info.vocab_size)])
    if train_set.info.ignore_label_id is not None:
        counts[train_set.info.ignore_label_id] = 0
    majority: Array = counts.argmax(0).astype(labels.dtype)
    return majority
