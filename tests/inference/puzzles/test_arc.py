"""Voting over augmented predictions, on cases whose answers are known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.puzzles.arc.augment import Augmentation
from hrm_engine.data.puzzles.arc.build import build_arc
from hrm_engine.data.puzzles.arc.grids import VOCAB_SIZE, crop, encode
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.errors import DataError
from hrm_engine.inference.puzzles.arc import ArcScore, held_out_pairs, vote, write_score
from tests import arc_tasks

TURN = Augmentation(1, "0213456789")  # a quarter turn, colours 1 and 2 exchanged
MIRROR = Augmentation(4, "0123456798")
VARIANTS = (Augmentation(), TURN, MIRROR)
# The answers to the two test pairs of task "two" and to the one of task "one".
A = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
B = np.array([[7]], dtype=np.uint8)
C = np.array([[0, 0], [0, 9]], dtype=np.uint8)
WRONG, OTHER = np.array([[1, 2, 3], [4, 5, 5]], dtype=np.uint8), np.array([[3], [3]], dtype=np.uint8)
QUESTION = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PuzzleDataset:
    """Rows 0-1, 2-3, 4-5: task "two" as it is, turned, mirrored; 6, 7, 8: "one" likewise; 9: one without answer."""
    folder = tmp_path_factory.mktemp("arc") / "dataset"
    answers: dict[str, list[np.ndarray | None]] = {"two": [A, B], "one": [C], "open": [None]}
    pair = {"input": QUESTION.tolist(), "output": [[1]]}
    truth = {
        name: {
            "train": [pair],
            "test": [
                {"input": QUESTION.tolist(), **({} if grid is None else {"output": grid.tolist()})} for grid in grids
            ],
        }
        for name, grids in answers.items()
    }
    about = About(kind="arc", height=30, width=30)
    with DatasetWriter(folder, about=about, vocab_size=VOCAB_SIZE, seq_len=900) as writer:
        for name, grids in answers.items():
            test = writer.split("test")
            test.begin_group()
            for variant in VARIANTS if name != "open" else VARIANTS[:1]:
                test.begin_puzzle(len(writer.identifiers))
                writer.identifiers.append(variant.identifier(name))
                rows = [np.zeros(900, np.uint8) if grid is None else encode(variant.apply(grid)) for grid in grids]
                test.add(np.stack([encode(variant.apply(QUESTION))] * len(grids)), np.stack(rows))
        writer.add_test_puzzles(truth)
    return open_dataset(folder, "test")


def boards(*grids: np.ndarray | None) -> np.ndarray:
    """Predictions for rows in order: each grid under the augmentation of its row; None for a board of padding."""
    variants = [variant for variant in VARIANTS for _ in range(2)] + list(VARIANTS) + [VARIANTS[0]]
    rows = [
        np.zeros(900, np.uint8) if grid is None else encode(variant.apply(grid))
        for grid, variant in zip(grids, variants, strict=True)
    ]
    return np.stack(rows)


IDENTIFIERS = np.array([1, 1, 2, 2, 3, 3, 4, 5, 6, 7])
SURE = np.full(10, 0.5)


def ranks(score: ArcScore) -> dict[str, list[int | None]]:
    return {name: [pair["rank"] for pair in task["pairs"]] for name, task in score.tasks.items()}


def test_the_labels_score_everything(dataset: PuzzleDataset) -> None:
    (part,) = dataset.sets
    score = vote(dataset, part.labels, IDENTIFIERS, SURE)
    assert score.pass_at == score.all_pairs_at == {1: 1.0, 2: 1.0}
    assert ranks(score) == {"two": [1, 1], "one": [1], "open": [None]}
    assert score.tasks["two"]["pairs"][0]["candidates"] == [{"grid": A.tolist(), "num_votes": 3, "confidence": 0.5}]
    assert score.submission["two"][1] == {"attempt_1": [[7]], "attempt_2": [[7]]}
    # The one row of the task without answer is padding: no grid, no vote, and no part in the score.
    assert (score.num_empty, score.num_missing) == (1, 1)
    assert score.submission["open"] == [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}]
    assert score.tasks["open"]["pass@1"] is None


def test_the_majority_wins_and_the_second_counts_for_pass_at_2(dataset: PuzzleDataset) -> None:
    # Task two, pair 1: WRONG twice, A once -> A second. Pair 2: B twice -> first. Task one: C first of two votes.
    predicted = boards(WRONG, B, A, B, WRONG, OTHER, C, C, OTHER, A)
    score = vote(dataset, predicted, IDENTIFIERS, SURE)
    assert ranks(score) == {"two": [2, 1], "one": [1], "open": [None]}
    assert score.pass_at == {1: (0.5 + 1) / 2, 2: 1.0}
    assert score.all_pairs_at == {1: 0.5, 2: 1.0}
    assert score.tasks["two"]["pass@1"] == 0.5
    assert score.submission["two"][0] == {"attempt_1": WRONG.tolist(), "attempt_2": A.tolist()}
    assert score.submission["open"] == [{"attempt_1": A.tolist(), "attempt_2": A.tolist()}]
    assert (score.num_empty, score.num_missing) == (0, 0)
    assert vote(dataset, predicted, IDENTIFIERS, SURE, ks=(1,)).pass_at == {1: 0.75}


def test_counts_come_before_confidence_and_confidence_decides_ties(dataset: PuzzleDataset) -> None:
    predicted = boards(WRONG, OTHER, WRONG, A, A, B, C, OTHER, A, None)
    confidence = np.array([0.1, 0.2, 0.1, 0.3, 0.9, 0.4, 0.3, 0.2, 0.1, 0.0])
    score = vote(dataset, predicted, IDENTIFIERS, confidence)
    # Pair 1: two unsure votes beat a sure one. Pair 2, task one: one vote each, the surest is first.
    assert ranks(score) == {"two": [2, 1], "one": [1], "open": [None]}
    shown = score.tasks["two"]["pairs"][1]["candidates"]
    assert [candidate["confidence"] for candidate in shown] == [0.4, 0.3]
    assert score.tasks["two"]["pairs"][1]["num_candidates"] == 3


def test_full_ties_depend_on_the_grids_alone(dataset: PuzzleDataset) -> None:
    predicted = boards(A, OTHER, WRONG, B, OTHER, A, C, OTHER, A, None)
    score = vote(dataset, predicted, IDENTIFIERS, SURE)
    order = np.random.default_rng(0).permutation(10)
    mixed = vote(dataset, predicted[order], IDENTIFIERS[order], SURE, rows=np.arange(10)[order])
    assert score.tasks == mixed.tasks
    assert score.submission == mixed.submission


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.floats(0, 1)), max_size=30), st.randoms())
def test_the_order_of_predictions_does_not_matter(
    dataset: PuzzleDataset, entries: list[tuple[int, int, float]], shuffle: object
) -> None:
    whole = [boards(*[grid] * 10) for grid in (A, B, C, WRONG)]
    shuffled = sorted(entries, key=lambda _: shuffle.random())  # type: ignore[attr-defined]
    scores = []
    for listed in (entries, shuffled):
        rows = np.array([row for row, _, _ in listed], dtype=np.int64)
        predicted = np.array([whole[grid][row] for row, grid, _ in listed], dtype=np.uint8).reshape(-1, 900)
        confidence = np.array([probability for *_, probability in listed], dtype=np.float64)
        scores.append(vote(dataset, predicted, IDENTIFIERS[rows], confidence, rows=rows))
    assert scores[0].tasks == scores[1].tasks
    assert scores[0].submission == scores[1].submission
    assert scores[0].pass_at == scores[1].pass_at


def test_missing_and_repeated_predictions(dataset: PuzzleDataset) -> None:
    rows = np.array([2, 2, 0, 8])  # pair 1 of task two: turned, twice, and as it is; task one mirrored
    predicted = boards(A, B, WRONG, B, A, B, C, C, C, None)[rows]
    score = vote(dataset, predicted, IDENTIFIERS[rows], SURE[:4], rows=rows)
    assert ranks(score) == {"two": [2, None], "one": [1], "open": [None]}
    assert score.num_missing == 2  # pair 2 of task two, and the open one
    assert score.pass_at == {1: 0.5, 2: 0.75}
    assert score.tasks["two"]["pairs"][1] == {"rank": None, "num_votes": 0, "num_candidates": 0, "candidates": []}
    nothing = vote(dataset, np.zeros((0, 900), np.uint8), np.zeros(0, int), np.zeros(0), rows=np.zeros(0, int))
    assert nothing.pass_at == {1: 0.0, 2: 0.0}
    assert nothing.num_missing == 4
    assert nothing.submission["two"][0]["attempt_1"] == [[0, 0], [0, 0]]


def test_a_nearly_right_grid_is_wrong(dataset: PuzzleDataset) -> None:
    larger = np.pad(A, ((0, 1), (0, 0)))
    score = vote(dataset, boards(larger, B, larger, B, larger, B, C, C, C, None), IDENTIFIERS, SURE)
    assert ranks(score)["two"] == [None, 1]
    assert score.pass_at[2] == 0.75


def test_files(dataset: PuzzleDataset, tmp_path: Path) -> None:
    score = vote(dataset, boards(WRONG, B, A, B, WRONG, OTHER, C, C, OTHER, A), IDENTIFIERS, SURE)
    results, submission = write_score(score, tmp_path / "out")
    assert json.loads(submission.read_text()) == score.submission
    found = json.loads(results.read_text())
    assert (found["pass@1"], found["pass@2"], found["all_pairs@1"], found["num_tasks"]) == (0.75, 1.0, 0.5, 3)
    assert found["tasks"] == score.tasks
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"arc_results.json", "submission.json"}


def test_predictions_of_other_rows_are_refused(dataset: PuzzleDataset) -> None:
    predicted = boards(*[A] * 10)
    with pytest.raises(DataError, match="9 predictions for the 10 rows"):
        vote(dataset, predicted[:9], IDENTIFIERS[:9], SURE[:9])
    with pytest.raises(DataError, match=r"prediction 2 has identifier 1, row 2 of .* has 2"):
        vote(dataset, predicted, np.full(10, 1), SURE)
    with pytest.raises(DataError, match="rows 0 to 10"):
        vote(dataset, predicted, IDENTIFIERS, SURE, rows=np.arange(10) + np.array([0] * 9 + [1]))
    with pytest.raises(ValueError, match="must have the shapes"):
        vote(dataset, predicted[:, :81], IDENTIFIERS, SURE)
    with pytest.raises(ValueError, match=r"rows \(3,\)"):
        vote(dataset, predicted, IDENTIFIERS, SURE, rows=np.arange(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_arc(
        output_dir=folder / "dataset",
        source=[str(arc_tasks.write_tasks(folder / "tasks", num_evaluation=3))],
        num_aug=7,
    )
    return folder / "dataset"


class TestWholeDatasets:
    def test_a_perfect_solver_and_a_copying_one(self, folder: Path) -> None:
        dataset = open_dataset(folder, "test")
        (part,) = dataset.sets
        identifiers = np.repeat(part.puzzle_identifiers, np.diff(part.puzzle_indices))
        confidence = np.linspace(0, 1, part.num_rows)
        perfect = vote(dataset, part.labels, identifiers, confidence)
        assert perfect.pass_at == {1: 1.0, 2: 1.0}
        assert {name: len(found) for name, found in perfect.submission.items()} == {
            "evalu0": 1,
            "evalu1": 2,
            "evalu2": 3,
        }
        truth = json.loads((folder / "test_puzzles.json").read_text())
        for name, task in truth.items():
            assert [attempt["attempt_1"] for attempt in perfect.submission[name]] == [p["output"] for p in task["test"]]
        copied = vote(dataset, part.inputs, identifiers, confidence)
        assert copied.pass_at == {1: 0.0, 2: 0.0}
        assert copied.submission["evalu0"][0]["attempt_1"] == truth["evalu0"]["test"][0]["input"]
        assert copied.tasks["evalu2"]["pairs"][2]["candidates"][0]["num_votes"] == 8

    def test_answers_of_a_dataset_without_the_file_come_from_its_rows(self, folder: Path, tmp_path: Path) -> None:
        stated = held_out_pairs(open_dataset(folder, "test"))
        (folder / "test_puzzles.json").rename(tmp_path / "kept.json")
        found = held_out_pairs(open_dataset(folder, "test"))
        (tmp_path / "kept.json").rename(folder / "test_puzzles.json")
        assert found.keys() == stated.keys()
        for name, pairs in stated.items():
            for first, second in zip(pairs, found[name], strict=True):
                np.testing.assert_array_equal(first.input, second.input)
                assert first.output is not None
                assert second.output is not None
                np.testing.assert_array_equal(first.output, second.output)

    def test_another_builds_file_and_another_kind(self, folder: Path, tmp_path: Path) -> None:
        dataset = open_dataset(folder, "train")
        (part,) = dataset.sets
        identifiers = np.repeat(part.puzzle_identifiers, np.diff(part.puzzle_indices))
        with pytest.raises(DataError, match=r"rows of task train0, which test_puzzles.json does not name"):
            vote(dataset, part.labels, identifiers, np.zeros(part.num_rows))
        with DatasetWriter(
            tmp_path / "maze", about=About(kind="maze", height=2, width=2), vocab_size=6, seq_len=4
        ) as writer:
            writer.split("test").add_puzzles(np.ones((1, 4), np.uint8), np.ones((1, 4), np.uint8))
        with pytest.raises(DataError, match="no ARC dataset"):
            held_out_pairs(open_dataset(tmp_path / "maze", "test"))


def test_no_known_answers_is_no_score(tmp_path: Path) -> None:
    task = arc_tasks.task_json(0)
    del task["test"][0]["output"]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.json").write_text(json.dumps(task))
    build_arc(output_dir=tmp_path / "dataset", source=[str(tmp_path / "test")], num_aug=1)
    dataset = open_dataset(tmp_path / "dataset", "test")
    inputs = dataset.sets[0].inputs
    score = vote(dataset, inputs, np.array([1, 2]), np.ones(2))
    assert all(math.isnan(value) for value in score.pass_at.values())
    assert score.submission["a"][0]["attempt_2"] == task["test"][0]["input"] == crop(inputs[0]).tolist()
    results, _ = write_score(score, tmp_path)
    assert json.loads(results.read_text())["pass@1"] is None
