"""The eight symmetries of a square, for grids of any shape, numbered as in the reference implementation's datasets.

0 identity, 1 to 3 quarter turns counter-clockwise, 4 left-right, 5 upside down, 6 transpose, 7 the other diagonal. The
numbers stand in the names of ARC identifiers, so they are part of a file format.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

NUM_DIHEDRAL = 8
# Position = number of a symmetry, value = number of its inverse; only the two quarter turns differ from theirs.
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
# These make an (h, w) grid a (w, h) one.
SWAPS_SIDES = frozenset({1, 3, 6, 7})

T = TypeVar("T", bound=np.generic)


def dihedral(grids: npt.NDArray[T], number: int) -> npt.NDArray[T]:
    """Apply symmetry ``number`` (0 to 7) to the last two axes of ``grids`` (..., H, W); a view where numpy can."""
    match number:
        case 0:
            return grids
        case 1 | 2 | 3:
            return np.rot90(grids, k=number, axes=(-2, -1))
        case 4:
            return grids[..., ::-1]
        case 5:
            return grids[..., ::-1, :]
        case 6:
            return grids.swapaxes(-1, -2)
        case 7:
            return grids[..., ::-1, ::-1].swapaxes(-1, -2)
    raise ValueError(f"there are symmetries 0 to {NUM_DIHEDRAL - 1}, not {number}")


def undo_dihedral(grids: npt.NDArray[T], number: int) -> npt.NDArray[T]:
    """The exact inverse of ``dihedral(grids, number)``."""
    return dihedral(grids, INVERSE[number])


def dihedral_cells(size: int) -> npt.NDArray[np.int64]:
    """The symmetries of a square board as gathers: ``rows[:, cells[k]]`` is symmetry k of rows (n, size * size).

    Returns int64 (8, size * size).
    """
    cells = np.arange(size * size, dtype=np.int64).reshape(size, size)
    return np.stack([dihedral(cells, number).reshape(-1) for number in range(NUM_DIHEDRAL)])
