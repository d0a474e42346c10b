"""Evaluations of a puzzle solver: fields, summary, files, and the baselines beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.data.random import stream
from hrm_engine.inference.puzzles.arc import vote, write_score
from hrm_engine.inference.puzzles.evaluate import PuzzleEvaluation, evaluate_puzzles
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Objective, Rows
from hrm_engine.store.files import write_text
from hrm_engine.training.task import Evaluated
from hrm_engine.training.tasks.puzzle_rows import RowArrays

MAJORITY_ROWS = 20_000
ROWS_FILE = "rows.jsonl"
BASELINES = ("copy", "padding", "majority")

Array = npt.NDArray[Any]


class HeldOut:
    """Rows of a test split that a solver is measured on: always the same ``most``, or all of them."""

    def __init__(self, train_set: PuzzleDataset, test_set: PuzzleDataset, most: int | None) -> None:
        self._train_set, self._test_set = train_set, test_set
        count = test_set.num_rows
        self._is_whole = most is None
        self._rows = np.arange(count)
        if most is not None and count > most:
            bits = stream(0, "evaluation-subset", 0)  # the same for every seed of the run, so that runs compare
            self._rows = np.sort(bits.choice(count, most, replace=False))
        self._arrays = RowArrays(test_set)
        self._inputs, self._labels, self._identifiers = self._arrays.take(self._rows)
        ignored = test_set.info.ignore_label_id
        self._has_label = np.ones_like(self._labels, dtype=bool) if ignored is None else self._labels != ignored
        self._counted = self._has_label.any(1)

    def evaluate(self, model: RecurrentCore, objective: Objective, *, batch_size: int, num_segments: int) -> Evaluated:
        """Fields of the ``eval`` row, its summary, and how it is ranked.

        Of a whole split there is also a line for each row, and for ARC the votes on whole grids.
        """
        batches = self._batches(batch_size, model.lm_head.weight.device)
        result = evaluate_puzzles(model, batches, objective, num_segments=num_segments)
        exact = [self._mean(column) for column in result.exact.T]
        cells = [self._mean(column) for column in result.cells.T]
        halting, loss, depth = (self._mean(x) for x in (result.exact_when_halting, result.loss, result.segments))
        baselines = self.baselines()
        fields: dict[str, Any] = {
            "loss": loss,
            "cell_accuracy": cells[-1],
            "exact_accuracy": exact[-1],
            "halt_accuracy": self._mean((result.confidence[:, -1] >= 0.5) == result.exact[:, -1]),
            "exact_accuracy_when_halting": halting,
            "act_steps_mean": depth,
            "exact_accuracy_by_segment": exact,
            "cell_accuracy_by_segment": cells,
            "num_rows": int(self._counted.sum()),
            **baselines,
        }
        summary = (
            f"exact {100 * exact[-1]:.1f} %, adaptive {100 * halting:.1f} % ({depth:.1f} of {len(exact)} segments), "
            f"cells {100 * cells[-1]:.1f} %, halting right {100 * fields['halt_accuracy']:.1f} %"
        )
        by_name = (f"{name} {100 * baselines[f'{name}_cell_accuracy']:.1f} %" for name in BASELINES)
        without_model = f"baselines, cells right: {', '.join(by_name)}"
        score = None
        if self._is_whole and self._test_set.about.board.has_tasks:
            answers, sure = result.predictions, result.confidence[:, -1]
            score = vote(self._test_set, answers, self._identifiers, sure, rows=self._rows)
            fields |= {f"pass_at_{k}": share for k, share in score.pass_at.items()}
            known = [(k, share) for k, share in score.pass_at.items() if math.isfinite(share)]
            shares = ", ".join(f"pass@{k} {100 * share:.1f} %" for k, share in known)
            summary = f"{shares or 'no answers known'} of {len(score.tasks)} tasks; {summary}"

        def write(folder: Path) -> None:
            write_text(folder / ROWS_FILE, self._lines(result))
            if score is not None:
                write_score(score, folder)

        # exact accuracy decides; between equals the loss does
        return Evaluated(fields, [-exact[-1], loss], summary, without_model, write if self._is_whole else None)

    def baselines(self) -> dict[str, float]:
        """Cell and exact accuracy of three answers that need no model.

        ``copy`` answers the input, ``padding`` the padding token, ``majority`` the most frequent label of each cell in
        (at most 20,000 rows of) the training split. Rows without any label count for nothing.
        """
        labels, num_labels = self._labels, self._has_label.sum(1)
        answers = {
            "copy": self._inputs,
            "padding": np.full_like(labels, self._train_set.info.pad_id),
            "majority": np.broadcast_to(_majority(self._train_set), labels.shape),
        }
        scores = {}
        for name, answer in answers.items():
            right = ((answer == labels) & self._has_label).sum(1)
            scores[f"{name}_cell_accuracy"] = self._mean(right / num_labels.clip(1))
            scores[f"{name}_exact_accuracy"] = self._mean(right == num_labels)
        return scores

    def _batches(self, size: int, device: torch.device) -> Iterator[Rows]:
        for start in range(0, len(self._rows), size):
            columns = (column[start : start + size] for column in (self._inputs, self._labels, self._identifiers))
            yield Rows(*(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in columns))

    def _mean(self, values: npt.ArrayLike) -> float:
        """Mean over the rows with a label."""
        return float(np.asarray(values)[self._counted].mean()) if self._counted.any() else math.nan

    def _lines(self, result: PuzzleEvaluation) -> str:
        ratings = [part.ratings for part in self._test_set.sets]
        rated = None if any(part is None for part in ratings) else np.concatenate([np.asarray(r) for r in ratings])
        lines = []
        segments, when_halting = result.segments, result.exact_when_halting
        for place, row in enumerate(self._rows):
            line = {
                "row": int(row),
                "exact": bool(result.exact[place, -1]),
                "cell_accuracy": round(float(result.cells[place, -1]), 6),
                "exact_when_halting": bool(when_halting[place]),
                "segments": int(segments[place]),
                "confidence": round(float(result.confidence[place, -1]), 6),
                "loss": round(float(result.loss[place]), 6),
            }
            if rated is not None:
                line["rating"] = float(rated[row])
            lines.append(json.dumps(line))
        return "\n".join(lines) + "\n"


def _majority(train_set: PuzzleDataset) -> Array:
    labels = np.concatenate([part.labels[:MAJORITY_ROWS] for part in train_set.sets])[:MAJORITY_ROWS]
    counts = np.stack([(labels == token).sum(0) for token in range(train_set.info.vocab_size)])
    if train_set.info.ignore_label_id is not None:
        counts[train_set.info.ignore_label_id] = 0
    majority: Array = counts.argmax(0).astype(labels.dtype)
    return majority
