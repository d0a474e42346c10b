"""Symmetries of Sudoku: exactly invertible, valid, a function of the row number, and all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.data.puzzles.sudoku.generate import generate
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.data.puzzles.sudoku.symmetries import draw, is_transposable, line_orders, relabellings
from hrm_engine.data.puzzles.symmetries import Symmetries

SIZES = [4, 6, 9]


@pytest.fixture(scope="module")
def puzzles() -> dict[int, Puzzles]:
    """Puzzles of every size."""
    return {size: Puzzles.joined(list(generate(size, 20, seed=4))) for size in SIZES}


@given(
    st.sampled_from(SIZES), st.integers(0, 2**63), st.lists(st.integers(0, 2**62), min_size=1, max_size=5), st.data()
)
def test_every_symmetry_has_an_exact_inverse(size: int, seed: int, rows: list[int], data: st.DataObject) -> None:
    tokens = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(0, size + 2, (len(rows), size * size))
    drawn = draw(size, seed=seed, row_numbers=np.array(rows))
    np.testing.assert_array_equal(drawn.inverse().apply(drawn.apply(tokens)), tokens)
    np.testing.assert_array_equal(drawn.apply(drawn.inverse().apply(tokens)), tokens)
    twice = drawn.inverse().inverse()
    np.testing.assert_array_equal(twice.cells, drawn.cells)
    np.testing.assert_array_equal(twice.digits, drawn.digits)


@pytest.mark.parametrize("size", SIZES)
def test_puzzles_stay_puzzles_with_one_solution(size: int, puzzles: dict[int, Puzzles]) -> None:
    some = puzzles[size]
    rows = np.arange(200)
    inputs, labels = some.inputs[rows % 20], some.labels[rows % 20]
    new_inputs, new_labels = BOARDS["sudoku"].augment(inputs, labels, seed=8, row_numbers=rows)
    assert (new_inputs.dtype, new_labels.dtype) == (np.uint8, np.uint8)
    assert BOARDS["sudoku"].are_valid(new_inputs, new_labels).all()
    answer = solve(new_inputs)
    assert (answer.num_solutions == 1).all()
    np.testing.assert_array_equal(answer.solutions, new_labels)
    assert ((new_inputs == 1).sum(axis=1) == (inputs == 1).sum(axis=1)).all()
    assert len({row.tobytes() for row in new_inputs}) > 150


def test_padding_and_blanks_stay() -> None:
    drawn = draw(9, seed=1, row_numbers=np.arange(50))
    assert (drawn.digits[:, :2] == [0, 1]).all()
    assert (np.sort(drawn.digits, axis=1) == np.arange(11)).all()
    assert (np.sort(drawn.cells, axis=1) == np.arange(81)).all()


def test_a_row_number_alone_decides() -> None:
    everything = draw(6, seed=3, row_numbers=np.arange(1000))
    some = draw(6, seed=3, row_numbers=np.array([999, 5, 5]))
    np.testing.assert_array_equal(some.cells, everything.cells[[999, 5, 5]])
    np.testing.assert_array_equal(some.digits, everything.digits[[999, 5, 5]])
    for other in (draw(6, seed=4, row_numbers=np.arange(9)), draw(6, seed=3, row_numbers=np.arange(9), name="other")):
        assert (other.cells != everything.cells[:9]).any()


def test_what_a_seed_draws_is_frozen() -> None:
    """Runs are resumed and repeated from these numbers, under the next numpy as well."""
    drawn = draw(4, seed=1, row_numbers=np.array([2]))
    assert drawn.cells[0].tolist() == [2, 6, 14, 10, 3, 7, 15, 11, 1, 5, 13, 9, 0, 4, 12, 8]
    assert drawn.digits[0].tolist() == [0, 1, 5, 4, 2, 3]


@pytest.mark.parametrize(("size", "cell_orders"), [(4, 8 * 8 * 2), (6, 48 * 72), (9, 1296 * 1296 * 2)])
def test_there_are_as_many_as_known(size: int, cell_orders: int) -> None:
    num_cell_orders = len(line_orders(size, 0)) * len(line_orders(size, 1)) * (2 if is_transposable(size) else 1)
    assert num_cell_orders * len(relabellings(size)) == cell_orders * {4: 24, 6: 720, 9: 362_880}[size]
    assert is_transposable(size) is (size != 6)


def test_all_of_them_are_drawn_equally_often() -> None:
    drawn = draw(4, seed=0, row_numbers=np.arange(3072 * 30))
    kinds, counts = np.unique(np.concatenate([drawn.cells, drawn.digits], axis=1), axis=0, return_counts=True)
    assert len(kinds) == 3072
    # Chi-square with 3071 degrees of freedom: mean 3071, standard deviation 78.
    assert abs(((counts - 30) ** 2 / 30).sum() - 3071) < 5 * 78


def test_a_6x6_board_is_never_transposed() -> None:
    """Each row of the new board comes from one row of the old one."""
    drawn = draw(6, seed=0, row_numbers=np.arange(500))
    assert (np.ptp(drawn.cells.reshape(-1, 6, 6) // 6, axis=2) == 0).all()
    both = draw(9, seed=0, row_numbers=np.arange(500))
    kept = (np.ptp(both.cells.reshape(-1, 9, 9) // 9, axis=2) == 0).all(axis=1)
    assert 200 < kept.sum() < 300


def test_the_identity_changes_nothing(puzzles: dict[int, Puzzles]) -> None:
    identity = Symmetries(np.arange(81)[None].repeat(20, 0), np.arange(11, dtype=np.uint8)[None].repeat(20, 0))
    np.testing.assert_array_equal(identity.apply(puzzles[9].inputs), puzzles[9].inputs)
