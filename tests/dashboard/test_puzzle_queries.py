"""Evaluations by row, solvers and their test puzzles, and typed puzzles: good ones, damaged ones, wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dashboard.queries.bundles import TestSplit, open_test_split, solver_of, solvers
from dashboard.queries.puzzles import MOST_GROUPS, EvaluatedRows, group_names
from dashboard.queries.scan import MetricsScan
from hrm_engine.data.puzzles.arc.build import build_arc
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.errors import DataError
from hrm_engine.store.paths import Workspace
from tests.arc_tasks import write_tasks
from tests.dashboard.run_folders import append_events, write_puzzle_rows, write_run


def test_accuracy_by_rating_counts_every_row(tmp_path: Path) -> None:
    rows = EvaluatedRows(write_puzzle_rows(tmp_path / "rows.jsonl", 90, ratings=3))
    assert (rows.num_rows, rows.skipped_lines, rows.is_rated) == (90, 0, True)
    assert group_names(rows.by_rating) == ["0", "1", "2"]
    # In these rows difficulty 0 is always solved, 1 every second time, 2 never.
    assert rows.by_rating["exact"].tolist() == [1.0, 0.5, 0.0]
    assert rows.by_rating["count"].sum() == rows.by_segments["count"].sum() == rows.calibration["count"].sum() == 90
    assert rows.num_failures == 45
    assert rows.failures["rating"].is_monotonic_decreasing
    assert not set(rows.failures["row"]) & set(range(0, 90, 3))


def test_many_ratings_are_grouped(tmp_path: Path) -> None:
    rows = EvaluatedRows(write_puzzle_rows(tmp_path / "rows.jsonl", 1000, ratings=250))
    groups = rows.by_rating
    assert 3 < len(groups) <= MOST_GROUPS
    assert groups["count"].sum() == 1000
    assert (groups["lowest"].iloc[1:].to_numpy() > groups["highest"].iloc[:-1].to_numpy()).all()
    assert "to" in group_names(groups)[0]


def test_unrated_rows_have_no_difficulty(tmp_path: Path) -> None:
    rows = EvaluatedRows(write_puzzle_rows(tmp_path / "rows.jsonl", 10, ratings=0))
    assert not rows.is_rated
    assert rows.by_rating.empty
    assert rows.num_rows == 10


@pytest.mark.parametrize("name", ["rows[1].jsonl", "plain.jsonl", "it's.jsonl"])
def test_damaged_lines_are_counted_and_the_rest_is_used(tmp_path: Path, name: str) -> None:
    path = write_puzzle_rows(tmp_path / name, 30, ratings=3)
    junk = [b"[1, 2]", b"NaN", b'{"row": "x", "exact": 5}', b'{"exact": true}', b"{}", b'{"row": 31, "ex']
    path.write_bytes(path.read_bytes() + b"\n".join(junk))
    (tmp_path / "rows1.jsonl").write_text('{"row": 1, "exact": true}\n')
    rows = EvaluatedRows(path)
    assert (rows.num_rows, rows.skipped_lines) == (30, len(junk))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"[]", b"\n\n"])
def test_a_file_without_rows_is_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    rows = EvaluatedRows(path)
    assert rows.num_rows == 0
    assert rows.num_failures == 0
    assert rows.by_segments.empty
    assert EvaluatedRows(tmp_path / "absent.jsonl").num_rows == 0


def test_the_best_evaluation_that_counts_gives_the_headline(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    scores = [("eval", step, {"loss": 1.0 + step, "exact_accuracy": step / 10}) for step in (0, 1, 2, 3)]
    of_bundle = ("eval", 2, {"loss": 0.1, "exact_accuracy": 0.9, "full": True, "weights_step": 1})
    append_events(path, [*scores, ("resume", 2, {}), of_bundle])
    scan = MetricsScan(path)
    scan.look()
    scan.advance()
    assert scan.last_eval == {"step": 2, "loss": 3.0, "exact_accuracy": 0.2}
    assert scan.best_eval == scan.last_eval  # more is solved, though the loss is higher


def test_solvers_are_found_and_other_runs_are_not(lab: Workspace, tiny_solver: Path) -> None:
    write_run(lab.root, "text", last=10)
    broken = lab.runs / "broken"
    broken.mkdir()
    (broken / "puzzle.json").write_text(json.dumps({"puzzle": "sudoku", "height": True, "width": 10**9}))
    (broken / "metadata.json").write_text("{}")
    found = solvers(lab.run_dirs(), lab)
    assert [solver.id for solver in found] == ["runs/tiny"]
    assert (found[0].kind, found[0].height, found[0].segments) == ("sudoku", 4, 3)


def test_test_puzzles_have_their_solution(lab: Workspace, tiny_solver: Path) -> None:
    solver = solver_of(tiny_solver, lab)
    assert solver is not None
    split = open_test_split(solver)
    puzzle = split.puzzle(3)
    assert split.num_rows == 16
    assert puzzle.solution is not None
    assert BOARDS["sudoku"].is_valid(puzzle.inputs, puzzle.solution)
    wrong = puzzle.wrong(puzzle.inputs)
    assert wrong is not None
    assert wrong.sum() == 6
    with pytest.raises(DataError, match="rows 0 to 15"):
        split.puzzle(16)


def test_arc_pairs_are_found_by_task(tmp_path: Path) -> None:
    build_arc(output_dir=tmp_path / "arc", source=[str(write_tasks(tmp_path / "tasks"))], num_aug=2)
    split = TestSplit(tmp_path / "arc")
    assert list(split.tasks) == ["evalu0", "evalu1"]
    assert [len(rows) for rows in split.tasks.values()] == [1, 2]
    puzzle = split.puzzle(split.tasks["evalu1"][1])
    assert puzzle.solution is not None
    assert puzzle.counts is not None
    assert 0 < puzzle.counts.sum() < 900  # padding is not judged
