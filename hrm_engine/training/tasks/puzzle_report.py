"""What an evaluation of a puzzle solver tells: fields, summary, files, and the baselines beside them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.inference.puzzles import PuzzleEvaluation
from hrm_engine.training.task import Evaluated
from hrm_engine.training.tasks.puzzle_rows import RowArrays

MAJORITY_ROWS = 20_000
ROWS_FILE = "rows.jsonl"

Array = npt.NDArray[Any]


def baselines(train_set: PuzzleDataset, inputs: Array, labels: Array) -> dict[str, float]:
    """Cell and exact accuracy of three answers that need no model, on (N, C) inputs and labels.

    ``copy`` answers the input, ``padding`` the padding token, ``majority`` the most frequent label of each cell in (at
    most 20,000 rows of) the training split.
    """
    ignored, majority = train_set.info.ignore_label_id, _majority(train_set)
    answers = {
        "copy": inputs,
        "padding": np.full_like(labels, train_set.info.pad_id),
        "majority": np.broadcast_to(majority, labels.shape),
    }
    counts = np.ones_like(labels, dtype=bool) if ignored is None else labels != ignored
    scores = {}
    for name, answer in answers.items():
        right = (answer == labels) & counts
        scores[f"{name}_cell_accuracy"] = float((right.sum(1) / counts.sum(1).clip(1)).mean())
        scores[f"{name}_exact_accuracy"] = float((right.sum(1) == counts.sum(1)).mean())
    return scores


def describe_evaluation(
    result: PuzzleEvaluation,
    test_set: PuzzleDataset,
    rows: Array,
    arrays: RowArrays,
    baseline: dict[str, float],
    *,
    full: bool,
) -> Evaluated:
    """Fields of the ``eval`` row; a full evaluation also leaves a line for each row of the test split."""
    exact, cells = result.exact.mean(0), result.cells.mean(0)
    halting = result.exact_when_halting
    fields: dict[str, Any] = {
        "loss": float(result.loss.mean()),
        "cell_accuracy": float(cells[-1]),
        "exact_accuracy": float(exact[-1]),
        "halt_accuracy": result.halt_accuracy,
        "exact_accuracy_when_halting": float(halting.mean()),
        "act_steps_mean": float(result.segments.mean()),
        "exact_accuracy_by_segment": exact.tolist(),
        "cell_accuracy_by_segment": cells.tolist(),
        "num_rows": len(rows),
        **baseline,
    }
    summary = (
        f"exact {100 * exact[-1]:.1f} %, when halting {100 * halting.mean():.1f} % after "
        f"{result.segments.mean():.1f} of {len(exact)} segments; cells {100 * cells[-1]:.1f} % "
        f"(copy {100 * baseline['copy_cell_accuracy']:.1f} %, "
        f"majority {100 * baseline['majority_cell_accuracy']:.1f} %)"
    )
    files = {ROWS_FILE: _row_lines(result, test_set, rows)} if full else {}
    # exact accuracy decides; between equals the loss does
    return Evaluated(fields, [-float(exact[-1]), float(result.loss.mean())], summary, files)


def _majority(train_set: PuzzleDataset) -> Array:
    labels = np.concatenate([part.labels[:MAJORITY_ROWS] for part in train_set.sets])[:MAJORITY_ROWS]
    counts = np.stack([(labels == token).sum(0) for token in range(train_set.info.vocab_size)])
    if train_set.info.ignore_label_id is not None:
        counts[train_set.info.ignore_label_id] = 0
    return counts.argmax(0).astype(labels.dtype)


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
