"""Boards that somebody typed: solved by search, or refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.maze.board import check_maze
from hrm_engine.data.puzzles.sudoku.board import SEVERAL_SOLUTIONS
from hrm_engine.errors import DataError

MAZE = "S  #\n## #\n#  G\n####"


def test_a_typed_sudoku_is_solved_by_search() -> None:
    board = BOARDS["sudoku"].read("1.3. 34.. ..43 .3.1", 4, 4)
    assert board.solution is not None
    assert BOARDS["sudoku"].to_text(board.solution) == "1234341221434321"
    several = BOARDS["sudoku"].read("." * 16, 4, 4)
    assert several.solution is None
    assert several.warning == SEVERAL_SOLUTIONS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("123", "16, 36 or 81 cells"),
        ("." * 81, "4x4, 16 cells"),
        ("x" + "." * 15, "character 1 is 'x'"),
        ("11" + "." * 14, "stands twice"),
        ("9" + "." * 15, "4x4 Sudoku has 1 to 4"),
        ("12...." + "3..." + "4.....", "has no solution"),
    ],
)
def test_a_wrong_sudoku_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BOARDS["sudoku"].read(text, 4, 4)


def test_a_typed_maze_has_its_way() -> None:
    board = BOARDS["maze"].read(MAZE, 4, 4)
    assert board.rating == 5
    assert board.solution is not None
    assert BOARDS["maze"].to_text(board.solution) == "Soo###o##oG####" or BOARDS["maze"].is_valid(
        board.inputs, board.solution
    )
    short = BOARDS["maze"].read("S\n\n\n   G", 4, 4)  # blanks at the ends may be left out
    assert "more than one shortest way" in short.warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S G", "4 lines of 4 characters; this has 1 lines"),
        ("S   \n    \n    \n     G", "of up to 6"),
        (MAZE.replace("#", "x", 1), "line 1, column 4 is 'x'"),
        (MAZE.replace("G", " "), "1 S and 0 G"),
        ("S#  \n##  \n    \n   G", "no way leads from S to G"),
    ],
)
def test_a_wrong_maze_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BOARDS["maze"].read(text, 4, 4)


def test_a_maze_that_is_not_square_is_asked_without_a_solution() -> None:
    tokens = BOARDS["maze"].to_tokens("S    G").astype(np.int64)
    assert check_maze(tokens, 2, 3).solution is None
