"""The rules of Sudoku as arrays. Tokens: 0 padding, 1 blank, digit + 1."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.errors import DataError

BLANK = 1
# Height and width of a box.
BOX_SHAPES: dict[int, tuple[int, int]] = {4: (2, 2), 6: (2, 3), 9: (3, 3)}


def sudoku_size(num_cells: int) -> int:
    """The size (4, 6 or 9) of a Sudoku of that many cells. Raises DataError for any other number."""
    size = math.isqrt(num_cells)
    if size not in BOX_SHAPES or size * size != num_cells:
        raise DataError(f"a Sudoku has 16, 36 or 81 cells (4x4, 6x6, 9x9), not {num_cells}")
    return size


@cache
def units(size: int) -> npt.NDArray[np.int64]:
    """Cells of every row, column and box of a Sudoku, shape (3 * size, size), rows first; read-only."""
    height, width = BOX_SHAPES[size]
    cells = np.arange(size * size).reshape(size, size)
    boxes = cells.reshape(size // height, height, size // width, width).transpose(0, 2, 1, 3).reshape(size, size)
    groups = np.concatenate([cells, cells.T, boxes])
    groups.setflags(write=False)
    return groups


def conflicts(tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Which cells of a Sudoku, bool (S,), hold a digit that stands again in their row, column or box."""
    clashing = np.zeros(len(tokens), dtype=bool)
    for unit in units(sudoku_size(len(tokens))):
        values = np.asarray(tokens)[unit]
        same = (values[:, None] == values[None, :]) & (values > BLANK)
        clashing[unit[same.sum(axis=1) > 1]] = True
    return clashing
