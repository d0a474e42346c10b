"""Figures of puzzle solvers: what is drawn, and what happens at the edges."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import puzzles, style
from dashboard.queries.puzzles import EvaluatedRows, group_names
from tests.dashboard.run_folders import write_puzzle_rows


@pytest.fixture
def rows(tmp_path: Path) -> EvaluatedRows:
    return EvaluatedRows(write_puzzle_rows(tmp_path / "rows.jsonl", 90, ratings=3))


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_an_interval_holds_its_share(count: int, exact: int) -> None:
    share = min(exact, count) / count
    low, high = puzzles.wilson(share, count)
    assert 0 <= low <= share <= high <= 1
    assert high > low


def test_an_interval_shrinks_with_more_puzzles() -> None:
    few, many = puzzles.wilson(0.5, 10), puzzles.wilson(0.5, 1000)
    assert many[1] - many[0] < few[1] - few[0]
    assert many == pytest.approx((0.469, 0.531), abs=0.001)


def test_bars_by_difficulty(rows: EvaluatedRows) -> None:
    bars = puzzles.by_difficulty(rows.by_rating, group_names(rows.by_rating)).data[0]
    assert list(bars.x) == ["0", "1", "2"]
    assert list(bars.y) == [1.0, 0.5, 0.0]
    assert bars.error_y.array[0] == pytest.approx(0)
    assert bars.error_y.arrayminus[2] == pytest.approx(0)


def test_segments_are_stacked_by_exactness(rows: EvaluatedRows) -> None:
    right, wrong = puzzles.segments_used(rows.by_segments).data
    assert sum(right.y) == sum(wrong.y) == 45


def test_calibration_has_a_diagonal_and_every_bin(rows: EvaluatedRows) -> None:
    diagonal, found = puzzles.calibration(rows.calibration).data
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    assert sum(found.customdata) == 90
    empty = puzzles.calibration(rows.calibration.iloc[:0])
    assert len(empty.data[1].x) == 0


def test_one_segment_still_shows_its_baselines() -> None:
    figure = puzzles.by_segment([0.5], [0.9], {"copying": 0.4})
    assert [trace.name for trace in figure.data] == ["exact", "cells", "cells, copying"]


def test_accuracies_leave_out_what_was_not_measured() -> None:
    train = pd.DataFrame({"name": ["cell_accuracy"], "x": [1.0], "last": [0.5]})
    evaluation = pd.DataFrame({"x": [1.0], "cell_accuracy": [0.6], "exact_accuracy": [None]})
    figure = puzzles.accuracies(train, evaluation, {"cell_accuracy": "cells", "exact_accuracy": "exact"}, x="step")
    assert [trace.name for trace in figure.data] == ["cells, training", "cells, validation"]


def test_halting_shows_where_it_stops() -> None:
    names = [trace.name for trace in puzzles.halting([0.1, 0.9], [0.8, 0.2], 2).data]
    assert names == ["halt", "continue", "halts here"]
    assert [trace.name for trace in puzzles.halting([0.1], None, None).data] == ["halt"]


def test_a_state_that_stays_is_a_point_with_one_number() -> None:
    figure = puzzles.latent_path([[0.0, 0.0]] * 5, "z_H", 3)
    assert [text for text in figure.data[1].text if text] == ["3"]
    path = puzzles.latent_path([[float(at), float(at % 2)] for at in range(5)], "z_H", 5)
    assert list(path.data[1].text) == ["1", "2", "3", "4", "5"]
    assert list(path.data[1].marker.color) == style.depth_colours(5)


def test_a_maze_has_a_point_for_every_cell() -> None:
    tokens = [1, 2, 3, 2, 2, 4]
    figure = puzzles.maze_board(tokens, 2, 3, ["#000000"] * 6, ["padding", "wall", "free", "start", "goal", "way"])
    points = figure.data[0]
    assert list(zip(points.x, points.y, strict=True)) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert points.text[0] == "wall"
