"""Symmetries of boards as arrays, and the views of a board that several starts of a solver look at.

Shapes: n boards, S cells, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Symmetries:
    """One symmetry for each of n boards: a board t becomes ``digits[t[cells]]``.

    ``cells`` int64 (n, S): from which old cell each new cell is filled. ``digits`` uint8 (n, V): the new token of each
    old one; None if tokens stay.
    """

    cells: npt.NDArray[np.int64]
    digits: npt.NDArray[np.uint8] | None = None

    def __getitem__(self, rows: Rows) -> Symmetries:
        return Symmetries(self.cells[rows], None if self.digits is None else self.digits[rows])

    def apply(self, tokens: Rows) -> npt.NDArray[Any]:
        """Boards (n, S) under their symmetries; uint8 if tokens change, else of their own type."""
        moved = np.take_along_axis(tokens, self.cells, axis=1)
        return moved if self.digits is None else np.take_along_axis(self.digits, moved.astype(np.intp), axis=1)

    def inverse(self) -> Symmetries:
        """The symmetries that undo these."""
        digits = None if self.digits is None else np.argsort(self.digits, axis=1).astype(np.uint8)
        return Symmetries(np.argsort(self.cells, axis=1), digits)


class Views:
    """Views of a board, one for each start; view 0 is the board as it is, and so are all others of this class."""

    def look(self, boards: Rows, identifiers: Numbers, starts: Numbers) -> tuple[Rows, Numbers]:
        """Boards (n, S) and identifiers (n,) as the starts (n,) see them."""
        return boards, identifiers

    def undo(self, answers: Rows, identifiers: Numbers, starts: Numbers) -> Rows:
        """Answers (n, S) of those starts as answers to the boards as they are."""
        return answers


class SymmetricViews(Views):
    """Each start sees the board under a symmetry of its own."""

    def __init__(self, symmetries: Symmetries) -> None:
        self._symmetries, self._inverses = symmetries, symmetries.inverse()

    def look(self, boards: Rows, identifiers: Numbers, starts: Numbers) -> tuple[Rows, Numbers]:
        return self._symmetries[starts].apply(boards), identifiers

    def undo(self, answers: Rows, identifiers: Numbers, starts: Numbers) -> Rows:
        return self._inverses[starts].apply(answers)
