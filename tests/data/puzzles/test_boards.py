"""Boards as text, what may be typed, and whether a prediction follows the rules."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.data.puzzles.arc.board import ARC_COLOURS
from hrm_engine.data.puzzles.board import Board, extent
from hrm_engine.data.puzzles.drawing import board_svg
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.sudoku.board import parse_sudoku
from hrm_engine.data.puzzles.sudoku.rules import conflicts, units
from hrm_engine.errors import ConfigError, DataError
from lab.cli.board_view import board_lines

ROOT = Path(__file__).parents[3]
SOLVED_6 = "123456456123231564564231312645645312"
SOLVED_9 = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE_9 = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
MAZE = "S #  \n# #  \n  # G\n #   \n     "
WAY = "So#  \n#o#  \n o# G\n #  o\n    o"


def maze(text: str) -> np.ndarray:
    return BOARDS["maze"].to_tokens(text.replace("\n", ""))


@given(st.sampled_from(["sudoku", "maze"]), st.data())
def test_text_and_tokens_are_inverse(kind: str, data: st.DataObject) -> None:
    text = data.draw(st.text(BOARDS[kind].characters[1:], max_size=100))
    tokens = BOARDS[kind].to_tokens(text)
    assert (tokens.dtype, BOARDS[kind].to_text(tokens)) == (np.uint8, text)


def test_text_of_every_kind() -> None:
    assert BOARDS["arc"].to_text(np.array([0, 1, 2, 11])) == "?|09"
    assert BOARDS["other"].to_text(np.array([0, 37])) == "0 37"
    assert [BOARDS["sudoku"].cell_text(token) for token in (0, 1, 2, 10, 11)] == ["?", ".", "1", "9", "11"]
    with pytest.raises(DataError, match="have no text form"):
        BOARDS["other"].to_tokens("1 2")
    with pytest.raises(DataError, match="character 3 is 'x': a maze .* ' #GSo'"):
        BOARDS["maze"].to_tokens("# x")


def test_a_typed_sudoku() -> None:
    tokens = parse_sudoku(PUZZLE_9)
    assert BOARDS["sudoku"].to_text(tokens) == PUZZLE_9
    framed = "\n".join("".join(text for text, _ in line) for line in BOARDS["sudoku"].lines(tokens, 9, 9))
    np.testing.assert_array_equal(parse_sudoku(framed.replace(".", "0")), tokens)
    assert len(parse_sudoku("." * 16)) == 16
    assert len(parse_sudoku(SOLVED_6)) == 36


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PUZZLE_9[:-1], "not 80"),
        ("", "not 0"),
        ("." * 25, "not 25"),
        (PUZZLE_9[:-1] + "x", "character 81 is 'x'"),
        (PUZZLE_9[:-1] + "?", "character 81 is '\\?'"),
        ("7" + "." * 35, r"row 1, column 1 is 7: a 6x6 Sudoku has 1 to 6"),
        ("." * 9 + "1.1" + "." * 4, r"digit 1 in row 3, column 2 stands twice"),
    ],
)
def test_what_cannot_be_a_sudoku_is_refused(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse_sudoku(text)


@pytest.mark.parametrize(("size", "box"), [(4, [0, 1, 4, 5]), (6, [0, 1, 2, 6, 7, 8]), (9, [0, 1, 2, 9, 10, 11])])
def test_units_cover_every_cell_three_times(size: int, box: list[int]) -> None:
    found = units(size)
    assert found.shape == (3 * size, size)
    assert found[2 * size, :4].tolist() == box[:4]
    assert sorted(found[2 * size].tolist()) == sorted(box + [18, 19, 20] * (size == 9))
    assert np.bincount(found.ravel()).tolist() == [3] * size * size


def test_conflicts_mark_both_cells() -> None:
    tokens = BOARDS["sudoku"].to_tokens("1..1" + "." * 8 + "1...")
    assert np.flatnonzero(conflicts(tokens)).tolist() == [0, 3, 12]
    assert not conflicts(parse_sudoku(SOLVED_6)).any()


def test_a_solution_must_keep_the_givens_and_the_rules() -> None:
    puzzle, solved = parse_sudoku(PUZZLE_9), parse_sudoku(SOLVED_9)
    assert BOARDS["sudoku"].is_valid(puzzle, solved) is True
    assert BOARDS["sudoku"].is_valid(puzzle, puzzle) is False
    relabelled = np.where(solved == 2, 3, np.where(solved == 3, 2, solved))
    assert BOARDS["sudoku"].is_valid(np.ones_like(puzzle), relabelled) is True
    assert BOARDS["sudoku"].is_valid(puzzle, relabelled) is False
    for cell in range(81):
        wrong = solved.copy()
        wrong[cell] = 2 + (solved[cell] - 1) % 9
        assert BOARDS["sudoku"].is_valid(puzzle, wrong) is False
    assert BOARDS["sudoku"].is_valid(parse_sudoku(SOLVED_6), parse_sudoku(SOLVED_6)) is True


@given(st.integers(0, 2**32 - 1))
def test_many_rows_are_judged_as_one(seed: int) -> None:
    draw = np.random.default_rng(seed)
    puzzle, solved = parse_sudoku(PUZZLE_9), parse_sudoku(SOLVED_9)
    predictions = np.repeat(solved[None], 6, axis=0)
    changed = draw.integers(0, 81, size=6)
    predictions[np.arange(6), changed] = draw.integers(0, 12, size=6)
    inputs = np.repeat(puzzle[None], 6, axis=0)
    expected = (predictions == solved).all(axis=1)
    np.testing.assert_array_equal(BOARDS["sudoku"].are_valid(inputs, predictions), expected)


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("So#  \n#o#  \noo# G\no#  o\nooooo", True),  # the shortest way
        ("So#  \n#o#  \noo#oG\no#oo \nooo  ", True),  # another of the same length
        ("So#  \n#o#oo\noo#oG\no#oo \nooo  ", False),  # past the goal and back: a part of it is a way already
        (MAZE, False),  # nothing marked
        (WAY, False),  # not connected
        ("So#  \n#o#  \noo#oG\no#ooo\nooooo", False),  # more than a way
        ("So#  \n#o# o\noo# G\no#  o\nooooo", False),  # a cell left over
        ("Soo G\n# #  \n  # G\n #   \n     ", False),  # through a wall, and a second goal
        ("So#  \n#o#  \noo# o\no#  o\nooooo", False),  # over the goal
        ("oo#  \n#o#  \noo# G\no#  o\nooooo", False),  # over the start
        ("So   \n#o#  \noo# G\no#  o\nooooo", False),  # a wall less
    ],
)
def test_a_way_through_a_maze(answer: str, valid: bool) -> None:
    assert BOARDS["maze"].is_valid(maze(MAZE), maze(answer)) is valid
    assert BOARDS["maze"].are_valid(maze(MAZE)[None], maze(answer)[None]).tolist() == [valid]


def test_a_way_need_not_be_the_shortest() -> None:
    empty = "S   G" + " " * 20
    assert BOARDS["maze"].is_valid(maze(empty), maze("SoooG" + " " * 20)) is True
    assert BOARDS["maze"].is_valid(maze(empty), maze("S   Go   oooooo" + " " * 10)) is True


def test_start_beside_the_goal_needs_no_mark_and_padding_is_never_right() -> None:
    beside = maze("SG##")
    assert BOARDS["maze"].is_valid(beside, beside) is True
    assert BOARDS["maze"].is_valid(beside, np.zeros_like(beside)) is False
    assert BOARDS["maze"].is_valid(maze("S #G"), maze("S #G")) is False


def test_no_rule_says_whether_an_arc_grid_is_right() -> None:
    grid = np.zeros(900, dtype=np.uint8)
    assert BOARDS["arc"].is_valid(grid, grid) is None
    assert BOARDS["other"].is_valid(grid, grid) is None
    with pytest.raises(ValueError, match="no rules"):
        BOARDS["arc"].are_valid(grid[None], grid[None])
    with pytest.raises(ValueError, match="must both have the shape"):
        BOARDS["sudoku"].are_valid(grid[None], grid)


def test_lines_name_every_cell_once() -> None:
    for kind, height, width in (("sudoku", 4, 4), ("sudoku", 6, 6), ("maze", 3, 3), ("arc", 2, 5), ("other", 2, 3)):
        tokens = np.arange(height * width) % 5 + 1
        cells = [cell for line in BOARDS[kind].lines(tokens, height, width) for _, cell in line if cell is not None]
        assert cells == list(range(height * width))
    plain = ["".join(text for text, _ in line) for line in BOARDS["sudoku"].lines(parse_sudoku(SOLVED_6), 6, 6)]
    assert plain[:4] == ["+-------+-------+", "| 1 2 3 | 4 5 6 |", "| 4 5 6 | 1 2 3 |", "+-------+-------+"]
    assert len({len(line) for line in plain}) == 1
    drawn = ["".join(text for text, _ in line) for line in BOARDS["maze"].lines(maze("S#G "), 2, 2)]
    assert drawn == ["S ##", "G   "]


def test_extent_cuts_padding_off() -> None:
    board = np.zeros((5, 6), dtype=np.uint8)
    board[1:3, 2:4] = 3
    other = np.zeros_like(board)
    other[2, 5] = 1
    assert extent([board.ravel(), other.ravel()], 5, 6) == (slice(1, 3), slice(2, 6))
    assert extent([np.zeros(30)], 5, 6) == (slice(0, 5), slice(0, 6))


def test_colours() -> None:
    assert [BOARDS["arc"].colours.get(token) for token in (0, 1, 2, 11, 12)] == [
        None,
        None,
        ARC_COLOURS[0],
        ARC_COLOURS[9],
        None,
    ]
    assert len({BOARDS["maze"].colours.get(token) for token in range(1, 6)}) == 5
    assert BOARDS["sudoku"].colours.get(3) is None


def test_no_code_but_its_own_asks_for_a_board_kind() -> None:
    """Outside of its own folder, no string of product code is the name of a board kind."""
    names, own = set(BOARDS) - {"other"}, ROOT / "hrm_engine/data/puzzles"
    files = [file for room in ("hrm_engine", "lab", "dashboard") for file in sorted((ROOT / room).rglob("*.py"))]
    outside = [file for file in files if not any(file.is_relative_to(own / name) for name in names)]
    strings = [
        (str(file.relative_to(ROOT)), node.lineno, node.value)
        for file in outside
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert len(files) > 200
    assert strings == []


class Lights(Board):
    """A kind of board that no other code knows: lamps, all of which must be lit."""

    kind, characters, colours = "lights", "?.*", {1: "#101010", 2: "#ffdc00"}
    has_rules = True

    def _are_valid(self, inputs: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        return (predictions == 2).all(axis=1)


def test_a_kind_of_board_in_a_file_of_its_own() -> None:
    lights = Lights()
    tokens = lights.to_tokens("*..*")
    assert lights.to_text(tokens) == "*..*"
    assert lights.is_valid(tokens, lights.to_tokens("****")) is True
    assert lights.is_valid(tokens, tokens) is False
    assert [line.plain for line in board_lines(lights, tokens, (2, 2), extent([tokens], 2, 2))] == ["* . ", ". * "]
    assert board_svg(lights, tokens, 2, 2).count("#ffdc00") == 2
    with pytest.raises(ConfigError, match="not for lights boards of 2 x 2"):
        lights.check_symmetries(2, 2)
