"""From predicted boards to answers to ARC tasks: undo the augmentations, vote, score whole grids.

Every augmentation of a task is a puzzle of its own, so one test pair is predicted many times. Each prediction is
cropped at its end marks and brought back by the transform that its identifier carries; equal grids are votes for the
same candidate. Candidates are ranked by their number of votes, then by the mean halting probability of these votes,
then by their cells, so that the ranking depends on nothing else. A prediction without a grid is no vote.

pass@k: a test pair is solved if the right grid, all of it, is among its first k candidates. A task scores the share of
its test pairs that are solved, and the score is the mean over tasks, as ARC counts.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.arc.augment import IDENTITY, Augmentation, parse_identifier
from hrm_engine.data.puzzles.arc.grids import FIRST_COLOUR, NUM_CELLS, SIDE, Grid, crop, crop_sizes
from hrm_engine.data.puzzles.arc.tasks import Pair, parse_task
from hrm_engine.data.puzzles.description import TEST_PUZZLES_FILE
from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.errors import DataError
from hrm_engine.store.files import finite, read_json, write_json, write_text

IntArray = npt.NDArray[np.integer[Any]]

RESULTS_FILE, SUBMISSION_FILE = "arc_results.json", "submission.json"
NUM_ATTEMPTS = 2
# Answer of a submission to a test pair without a prediction; the form demands some grid.
_NO_ANSWER = [[0, 0], [0, 0]]
_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Candidate:
    """A grid that was predicted for a test pair: by how many votes, and the mean halting probability of these."""

    grid: Grid
    num_votes: int
    confidence: float


@dataclass(frozen=True)
class ArcScore:
    """Result of a vote.

    ``pass_at``: mean score of the tasks whose answers are known, by k; NaN if there are none. ``all_pairs_at``: the
    share of them of which every test pair is solved. ``tasks``: results of each task as JSON. ``submission``: the two
    first candidates of every test pair in the form of the Kaggle competition. ``num_missing``: test pairs that
    nothing was predicted for; they count as not solved. ``num_empty``: predictions without a grid.
    """

    pass_at: dict[int, float]
    all_pairs_at: dict[int, float]
    tasks: dict[str, dict[str, Any]]
    submission: dict[str, list[dict[str, list[list[int]]]]]
    num_missing: int
    num_empty: int


def vote(
    dataset: PuzzleDataset,
    predictions: IntArray,
    identifiers: IntArray,
    confidence: npt.NDArray[np.floating[Any]],
    *,
    rows: IntArray | None = None,
    ks: Sequence[int] = (1, 2),
) -> ArcScore:
    """Rank the predictions for every test pair of a split and score the ranking.

    Args:
        dataset: the split that was predicted, with its identifiers; ``held_out_pairs`` reads the answers.
        predictions: predicted tokens (N, 900).
        identifiers: puzzle identifier of each prediction (N,).
        confidence: halting probability of each prediction (N,).
        rows: which row of the split each prediction is for (N,), in any order, some more than once, some missing;
            without it predictions are those of all rows in their order.
        ks: the k of pass@k.

    Raises:
        DataError: the dataset is of another kind or lacks its names, or predictions do not belong to its rows.
        ValueError: arrays whose shapes do not fit.
    """
    num = len(predictions)
    if predictions.shape != (num, NUM_CELLS) or identifiers.shape != (num,) or confidence.shape != (num,):
        raise ValueError(
            f"predictions {predictions.shape}, identifiers {identifiers.shape} and confidence {confidence.shape} must "
            f"have the shapes (N, {NUM_CELLS}), (N,) and (N,)"
        )
    pairs = held_out_pairs(dataset)
    places = _places(dataset, identifiers, rows)
    votes, num_empty = _votes(dataset, predictions, identifiers, confidence, places)
    tasks: dict[str, dict[str, Any]] = {}
    submission: dict[str, list[dict[str, list[list[int]]]]] = {}
    num_missing = 0
    if unknown := {name for name, _ in votes} - pairs.keys():
        raise DataError(f"{_place(dataset)} has rows of task {min(unknown)}, which {TEST_PUZZLES_FILE} does not name")
    for name, tests in pairs.items():
        ranked = [_ranked(votes.get((name, number), {})) for number in range(len(tests))]
        num_missing += sum(not candidates for candidates in ranked)
        submission[name] = [_attempts(candidates) for candidates in ranked]
        ranks = [_rank(candidates, pair.output) for candidates, pair in zip(ranked, tests, strict=True)]
        is_answered = all(pair.output is not None for pair in tests)
        shares = {k: sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in ks}
        tasks[name] = {
            **{f"pass@{k}": share if is_answered else None for k, share in shares.items()},
            "pairs": [
                _pair_json(candidates, rank, max(*ks, NUM_ATTEMPTS))
                for candidates, rank in zip(ranked, ranks, strict=True)
            ],
        }
    scores = {k: [task[f"pass@{k}"] for task in tasks.values() if task[f"pass@{k}"] is not None] for k in ks}
    return ArcScore(
        pass_at={k: _mean(shares) for k, shares in scores.items()},
        all_pairs_at={k: _mean([float(share == 1) for share in shares]) for k, shares in scores.items()},
        tasks=tasks,
        submission=submission,
        num_missing=num_missing,
        num_empty=num_empty,
    )


def held_out_pairs(dataset: PuzzleDataset) -> dict[str, tuple[Pair, ...]]:
    """The test pairs of every task of a split, from ``test_puzzles.json``.

    A dataset without that file (the reference implementation writes none) has them in its rows as well: those of the
    puzzles that are no augmentation.

    Raises:
        DataError: no ARC dataset, or a damaged file.
    """
    names = dataset.identifiers
    if not dataset.about.board.has_tasks or names is None:
        raise DataError(
            f"{_place(dataset)} is no ARC dataset with names of its puzzles: build one with lab data build-arc"
        )
    file = dataset.folder / TEST_PUZZLES_FILE
    if file.is_file():
        tests = {}
        for name, value in read_json(file, DataError).items():
            tests[name] = parse_task(value, name=name, place=f"{file}, task {name}", is_evaluation=True).tests
        return tests
    gathered: dict[str, tuple[Pair, ...]] = {}
    for part in dataset.sets:
        for puzzle, identifier in enumerate(part.puzzle_identifiers.tolist()):
            name, augmentation = parse_identifier(names[identifier])
            if augmentation == IDENTITY:
                rows = slice(part.puzzle_indices[puzzle], part.puzzle_indices[puzzle + 1])
                gathered[name] = tuple(map(_row_pair, part.inputs[rows], part.labels[rows]))
    return gathered


def write_score(score: ArcScore, folder: Path) -> tuple[Path, Path]:
    """Write ``arc_results.json`` and ``submission.json`` to ``folder``, each atomically; their paths."""
    results, submission = folder / RESULTS_FILE, folder / SUBMISSION_FILE
    content = {
        **{f"pass@{k}": value for k, value in score.pass_at.items()},
        **{f"all_pairs@{k}": value for k, value in score.all_pairs_at.items()},
        "num_tasks": len(score.tasks),
        "num_missing": score.num_missing,
        "num_empty": score.num_empty,
        "tasks": score.tasks,
    }
    write_json(results, finite(content))
    write_text(submission, json.dumps(score.submission) + "\n")
    return results, submission


def _places(dataset: PuzzleDataset, identifiers: IntArray, rows: IntArray | None) -> IntArray:
    """Number of the test pair within its task of each prediction: the place of its row within its puzzle."""
    owners = dataset.row_identifiers
    sizes = np.concatenate([np.diff(part.puzzle_indices) for part in dataset.sets])
    within = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if rows is None:
        if len(identifiers) != len(owners):
            raise DataError(
                f"{len(identifiers)} predictions for the {len(owners)} rows of {_place(dataset)}: say with rows= which "
                "ones they are for"
            )
        rows = np.arange(len(owners))
    if rows.shape != identifiers.shape:
        raise ValueError(f"rows {rows.shape} and identifiers {identifiers.shape} must have the shape (N,)")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(owners):
        raise DataError(f"predictions for rows {rows.min()} to {rows.max()}: {_place(dataset)} has {len(owners)}")
    differing = np.flatnonzero(owners[rows] != identifiers)
    if differing.size:
        first = int(differing[0])
        raise DataError(
            f"prediction {first} has identifier {identifiers[first]}, row {rows[first]} of {_place(dataset)} has "
            f"{owners[rows[first]]}: the predictions are of other rows or of another dataset"
        )
    return within[rows]


_Votes = dict[tuple[str, int], dict[bytes, tuple[Grid, list[float]]]]


def _votes(
    dataset: PuzzleDataset,
    predictions: IntArray,
    identifiers: IntArray,
    confidence: npt.NDArray[np.floating[Any]],
    places: IntArray,
) -> tuple[_Votes, int]:
    """By (task, test pair): candidates by their cells, with the confidence of each vote; and how many have no grid."""
    names = dataset.identifiers or []
    transforms: dict[int, tuple[str, Augmentation]] = {
        identifier: parse_identifier(names[identifier]) for identifier in np.unique(identifiers).tolist()
    }
    votes: _Votes = defaultdict(dict)
    num_empty = 0
    for first in range(0, len(predictions), _CHUNK_ROWS):
        chunk = slice(first, first + _CHUNK_ROWS)
        boards = np.asarray(predictions[chunk])
        colours = (boards.reshape(-1, SIDE, SIDE) - FIRST_COLOUR).astype(np.uint8)
        about = zip(identifiers[chunk].tolist(), places[chunk].tolist(), confidence[chunk].tolist(), strict=True)
        for board, (height, width), (identifier, place, probability) in zip(
            colours, crop_sizes(boards).tolist(), about, strict=True
        ):
            if not height:
                num_empty += 1
                continue
            task, augmentation = transforms[identifier]
            grid = np.ascontiguousarray(augmentation.undo(board[:height, :width]))
            candidates = votes[task, place]
            candidates.setdefault(_key(grid), (grid, []))[1].append(probability)
    return votes, num_empty


def _ranked(candidates: Mapping[bytes, tuple[Grid, list[float]]]) -> list[Candidate]:
    # fsum: the sum of the same numbers in another order is the same, so the order of the rows cannot decide a tie.
    means = {key: math.fsum(confidences) / len(confidences) for key, (_, confidences) in candidates.items()}
    order = sorted(candidates, key=lambda key: (-len(candidates[key][1]), -means[key], key))
    return [Candidate(candidates[key][0], len(candidates[key][1]), means[key]) for key in order]


def _rank(candidates: Sequence[Candidate], answer: Grid | None) -> int | None:
    """Place of the right grid among the candidates, from 1; None if it is not among them or not known."""
    if answer is None:
        return None
    right = (place for place, candidate in enumerate(candidates, start=1) if np.array_equal(candidate.grid, answer))
    return next(right, None)


def _attempts(candidates: Sequence[Candidate]) -> dict[str, list[list[int]]]:
    grids = [candidate.grid.tolist() for candidate in candidates[:NUM_ATTEMPTS]] or [_NO_ANSWER]
    return {f"attempt_{number + 1}": grids[min(number, len(grids) - 1)] for number in range(NUM_ATTEMPTS)}


def _pair_json(candidates: Sequence[Candidate], rank: int | None, num_shown: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "num_votes": sum(candidate.num_votes for candidate in candidates),
        "num_candidates": len(candidates),
        "candidates": [
            {"grid": one.grid.tolist(), "num_votes": one.num_votes, "confidence": round(one.confidence, 6)}
            for one in candidates[:num_shown]
        ],
    }


def _row_pair(inputs: IntArray, labels: IntArray) -> Pair:
    output = crop(labels)
    return Pair(crop(inputs), output if output.size else None)


def _key(grid: Grid) -> bytes:
    return bytes(grid.shape) + grid.tobytes()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _place(dataset: PuzzleDataset) -> Path:
    return dataset.folder / dataset.split
