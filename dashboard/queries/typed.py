"""Puzzles that somebody typed or drew on a page: read, checked, and solved by search where rules allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.queries.solvers import Puzzle
from hrm_engine.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SEVERAL_SOLUTIONS = "This Sudoku has more than one solution: the answer is judged by the rules alone."
SEVERAL_WAYS = "This maze has more than one shortest way: only one of them is compared with the answer."


def typed_sudoku(text: str, size: int) -> Puzzle:
    """A Sudoku as text, see ``boards.parse_sudoku``, with its solution if there is just one.

    Raises:
        DataError: not a Sudoku of that size, a digit that breaks the rules, or no solution.
    """
    import numpy as np

    from hrm_engine.data.puzzles.boards import parse_sudoku
    from hrm_engine.data.puzzles.sudoku.solve import solve

    tokens = parse_sudoku(text)
    if len(tokens) != size * size:
        raise DataError(
            f"this solver takes a {size}x{size} Sudoku, {size * size} cells; the text has {len(tokens)}: shorten or "
            "complete it, or choose another solver"
        )
    found = solve(tokens[None])
    number = int(found.num_solutions[0])
    if number == 0:
        raise DataError("this Sudoku has no solution, though no two givens clash: correct one of the givens")
    is_unique = number == 1
    return Puzzle(
        inputs=tokens.astype(np.int64),
        solution=found.solutions[0].astype(np.int64) if is_unique else None,
        rating=float(found.guesses[0]) if is_unique else None,
        note="" if is_unique else SEVERAL_SOLUTIONS,
    )


def typed_maze(text: str, height: int, width: int) -> Puzzle:
    """A maze as lines of ``#`` (wall), blank (free), ``S`` and ``G``; ends of lines may be left out.

    Raises:
        DataError: another size or character, not one start and one goal, or no way between them.
    """
    import numpy as np

    from hrm_engine.data.puzzles.boards import to_tokens

    lines = text.rstrip("\n").split("\n")
    if len(lines) != height or max(map(len, lines)) > width:
        longest = max(map(len, lines))
        raise DataError(
            f"this solver takes mazes of {height} lines of {width} characters; the text has {len(lines)} lines "
            f"of up to {longest}: shorten or complete it"
        )
    for row, line in enumerate(lines, start=1):
        for column, character in enumerate(line, start=1):
            if character not in "# SG":
                raise DataError(
                    f"line {row}, column {column} is {character!r}: a maze is written with # (wall), blank (free), "
                    "S (start) and G (goal)"
                )
    tokens = to_tokens("maze", "".join(line.ljust(width) for line in lines))
    return checked_maze(tokens.astype(np.int64), height, width)


def checked_maze(tokens: npt.NDArray[np.int64], height: int, width: int) -> Puzzle:
    """A maze given as tokens (C,), with a shortest way. Raises DataError if it has no start, goal or way."""
    import numpy as np

    from hrm_engine.data.puzzles.boards import GOAL, PATH, START, WALL
    from hrm_engine.data.puzzles.maze.search import SEVERAL, breadth_first, shortest_paths

    starts, goals = np.flatnonzero(tokens == START), np.flatnonzero(tokens == GOAL)
    if len(starts) != 1 or len(goals) != 1:
        raise DataError(
            f"a maze has one start and one goal; this has {len(starts)} S and {len(goals)} G: set or remove them"
        )
    if height != width:
        return Puzzle(inputs=tokens)  # the search knows square mazes only
    search = breadth_first((tokens != WALL).reshape(1, height, width), starts)
    if search.distance[0, goals[0]] < 0:
        raise DataError("no way leads from S to G: open a wall between them")
    solution = np.where(shortest_paths(search, goals, height)[0], PATH, tokens)
    is_only = search.num_paths[0, goals[0]] < SEVERAL
    return Puzzle(
        inputs=tokens,
        solution=solution,
        rating=float(search.distance[0, goals[0]]),
        note="" if is_only else SEVERAL_WAYS,
    )
