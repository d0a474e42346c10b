"""Rows of a puzzle dataset by number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.format import PuzzleDataset


class RowArrays:
    """Rows of a split by number, whichever of its sets they are in."""

    def __init__(self, dataset: PuzzleDataset) -> None:
        self.sets = dataset.sets
        self._ends = np.cumsum([part.num_rows for part in dataset.sets])
        self._identifiers = dataset.row_identifiers

    def take(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer], npt.NDArray[np.int64]]:
        """Inputs (n, C), labels (n, C) and identifiers (n,) of rows of the split."""
        if len(self.sets) == 1:
            return self.sets[0].inputs[rows], self.sets[0].labels[rows], self._identifiers[rows]
        which = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate(([0], self._ends[:-1]))
        inputs = np.empty((len(rows), self.sets[0].inputs.shape[1]), self.sets[0].inputs.dtype)
        labels = np.empty_like(inputs)
        for number, part in enumerate(self.sets):
            mask = which == number
            inputs[mask] = part.inputs[rows[mask] - starts[number]]
            labels[mask] = part.labels[rows[mask] - starts[number]]
        return inputs, labels, self._identifiers[rows]
