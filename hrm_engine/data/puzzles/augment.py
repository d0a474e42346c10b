"""Fresh symmetries of whole boards, drawn as rows are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.sudoku import symmetries
from hrm_engine.data.random import row_words
from hrm_engine.errors import ConfigError

Rows = npt.NDArray[np.integer[Any]]


def augment(
    about: About, inputs: Rows, labels: Rows, *, seed: int, row_numbers: npt.NDArray[np.int64]
) -> tuple[Rows, Rows]:
    """Inputs and labels (n, S), each pair under one symmetry that depends on seed and row number alone.

    Sudoku: all that keep a puzzle a puzzle. Maze: rotations and reflections.

    Raises:
        ConfigError: boards of a kind whose symmetries are not known.
    """
    check_symmetries(about)
    if about.kind == "sudoku":
        return symmetries.augment(inputs, labels, size=about.height, seed=seed, row_numbers=row_numbers)
    which = row_words(seed, "dihedral", row_numbers, 1)[:, 0] % np.uint64(NUM_DIHEDRAL)
    cells = dihedral_cells(about.height)[which.astype(np.intp)]
    return np.take_along_axis(inputs, cells, axis=1), np.take_along_axis(labels, cells, axis=1)


def check_symmetries(about: About) -> None:
    """Raise ConfigError where symmetries cannot be drawn for such boards."""
    if about.kind not in ("sudoku", "maze") or about.height != about.width:
        raise ConfigError(
            f"--symmetries are known for Sudoku and square mazes, not for {about.kind} boards of {about.height} x "
            f"{about.width}; leave it out (ARC datasets are augmented when they are built)"
        )
