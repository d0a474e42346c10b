"""The eight symmetries: exact inverses, a group, and the numbers that stand in file formats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm_engine.data.puzzles.dihedral import (
    INVERSE,
    NUM_DIHEDRAL,
    SWAPS_SIDES,
    dihedral,
    dihedral_cells,
    undo_dihedral,
)

GRIDS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda shape: arrays(np.uint8, shape))


@given(GRIDS, st.integers(0, NUM_DIHEDRAL - 1))
def test_inverse(grid: np.ndarray, number: int) -> None:
    there = dihedral(grid, number)
    np.testing.assert_array_equal(undo_dihedral(there, number), grid)
    np.testing.assert_array_equal(dihedral(undo_dihedral(grid, number), number), grid)
    assert there.shape == (grid.shape[::-1] if number in SWAPS_SIDES else grid.shape)


def test_they_are_the_symmetries_of_the_square() -> None:
    square = np.arange(9).reshape(3, 3)
    images = {dihedral(square, number).tobytes(): number for number in range(NUM_DIHEDRAL)}
    assert len(images) == NUM_DIHEDRAL
    for first in range(NUM_DIHEDRAL):
        for second in range(NUM_DIHEDRAL):
            assert dihedral(dihedral(square, first), second).tobytes() in images
        assert images[dihedral(dihedral(square, first), INVERSE[first]).tobytes()] == 0
    with pytest.raises(ValueError, match="0 to 7"):
        dihedral(square, 8)


def test_numbers_mean_what_they_mean_in_the_reference_format() -> None:
    square = np.array([[1, 2], [3, 4]])
    expected = ["12/34", "24/13", "43/21", "31/42", "21/43", "34/12", "13/24", "42/31"]
    found = ["/".join("".join(map(str, row)) for row in dihedral(square, number)) for number in range(NUM_DIHEDRAL)]
    assert found == expected


def test_whole_stacks_and_gathers_agree() -> None:
    rows = np.random.default_rng(0).integers(0, 6, size=(5, 16)).astype(np.uint8)
    for number, cells in enumerate(dihedral_cells(4)):
        turned = dihedral(rows.reshape(5, 4, 4), number).reshape(5, 16)
        np.testing.assert_array_equal(rows[:, cells], turned)
        np.testing.assert_array_equal(rows[:, cells][:, dihedral_cells(4)[INVERSE[number]]], rows)
