"""Puzzles of one size with their solutions and ratings, as builders pass them on; and the report of a build."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.writer import DatasetWriter

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


@dataclass(frozen=True, eq=False, kw_only=True)
class BuildReport:
    """A built dataset of Sudokus or mazes; ratings (n,) are those of the puzzles, without their variants.

    ``num_left_out`` training puzzles were not taken, because they are test puzzles as well (generated mazes never are),
    ``num_skipped`` bad rows of files were left out, and ``num_several`` mazes of files have several shortest paths.
    """

    folder: Path
    description: str
    is_proxy: bool
    num_train_rows: int
    train_ratings: npt.NDArray[np.int64]
    test_ratings: npt.NDArray[np.int64]
    seconds: float
    num_left_out: int = 0
    num_several: int = 0
    num_skipped: int = 0
    messages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, writer: DatasetWriter, begun: float, **counts: int) -> BuildReport:
        """The report of what was written since ``begun``, by the monotonic clock."""
        return cls(
            folder=writer.folder,
            description=writer.about.description,
            is_proxy=writer.about.is_proxy,
            num_train_rows=writer.split("train").num_rows,
            train_ratings=writer.group_ratings("train"),
            test_ratings=writer.group_ratings("test"),
            seconds=time.monotonic() - begun,
            **counts,
        )
