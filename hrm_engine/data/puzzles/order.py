"""Order of the puzzles: a pure function of (seed, row number), so that a resumed run sees the same rows.

An epoch visits every group once, in an order keyed by (seed, epoch), and takes one of the group's variants: all rows of
one puzzle of it, in random order. That is the rule of the reference implementation; here no row is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.data.random import permutation, row_words

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """Rows of one epoch: its number, the number of the first of them in the run, and which rows of the split."""

    number: int
    start: int
    rows: IntArray

    @property
    def end(self) -> int:
        """Number of the first row of the next epoch."""
        return self.start + len(self.rows)


class PuzzleOrder:
    """The endless sequence of rows that a run visits; rows are numbered from 0 over all epochs.

    Epochs can differ in length where the variants of a group do, so the place of a row depends on the epochs before.
    :meth:`seek` takes up at an epoch whose beginning is known.
    """

    def __init__(self, dataset: PuzzleDataset, *, seed: int) -> None:
        self.seed = seed
        puzzle_starts, puzzle_sizes, group_starts, group_sizes = [], [], [], []
        num_rows = num_puzzles = 0
        for part in dataset.sets:
            puzzle_starts.append(num_rows + part.puzzle_indices[:-1])
            puzzle_sizes.append(np.diff(part.puzzle_indices))
            group_starts.append(num_puzzles + part.group_indices[:-1])
            group_sizes.append(np.diff(part.group_indices))
            num_rows += part.num_rows
            num_puzzles += part.num_puzzles
        self._puzzle_starts, self._puzzle_sizes = np.concatenate(puzzle_starts), np.concatenate(puzzle_sizes)
        self._group_starts, self._group_sizes = np.concatenate(group_starts), np.concatenate(group_sizes)
        self._epochs: list[Epoch] = []
        self.seek(0, 0)

    def seek(self, epoch: int, start: int) -> None:
        """Take up at ``epoch``, whose first row has the number ``start`` in the run."""
        self._epochs = [self._make(epoch, start)]

    def epoch_of(self, row: int) -> Epoch:
        """The epoch that row number ``row`` of the run belongs to.

        Raises:
            ValueError: the row lies before what :meth:`forget_before` has kept.
        """
        if row < self._epochs[0].start:
            raise ValueError(f"row {row} lies before epoch {self._epochs[0].number}")
        self._reach(row + 1)
        return next(epoch for epoch in self._epochs if row < epoch.end)

    def rows(self, first: int, count: int) -> IntArray:
        """Rows of the split for the row numbers ``first`` up to ``first + count``."""
        self._reach(first + count)
        needed = [epoch for epoch in self._epochs if epoch.end > first and epoch.start < first + count]
        skipped = first - needed[0].start
        return np.concatenate([epoch.rows for epoch in needed])[skipped : skipped + count]

    def forget_before(self, row: int) -> None:
        """Drop the epochs that end before row number ``row``: they are not needed again."""
        self._epochs = [epoch for epoch in self._epochs if epoch.end > row] or self._epochs[-1:]

    def _reach(self, end: int) -> None:
        while self._epochs[-1].end < end:
            self._epochs.append(self._make(self._epochs[-1].number + 1, self._epochs[-1].end))

    def _make(self, number: int, start: int) -> Epoch:
        groups = permutation(self.seed, "order", number, len(self._group_starts))
        words = row_words(self.seed, f"variant-{number}", groups, 1)[:, 0]
        variants = words % self._group_sizes[groups].astype(np.uint64)
        puzzles = self._group_starts[groups] + variants.astype(np.int64)
        sizes = self._puzzle_sizes[puzzles]
        place = np.repeat(np.arange(len(puzzles)), sizes)
        within = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = self._puzzle_starts[puzzles][place] + within
        if sizes.max(initial=1) > 1:
            rows = rows[np.lexsort((row_words(self.seed, f"example-{number}", rows, 1)[:, 0], place))]
        return Epoch(number, start, rows.astype(np.int64))
