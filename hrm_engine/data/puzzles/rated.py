"""Puzzles of one size with their solutions and ratings, as builders pass them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, int], None]
"""Called with the number that is done and the number of all."""


@dataclass(frozen=True, eq=False)
class Puzzles:
    """n puzzles: inputs and labels uint8 (n, S) tokens; ratings int64 (n,): guesses of a Sudoku, steps of a maze."""

    inputs: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    ratings: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Puzzles:
        return Puzzles(self.inputs[rows], self.labels[rows], self.ratings[rows])

    @staticmethod
    def joined(parts: Sequence[Puzzles]) -> Puzzles:
        """All of them, one after the other."""
        inputs, labels, ratings = zip(*((part.inputs, part.labels, part.ratings) for part in parts), strict=True)
        return Puzzles(np.concatenate(inputs), np.concatenate(labels), np.concatenate(ratings))
