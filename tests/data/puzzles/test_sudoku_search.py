"""Solving and generating Sudokus, against a slow solver that shares nothing with ours."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.data.puzzles.sudoku.board import parse_sudoku
from hrm_engine.data.puzzles.sudoku.generate import candidate_blocks, generate, make_block
from hrm_engine.data.puzzles.sudoku.rules import BOX_SHAPES
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.errors import ConfigError, DataError

EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
EASY_SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."
HARD_SOLVED = "812753649943682175675491283154237896369845721287169534521974368438526917796318452"
SEVENTEEN = "000000010400000000020000000000050407008000300001090000300400200050100000000806000"


def slow_solutions(text: str, limit: int) -> list[str]:
    """Solutions of a written puzzle, up to ``limit``: plain backtracking over its characters, row by row."""
    size = int(len(text) ** 0.5)
    height, width = BOX_SHAPES[size]
    found: list[str] = []

    def fits(board: str, cell: int, digit: str) -> bool:
        row, column = divmod(cell, size)
        for other, value in enumerate(board):
            if value == digit and other != cell:
                its_row, its_column = divmod(other, size)
                same_box = its_row // height == row // height and its_column // width == column // width
                if its_row == row or its_column == column or same_box:
                    return False
        return True

    def go(board: str) -> None:
        cell = board.find(".")
        if cell < 0:
            found.append(board)
            return
        for digit in "123456789"[:size]:
            if len(found) < limit and fits(board, cell, digit):
                go(board[:cell] + digit + board[cell + 1 :])

    if all(value == "." or fits(text, cell, value) for cell, value in enumerate(text)):
        go(text)
    return found


def solved(text: str) -> tuple[str, int, int]:
    answer = solve(parse_sudoku(text)[None])
    return BOARDS["sudoku"].to_text(answer.solutions[0]), int(answer.num_solutions[0]), int(answer.guesses[0])


def test_known_puzzles() -> None:
    assert solved(EASY) == (EASY_SOLVED, 1, 0)
    answer, num_solutions, guesses = solved(HARD)
    assert (answer, num_solutions) == (HARD_SOLVED, 1)
    assert guesses > 20
    assert solved(SEVENTEEN)[1] == 1
    assert solved(EASY_SOLVED) == (EASY_SOLVED, 1, 0)
    assert solved("." * 81)[1] == 2


def test_a_puzzle_without_a_solution() -> None:
    # 1 to 3 in the first row leave 4 for its last cell, whose column has one already; no rule is broken yet.
    answer = solve(parse_sudoku("123." + "." * 8 + "...4")[None])
    assert (answer.num_solutions.tolist(), answer.guesses.tolist()) == ([0], [0])
    assert (answer.solutions == 0).all()
    clash = solve(np.array([[2, 2, *[1] * 14]]))
    assert clash.num_solutions.tolist() == [0]


def test_every_4x4_grid_is_found() -> None:
    grids = slow_solutions("." * 16, 1000)
    assert len(grids) == len(set(grids)) == 288
    answer = solve(np.stack([parse_sudoku(grid) for grid in grids]))
    assert answer.num_solutions.tolist() == [1] * 288


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([4, 6]), st.integers(0, 2**32 - 1), st.data())
def test_solutions_are_counted_as_by_the_slow_solver(size: int, seed: int, data: st.DataObject) -> None:
    """Valid grids with any cells emptied, some with a digit changed: none, one and several solutions all occur."""
    cells = size * size
    grid = make_block(size, seed, seed + 1, blanks=1, seed=3).labels[0]
    emptied = data.draw(st.sets(st.integers(0, cells - 1), max_size=12 if size == 4 else 20))
    board = grid.copy()
    if data.draw(st.booleans()):
        board[data.draw(st.integers(0, cells - 1))] = data.draw(st.integers(2, size + 1))
    board[list(emptied)] = 1
    expected = slow_solutions(BOARDS["sudoku"].to_text(board), 2)
    answer = solve(board[None])
    assert answer.num_solutions[0] == len(expected)
    if len(expected) == 1:
        assert BOARDS["sudoku"].to_text(answer.solutions[0]) == expected[0]
    elif expected:
        assert BOARDS["sudoku"].are_valid(board[None], answer.solutions)[0]


@pytest.mark.parametrize(("size", "blanks", "count"), [(4, 9, 60), (4, None, 60), (6, 21, 40), (9, 45, 12)])
def test_generated_puzzles_have_one_solution(size: int, blanks: int | None, count: int) -> None:
    found = Puzzles.joined(list(generate(size, count, blanks=blanks, seed=1)))
    assert len(found) == len({row.tobytes() for row in found.inputs}) == count
    assert BOARDS["sudoku"].are_valid(found.inputs, found.labels).all()
    for inputs, labels in zip(found.inputs, found.labels, strict=True):
        assert slow_solutions(BOARDS["sudoku"].to_text(inputs), 2) == [BOARDS["sudoku"].to_text(labels)]
        assert blanks is None or (inputs == 1).sum() == blanks
    np.testing.assert_array_equal(solve(found.inputs).guesses, found.ratings)


def test_no_given_of_a_minimal_puzzle_can_be_spared() -> None:
    (found,) = generate(9, 3, seed=5)
    for puzzle in found.inputs:
        fewer = np.repeat(puzzle[None], 81, axis=0)
        fewer[np.arange(81), np.arange(81)] = 1
        assert (solve(fewer[puzzle > 1]).num_solutions == 2).all()


def test_candidates_do_not_depend_on_blocks_or_threads() -> None:
    expected = make_block(6, 0, 5000, blanks=None, seed=9)
    for workers in (1, 3):
        parts = Puzzles.joined(list(candidate_blocks(6, blanks=None, seed=9, workers=workers, num_candidates=5000)))
        for name in ("inputs", "labels", "ratings"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(expected, name))
    some = make_block(6, 4000, 4003, blanks=None, seed=9)
    np.testing.assert_array_equal(some.inputs, expected.inputs[4000:4003])
    assert (make_block(6, 0, 50, blanks=None, seed=10).inputs != expected.inputs[:50]).any()


def test_the_sequence_of_a_seed_is_frozen() -> None:
    """The hard set's recorded hash rests on this; a change here changes what everybody's seeds mean."""
    block = make_block(9, 0, 50, blanks=None, seed=2025)
    content = block.inputs.tobytes() + block.labels.tobytes() + block.ratings.astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "882d8aa1c23ea6ae"


def test_a_lower_bound_on_difficulty() -> None:
    found = Puzzles.joined(list(generate(9, 10, seed=1, min_difficulty=6)))
    assert len(found) == 10
    assert found.ratings.min() >= 6
    others = Puzzles.joined(list(generate(9, 10, seed=1)))
    assert others.ratings.min() < 6


def test_fewer_puzzles_stand_at_the_head_of_more() -> None:
    few, many = (Puzzles.joined(list(generate(4, count, blanks=8, seed=2))) for count in (20, 6000))
    np.testing.assert_array_equal(few.inputs, many.inputs[:20])


def test_puzzles_that_cannot_be_are_refused() -> None:
    for size, blanks in ((4, 13), (6, 29), (9, 65), (9, 0), (5, 3)):
        with pytest.raises(ConfigError, match=r"--(blanks|size) \d+"):
            next(generate(size, 1, blanks=blanks, seed=0))
    with pytest.raises(ConfigError, match="1 or more"):
        next(generate(4, 0, seed=0))
    with pytest.raises(ValueError, match="tokens 0 to 2"):
        solve(np.array([[0, 2, *[1] * 14]]))
    with pytest.raises(DataError, match="not 10"):
        solve(np.ones((1, 10), dtype=np.uint8))


def test_a_kind_that_is_used_up_ends_with_a_sentence() -> None:
    """A 4x4 grid has 16 puzzles with one blank, so there are 288 * 16 and no more."""
    told: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"4,608 of 5,000 were found: ask for fewer"):
        list(generate(4, 5000, blanks=1, seed=0, progress=lambda *at: told.append(at)))
    assert told[-1] == (4608, 5000)
    assert all(one <= other for one, other in itertools.pairwise(told))
