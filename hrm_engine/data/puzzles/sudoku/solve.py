"""Solve Sudokus exactly: the solution, whether it is the only one, and how many guesses the search needs.

The number of guesses is the difficulty rating, in the sense of the published CSV's ``rating`` column: 0 for a puzzle
that naked and hidden singles solve, else the digits tried, wrong ones included, until no other solution is possible.
Other solvers reason more or less before they guess, so their numbers are larger or smaller for the same puzzle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.sudoku.rules import BLANK, sudoku_size

Rows = npt.NDArray[np.integer[Any]]
ENOUGH = 2


@dataclass(frozen=True, eq=False)
class Solved:
    """Results of the search for n puzzles.

    ``solutions`` uint8 (n, S) tokens, the first one found; all padding where there is none. ``num_solutions`` (n,):
    0, 1, or 2 for "more than one". ``guesses`` (n,): the rating; where there are several solutions, up to the second.
    """

    solutions: npt.NDArray[np.uint8]
    num_solutions: npt.NDArray[np.int64]
    guesses: npt.NDArray[np.int64]


def solve(inputs: Rows) -> Solved:
    """Solve puzzles given as tokens (n, S); a blank is token 1.

    Raises:
        DataError: the boards do not have the cells of a Sudoku.
        ValueError: a token is neither blank nor a digit of this size.
    """
    from hrm_engine.data.puzzles.sudoku.search import board_arrays, count_solutions

    size = sudoku_size(inputs.shape[1])
    if inputs.size and (inputs.min() < BLANK or inputs.max() > size + BLANK):
        span = f"{inputs.min()} to {inputs.max()}"
        raise ValueError(f"tokens {span}: those of a {size}x{size} Sudoku are 1 to {size + 1}")
    boards = np.ascontiguousarray(inputs, dtype=np.uint8) - np.uint8(BLANK)
    solutions = np.zeros_like(boards)
    counts = np.zeros(len(boards), dtype=np.int64)
    guesses = np.zeros(len(boards), dtype=np.int64)
    count_solutions(boards, ENOUGH, *board_arrays(size), solutions, counts, guesses)
    solutions[counts > 0] += np.uint8(BLANK)
    return Solved(solutions, counts, guesses)
