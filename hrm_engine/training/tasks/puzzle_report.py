"""What an evaluation of a puzzle solver tells: fields, summary, files, and the baselines beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.inference.puzzles.arc import ArcScore, vote, write_score
from hrm_engine.inference.puzzles.evaluate import PuzzleEvaluation
from hrm_engine.store.files import write_text
from hrm_engine.training.task import Evaluated
from hrm_engine.training.tasks.puzzle_rows import RowArrays

MAJORITY_ROWS = 20_000
ROWS_FILE = "rows.jsonl"

Array = npt.NDArray[Any]


def baselines(train_set: PuzzleDataset, inputs: Array, labels: Array) -> dict[str, float]:
    """Cell and exact accuracy of three answers that need no model, on (N, C) inputs and labels.

    ``copy`` answers the input, ``padding`` the padding token, ``majority`` the most frequent label of each cell in (at
    most 20,000 rows of) the training split. Rows without any label count for nothing.
    """
    majority, counts = _majority(train_set), labelled_cells(train_set, labels)
    counted = np.asarray(counts.any(1))
    answers = {
        "copy": inputs,
        "padding": np.full_like(labels, train_set.info.pad_id),
        "majority": np.broadcast_to(majority, labels.shape),
    }
    scores = {}
    for name, answer in answers.items():
        right = ((answer == labels) & counts).sum(1)
        scores[f"{name}_cell_accuracy"] = _mean(right / counts.sum(1).clip(1), counted)
        scores[f"{name}_exact_accuracy"] = _mean(right == counts.sum(1), counted)
    return scores


def labelled_cells(dataset: PuzzleDataset, labels: Array) -> npt.NDArray[np.bool_]:
    """Which cells (N, C) carry a label."""
    ignored = dataset.info.ignore_label_id
    return np.ones_like(labels, dtype=bool) if ignored is None else labels != ignored


def describe_evaluation(
    result: PuzzleEvaluation, test_set: PuzzleDataset, rows: Array, arrays: RowArrays, baseline: dict[str, float]
) -> Evaluated:
    """Fields of the ``eval`` row, its summary, and how it is ranked."""
    counted = np.asarray(labelled_cells(test_set, arrays.take(rows)[1]).any(1))
    exact, cells = _mean_by_segment(result.exact, counted), _mean_by_segment(result.cells, counted)
    halting, loss = _mean(result.exact_when_halting, counted), _mean(result.loss, counted)
    fields: dict[str, Any] = {
        "loss": loss,
        "cell_accuracy": cells[-1],
        "exact_accuracy": exact[-1],
        "halt_accuracy": _mean((result.confidence[:, -1] >= 0.5) == result.exact[:, -1], counted),
        "exact_accuracy_when_halting": halting,
        "act_steps_mean": _mean(result.segments, counted),
        "exact_accuracy_by_segment": exact,
        "cell_accuracy_by_segment": cells,
        "num_rows": int(counted.sum()),
        **baseline,
    }
    summary = (
        f"exact {100 * exact[-1]:.1f} %, when halting {100 * halting:.1f} % after "
        f"{fields['act_steps_mean']:.1f} of {len(exact)} segments; cells {100 * cells[-1]:.1f} % "
        f"(copy {100 * baseline['copy_cell_accuracy']:.1f} %, "
        f"majority {100 * baseline['majority_cell_accuracy']:.1f} %)"
    )
    # exact accuracy decides; between equals the loss does
    return Evaluated(fields, [-exact[-1], loss], summary)


def describe_full_evaluation(
    result: PuzzleEvaluation, test_set: PuzzleDataset, rows: Array, arrays: RowArrays, baseline: dict[str, float]
) -> Evaluated:
    """The same of all rows, which also leaves a line for each of them; for ARC the votes on whole grids."""
    described = describe_evaluation(result, test_set, rows, arrays, baseline)
    score: ArcScore | None = None
    if test_set.about.board.has_tasks:
        score = vote(test_set, result.predictions, arrays.take(rows)[2], result.confidence[:, -1], rows=rows)

    def write(folder: Path) -> None:
        write_text(folder / ROWS_FILE, _row_lines(result, test_set, rows))
        if score is not None:
            write_score(score, folder)

    fields, summary = described.fields, described.summary
    if score is not None:
        fields = {**fields, **{f"pass_at_{k}": share for k, share in score.pass_at.items()}}
        shares = ", ".join(
            f"pass@{k} {100 * share:.1f} %" for k, share in score.pass_at.items() if math.isfinite(share)
        )
        summary = f"{shares or 'no answers known'} of {len(score.tasks)} tasks; {summary}"
    return Evaluated(fields, described.score, summary, write)


def _mean(values: npt.ArrayLike, counted: Array) -> float:
    return float(np.asarray(values)[counted].mean()) if counted.any() else math.nan


def _mean_by_segment(values: npt.ArrayLike, counted: Array) -> list[float]:
    return [_mean(column, counted) for column in np.asarray(values).T]


def _majority(train_set: PuzzleDataset) -> Array:
    labels = np.concatenate([part.labels[:MAJORITY_ROWS] for part in train_set.sets])[:MAJORITY_ROWS]
    counts = np.stack([(labels == token).sum(0) for token in range(train_set.info.vocab_size)])
    if train_set.info.ignore_label_id is not None:
        counts[train_set.info.ignore_label_id] = 0
    majority: Array = counts.argmax(0).astype(labels.dtype)
    return majority


def _row_lines(result: PuzzleEvaluation, test_set: PuzzleDataset, rows: Array) -> str:
    ratings = [part.ratings for part in test_set.sets]
    rated = None if any(part is None for part in ratings) else np.concatenate([np.asarray(part) for part in ratings])
    lines = []
    segments, when_halting = result.segments, result.exact_when_halting
    for place, row in enumerate(rows):
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
