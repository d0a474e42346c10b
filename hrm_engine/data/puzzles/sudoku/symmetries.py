"""The symmetries of Sudoku: what maps valid grids to valid grids and puzzles with one solution to such puzzles.

Any relabelling of the digits, any order of the bands, of the rows within a band, of the stacks, of the columns within a
stack, and, where boxes are square (4x4 and 9x9, not 6x6), the transpose. A symmetry is drawn for a *row number* of a
data stream, so that row r of seed s always meets the same one, whatever was drawn before it.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.sudoku.rules import BOX_SHAPES
from hrm_engine.data.puzzles.symmetries import Rows, Symmetries
from hrm_engine.data.random import row_words


def draw(size: int, *, seed: int, row_numbers: Rows, name: str = "sudoku-symmetry") -> Symmetries:
    """One symmetry for each row number (n,), all of them equally likely; ``name`` separates purposes."""
    row_orders, column_orders, digit_orders = line_orders(size, 0), line_orders(size, 1), relabellings(size)
    word = row_words(seed, name, row_numbers, 1)[:, 0]
    # One word holds all choices: there are at most 1296 * 1296 * 2 * 362880 = 1.2e12 symmetries.
    word, row_order = np.divmod(word, np.uint64(len(row_orders)))
    word, column_order = np.divmod(word, np.uint64(len(column_orders)))
    word, digit_order = np.divmod(word, np.uint64(len(digit_orders)))
    by_row = row_orders[row_order.astype(np.intp)]
    by_column = column_orders[column_order.astype(np.intp)]
    cells = by_row[:, :, None] * size + by_column[:, None, :]
    if is_transposable(size):
        cells = np.where((word & np.uint64(1)).astype(bool)[:, None, None], cells.transpose(0, 2, 1), cells)
    return Symmetries(cells.reshape(len(word), size * size), digit_orders[digit_order.astype(np.intp)])


def is_transposable(size: int) -> bool:
    """Whether the transpose keeps the boxes: only square ones are boxes again."""
    height, width = BOX_SHAPES[size]
    return height == width


@cache
def line_orders(size: int, axis: int) -> npt.NDArray[np.int64]:
    """Every order of the rows (axis 0) or columns (axis 1) that keeps bands or stacks together, (orders, size)."""
    thickness = BOX_SHAPES[size][axis]
    orders = [
        [line for group, inner in zip(groups, inners, strict=True) for line in (group * thickness + i for i in inner)]
        for groups in itertools.permutations(range(size // thickness))
        for inners in itertools.product(itertools.permutations(range(thickness)), repeat=size // thickness)
    ]
    return np.array(orders, dtype=np.int64)


@cache
def relabellings(size: int) -> npt.NDArray[np.uint8]:
    """Every relabelling as a map of tokens, (size!, size + 2); 362,880 of them for size 9, 4 MB."""
    orders = np.zeros((1, 0), dtype=np.uint8)
    for digit in range(size):  # put the next digit at each of the places between those that stand already
        places = [np.insert(orders, place, digit, axis=1) for place in range(digit + 1)]
        orders = np.concatenate(places)
    kept = np.tile(np.array([0, 1], dtype=np.uint8), (len(orders), 1))
    return np.concatenate([kept, orders + np.uint8(2)], axis=1)
