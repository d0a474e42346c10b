"""Breadth-first search through many mazes at once.

Mazes are bool arrays (n, N, N), True where one can walk; steps go up, down, left and right. Inside, cells are numbered
on a board with one row or column of wall on every side, and the maze is the *last* axis: a step in any direction is
then a shift of whole contiguous blocks, for all mazes together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

# Counting stops here: one shortest path or several is all that matters.
SEVERAL = 2

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Search:
    """Result of a search from each maze's start.

    ``distance``: int16 (n, N * N), steps from the start, -1 where it cannot be reached. ``num_paths``: uint8
    (n, N * N), how many shortest paths lead there: 0, 1, or 2 for several.
    """

    distance: npt.NDArray[np.int16]
    num_paths: npt.NDArray[np.uint8]


def breadth_first(walkable: npt.NDArray[np.bool_], starts: npt.NDArray[np.integer[Any]]) -> Search:
    """Distances and numbers of shortest paths from one start cell (n,) of each maze (n, N, N)."""
    num, size = len(walkable), walkable.shape[-1]
    width = size + 2
    unseen = np.zeros((width * width, num), dtype=bool)
    unseen.reshape(width, width, num)[1:-1, 1:-1] = walkable.transpose(1, 2, 0)
    cells = (starts // size + 1) * width + starts % size + 1
    mazes = np.arange(num)
    # Paths that end in a cell reached in the last step; zero everywhere else.
    frontier = np.zeros((width * width, num), dtype=np.uint8)
    frontier[cells, mazes] = 1
    unseen[cells, mazes] = False
    num_paths = frontier.copy()
    distance = np.where(frontier, 0, -1).astype(np.int16)
    steps = 0
    inner = slice(width, width * (width - 1))
    while frontier.any():
        steps += 1
        following = np.zeros_like(frontier)
        following[inner] = frontier[: -2 * width] + frontier[2 * width :]
        following[inner] += frontier[width - 1 : -width - 1]
        following[inner] += frontier[width + 1 : width * (width - 1) + 1]
        following *= unseen
        np.minimum(following, SEVERAL, out=following)
        reached = following > 0
        unseen[reached] = False
        distance[reached] = steps
        num_paths += following
        frontier = following
    return Search(_unpadded(distance, size), _unpadded(num_paths, size))


def shortest_paths(search: Search, goals: npt.NDArray[np.integer[Any]], size: int) -> npt.NDArray[np.bool_]:
    """The cells between start and goal (n,) on a shortest path, bool (n, N * N), without start and goal.

    Where there are several shortest paths, it is the one that prefers, from the goal backwards, the step up, then left,
    right, down. Every goal must have been reached.
    """
    num, width = len(goals), size + 2
    mazes = np.arange(num)
    distance = np.full((num, width * width), -1, dtype=np.int16)
    inner = distance.reshape(num, width, width)[:, 1:-1, 1:-1]
    inner[:] = search.distance.reshape(num, size, size)
    around = np.array([-width, -1, 1, width])
    cells = (goals // size + 1) * width + goals % size + 1
    left = distance[mazes, cells].astype(np.int64)
    on_path = np.zeros((num, width * width), dtype=bool)
    while np.any(left > 1):
        walking = mazes[left > 1]
        left[walking] -= 1
        neighbours = cells[walking, None] + around
        earlier = distance[walking[:, None], neighbours] == left[walking, None]
        cells[walking] = neighbours[np.arange(len(walking)), earlier.argmax(axis=1)]
        on_path[walking, cells[walking]] = True
    return np.ascontiguousarray(on_path.reshape(num, width, width)[:, 1:-1, 1:-1]).reshape(num, -1)


def _unpadded(values: npt.NDArray[T], size: int) -> npt.NDArray[T]:
    inner = values.reshape(size + 2, size + 2, -1)[1:-1, 1:-1]
    return np.ascontiguousarray(inner.reshape(size * size, -1).T)
