"""Boards that somebody typed or drew: read, checked, and solved by search where the rules allow it.

What has no solution is refused here, before a model thinks about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.boards import GOAL, PATH, START, WALL, parse_sudoku, sudoku_size, to_tokens
from hrm_engine.data.puzzles.maze.search import SEVERAL, breadth_first, shortest_paths
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.errors import DataError

SEVERAL_SOLUTIONS = "this Sudoku has more than one solution: the answer is judged by the rules alone"
SEVERAL_WAYS = "this maze has more than one shortest way: only one of them is compared with the answer"


@dataclass(frozen=True, eq=False)
class Board:
    """One board and what the search found about it."""

    inputs: npt.NDArray[np.int64]
    """(C,) tokens."""
    solution: npt.NDArray[np.int64] | None = None
    """(C,) tokens; None where there are several, or where the search does not know this shape."""
    rating: float | None = None
    """Sudoku: guesses of the search; maze: steps from start to goal; None where there is no solution."""
    warning: str = ""


def read_sudoku(text: str, size: int) -> Board:
    """A Sudoku as text, see :func:`~hrm_engine.data.puzzles.boards.parse_sudoku`, with its solution if there is one.

    Raises:
        DataError: not a Sudoku of that size, a digit that breaks the rules, or no solution.
    """
    tokens = parse_sudoku(text)
    side = sudoku_size(len(tokens))
    if side != size:
        raise DataError(
            f"this is a {side}x{side} Sudoku of {len(tokens)} cells; the solver takes {size}x{size}, {size * size} "
            "cells: shorten or complete the text, or choose another solver"
        )
    found = solve(tokens[None])
    inputs = tokens.astype(np.int64)
    if not found.num_solutions[0]:
        raise DataError("this Sudoku has no solution, though no two givens clash: correct one of the givens")
    if found.num_solutions[0] > 1:
        return Board(inputs, warning=SEVERAL_SOLUTIONS)
    return Board(inputs, found.solutions[0].astype(np.int64), float(found.guesses[0]))


def read_maze(text: str, height: int, width: int) -> Board:
    """A maze as lines of ``#`` (wall), blank (free), ``S`` and ``G``; blanks at the ends of lines may be left out.

    Raises:
        DataError: another size or character, not one start and one goal, or no way between them.
    """
    lines = text.rstrip("\n").split("\n")
    longest = max(map(len, lines))
    if len(lines) != height or longest > width:
        raise DataError(
            f"the solver takes mazes of {height} lines of {width} characters; this has {len(lines)} lines of up to "
            f"{longest}: shorten or complete it"
        )
    for row, line in enumerate(lines, start=1):
        for column, character in enumerate(line, start=1):
            if character not in "# SG":
                raise DataError(
                    f"line {row}, column {column} is {character!r}: a maze is written with # (wall), blank (free), "
                    "S (start) and G (goal)"
                )
    tokens = to_tokens("maze", "".join(line.ljust(width) for line in lines))
    return check_maze(tokens.astype(np.int64), height, width)


def check_maze(tokens: npt.NDArray[np.int64], height: int, width: int) -> Board:
    """A maze given as tokens (C,), with a shortest way. Raises DataError if it has no start, goal or way."""
    starts, goals = np.flatnonzero(tokens == START), np.flatnonzero(tokens == GOAL)
    if len(starts) != 1 or len(goals) != 1:
        raise DataError(
            f"a maze has one start and one goal; this has {len(starts)} S and {len(goals)} G: set or remove them"
        )
    if height != width:
        return Board(tokens)  # the search knows square mazes only
    search = breadth_first((tokens != WALL).reshape(1, height, width), starts)
    distance = float(search.distance[0, goals[0]])
    if distance < 0:
        raise DataError("no way leads from S to G: open a wall between them")
    solution = np.where(shortest_paths(search, goals, height)[0], PATH, tokens)
    return Board(tokens, solution, distance, "" if search.num_paths[0, goals[0]] < SEVERAL else SEVERAL_WAYS)
