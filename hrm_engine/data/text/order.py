"""Order of the rows: a pure function of (seed, settings, rows consumed)."""

from __future__ import annotations

import numpy as np

from hrm_engine.data.random import permutation
from hrm_engine.errors import DataError


class RowOrder:
    """The endless sequence of row numbers that a run visits.

    The row at global position ``p = start_offset + rows consumed`` belongs to epoch ``p // num_rows``. Linear order
    takes row ``p % num_rows``; otherwise each epoch visits every row once, in a permutation keyed by (seed, epoch).
    """

    def __init__(self, num_rows: int, *, seed: int, linear: bool = True, start_offset: int = 0) -> None:
        if num_rows < 1:
            raise DataError(f"The dataset has {num_rows} rows; at least one is needed.")
        if start_offset < 0:
            raise DataError(f"--dataset-start-offset {start_offset}: rows are counted from 0.")
        self.num_rows = num_rows
        self.seed = seed
        self.linear = linear
        self.start_offset = start_offset
        self._epoch = -1  # a cache of one permutation: `indices` stays a function of its arguments
        self._permutation = np.empty(0, dtype=np.int64)

    def indices(self, position: int, count: int) -> np.ndarray:
        """Row numbers (int64, shape (count,)) for the ``count`` rows after ``position`` consumed ones."""
        if position < 0 or count < 0:
            raise ValueError(f"position {position} and count {count} must not be negative")
        places = self.start_offset + position + np.arange(count, dtype=np.int64)
        if self.linear:
            return places % self.num_rows
        rows = np.empty(count, dtype=np.int64)
        epochs = places // self.num_rows
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rows[inside] = self._of_epoch(int(epoch))[places[inside] % self.num_rows]
        return rows

    def epoch(self, position: int) -> int:
        """The epoch (from 0) to which the next row after ``position`` consumed ones belongs."""
        return (self.start_offset + position) // self.num_rows

    def _of_epoch(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._permutation = permutation(self.seed, "order", epoch, self.num_rows)
            self._epoch = epoch
        return self._permutation
