"""Mazes as a kind of board. Tokens: 0 padding, then ``# SGo`` (wall, free, start, goal, path) from 1."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.board import Board, Puzzle, Tokens
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.maze.search import SEVERAL, breadth_first, shortest_paths
from hrm_engine.data.puzzles.symmetries import Numbers, Symmetries
from hrm_engine.data.random import row_words
from hrm_engine.errors import ConfigError, DataError

WALL, FREE, START, GOAL, PATH = 1, 2, 3, 4, 5
VOCAB_SIZE = 6
SEVERAL_WAYS = "this maze has more than one shortest way: only one of them is compared with the answer"


class Maze(Board):
    """Walls, free cells, a start, a goal and the path between them.

    Valid: nothing changed but free cells into path cells, and these lead from start to goal, neighbour by neighbour,
    with none left over: within the marked cells the shortest way uses all of them. It need not be the shortest way of
    the maze.
    """

    kind = title = "maze"
    flag = "--maze"
    characters = "?# SGo"
    hint = "# wall, blank free, S start, G goal"
    cell_names = ("padding", "wall", "free", "start", "goal", "way")
    colours = MappingProxyType({WALL: "#303030", FREE: "#f5f5f5", START: "#2ecc40", GOAL: "#ff4136", PATH: "#0074d9"})
    has_cell_lines = False  # they would fill a maze of small cells: there the colours alone show the cells
    has_rules = has_symmetries = True
    rating_unit = " steps"

    def fits(self, vocab_size: int, num_cells: int) -> bool:
        return vocab_size == VOCAB_SIZE and math.isqrt(num_cells) ** 2 == num_cells

    def read(self, text: str, height: int, width: int) -> Puzzle:
        """Lines of ``#`` (wall), blank (free), ``S`` and ``G``; blanks at the ends of lines may be left out."""
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
        tokens = self.to_tokens("".join(line.ljust(width) for line in lines))
        return check_maze(tokens.astype(np.int64), height, width)

    def _are_valid(self, inputs: Tokens, predictions: Tokens) -> npt.NDArray[np.bool_]:
        size = math.isqrt(inputs.shape[1])
        if size * size != inputs.shape[1]:
            return np.zeros(len(inputs), dtype=bool)
        is_start, is_goal = inputs == START, inputs == GOAL
        marked = (predictions == PATH) & ((inputs == FREE) | (inputs == PATH))
        as_given = np.where(inputs == PATH, FREE, inputs)  # an input that shows its path is the maze without it
        kept = (is_start.sum(1) == 1) & (is_goal.sum(1) == 1) & np.all(marked | (predictions == as_given), axis=1)
        # Among the marked cells the goal must be the last cell that is reached, at the greatest distance.
        search = breadth_first((marked | is_start | is_goal).reshape(-1, size, size), is_start.argmax(1))
        is_way = search.distance[np.arange(len(inputs)), is_goal.argmax(1)] == marked.sum(1) + 1
        return np.asarray(kept & is_way, dtype=bool)

    def symmetries(self, size: int, *, seed: int, row_numbers: Numbers) -> Symmetries:
        """Rotations and reflections."""
        numbers = row_words(seed, "dihedral", row_numbers, 1)[:, 0] % np.uint64(NUM_DIHEDRAL)
        return Symmetries(dihedral_cells(size)[numbers.astype(np.intp)])

    def distinct_symmetries(self, size: int, count: int, vocab_size: int) -> Symmetries:
        """The first rotations and reflections."""
        if count > NUM_DIHEDRAL:
            raise ConfigError(
                f"{count} starts, restarts included: a maze has {NUM_DIHEDRAL} symmetries; ask for fewer starts, or "
                "for starts from noise"
            )
        return Symmetries(dihedral_cells(size)[:count])


def check_maze(tokens: npt.NDArray[np.int64], height: int, width: int) -> Puzzle:
    """A maze given as tokens (S,), with a shortest way. Raises DataError if it has no start, goal or way."""
    starts, goals = np.flatnonzero(tokens == START), np.flatnonzero(tokens == GOAL)
    if len(starts) != 1 or len(goals) != 1:
        raise DataError(
            f"a maze has one start and one goal; this has {len(starts)} S and {len(goals)} G: set or remove them"
        )
    if height != width:
        return Puzzle(tokens)  # the search knows square mazes only
    search = breadth_first((tokens != WALL).reshape(1, height, width), starts)
    distance = float(search.distance[0, goals[0]])
    if distance < 0:
        raise DataError("no way leads from S to G: open a wall between them")
    solution = np.where(shortest_paths(search, goals, height)[0], PATH, tokens)
    return Puzzle(tokens, solution, distance, "" if search.num_paths[0, goals[0]] < SEVERAL else SEVERAL_WAYS)
