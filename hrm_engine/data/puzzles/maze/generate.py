"""Mazes with exactly one shortest path, many at a time, as a function of a seed.

A maze grows like a depth-first search: from the newest open cell a neighbour is opened that touches no other open
cell, so that the open cells form a tree, with corridors one cell wide, for any size of the board. A random share of
steps (drawn for each maze) continues from an older cell instead, which makes shorter corridors and more branches. Then
some walls between corridors are opened (``loops``), so that ways differ in length and "shortest" says something.

Start and goal are drawn from the open cells; the goal among those that have at least ``min_path`` steps to the start
and *one* shortest path from it: a maze whose every candidate has several is thrown away, so a label is never one of
several right answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.dihedral import dihedral_cells
from hrm_engine.data.puzzles.maze.board import FREE, GOAL, PATH, START, WALL
from hrm_engine.data.puzzles.maze.search import breadth_first, shortest_paths
from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.random import stream
from hrm_engine.errors import ConfigError, DataError

SMALLEST, LARGEST = 4, 100
# Part of what a seed means: mazes are drawn in batches of this many.
_BATCH = 512
_MOST_BRANCHING = 0.2
# Batches in a row without a new maze after which there are none to be expected.
_PATIENCE = 8


@dataclass(frozen=True, kw_only=True)
class MazeSettings:
    """Settings of the mazes to draw.

    ``size``: cells a side. ``min_path``: least number of steps from start to goal. ``loops``: share, 0 to 1, of the
    walls between corridors that are opened. Raises ConfigError for a value out of its range.
    """

    size: int
    min_path: int
    loops: float
    seed: int

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise ConfigError(f"--size {self.size}: mazes of {SMALLEST} to {LARGEST} cells a side can be made")
        if not 0 <= self.loops <= 1:
            raise ConfigError(f"--loops {self.loops}: give a share from 0 to 1")
        if self.min_path < 1:
            raise ConfigError(f"--min-path {self.min_path}: a path has at least 1 step")


def generate_mazes(
    settings: MazeSettings, *, count: int, name: str, seen: set[bytes], progress: Progress | None = None
) -> Puzzles:
    """``count`` mazes, none a rotation or reflection of another one or of one already ``seen``.

    Args:
        name: of the random stream ("train", "test"), so that one set does not depend on the size of the other.
        seen: keys (``canonical_keys``) of mazes to leave out; the keys of the new ones are added to it.
        progress: called with the number of mazes found and ``count``.

    Raises:
        DataError: mazes of this size with this path length are too rare, or all have been drawn.
    """
    parts: list[Puzzles] = []
    num, num_drawn, longest, idle = 0, 0, 0, 0
    for mazes, longest_now in _batches(settings, name):
        new: list[int] = []
        for position, key in enumerate(canonical_keys(mazes.inputs)):
            if key not in seen and num + len(new) < count:
                seen.add(key)
                new.append(position)
        parts.append(mazes[np.array(new, dtype=np.int64)])
        num, num_drawn, longest = num + len(new), num_drawn + _BATCH, max(longest, longest_now)
        if progress is not None:
            progress(num, count)
        if num == count:
            break
        idle = 0 if new else idle + 1
        if idle == _PATIENCE:
            raise DataError(
                f"{num} of {count} mazes found, and no new one among the last {_PATIENCE * _BATCH} of {num_drawn} "
                f"drawn: for --size {settings.size} choose a smaller --min-path than {settings.min_path} (the longest "
                f"path seen was {longest}), a smaller --count or other --loops"
            )
    return Puzzles.joined(parts)


def canonical_keys(inputs: npt.NDArray[np.uint8]) -> list[bytes]:
    """One key a row (n, N * N), equal for mazes that are rotations or reflections of each other."""
    size = math.isqrt(inputs.shape[1])
    variants = [inputs[:, cells] for cells in dihedral_cells(size)]
    return [min(rows) for rows in zip(*([row.tobytes() for row in variant] for variant in variants), strict=True)]


def _batches(settings: MazeSettings, name: str) -> Iterator[tuple[Puzzles, int]]:
    """Batches without end: mazes that fulfil ``min_path``, and the longest unique shortest path seen among all."""
    batch = 0
    while True:
        bits = stream(settings.seed, f"maze/{name}/{settings.size}", batch).bit_generator
        walkable = _grown(settings.size, bits)
        walkable |= _joints(walkable) & (_uniform(bits, walkable.shape) < settings.loops)
        yield _with_ends(walkable, bits, settings.min_path)
        batch += 1


def _with_ends(walkable: npt.NDArray[np.bool_], bits: np.random.BitGenerator, min_path: int) -> tuple[Puzzles, int]:
    num, size = len(walkable), walkable.shape[-1]
    flat = walkable.reshape(num, -1)
    starts = _chosen(flat, bits)
    search = breadth_first(walkable, starts)
    longest = _longest(search.distance, search.num_paths)
    # A cell farthest from a random one lies at the end of long paths: the second chance of a maze whose first start
    # has no goal far enough.
    far = np.flatnonzero(longest < min_path)
    if far.size:
        starts[far] = search.distance[far].argmax(axis=1)
        again = breadth_first(walkable[far], starts[far])
        search.distance[far], search.num_paths[far] = again.distance, again.num_paths
        longest[far] = _longest(again.distance, again.num_paths)
    candidates = (search.distance >= min_path) & (search.num_paths == 1)
    good = np.flatnonzero(candidates.any(axis=1))
    goals = _chosen(candidates, bits)
    paths = shortest_paths(search, goals, size)[good]
    inputs = np.where(flat, FREE, WALL).astype(np.uint8)[good]
    rows = np.arange(len(good))
    inputs[rows, starts[good]] = START
    inputs[rows, goals[good]] = GOAL
    labels = np.where(paths, np.uint8(PATH), inputs)
    return Puzzles(inputs, labels, search.distance[good, goals[good]].astype(np.int64)), int(longest.max())


def _grown(size: int, bits: np.random.BitGenerator) -> npt.NDArray[np.bool_]:
    """Open cells of ``_BATCH`` trees, bool (n, size, size)."""
    width = size + 2
    mazes = np.arange(_BATCH)
    around = np.array([-width, -1, 1, width])
    # Number of open neighbours of a cell; 8 more for an open cell and for the frame: only a 1 can be opened.
    state = np.full((_BATCH, width * width), 8, dtype=np.uint8)
    state.reshape(_BATCH, width, width)[:, 1:-1, 1:-1] = 0
    first = _below(bits, size * size, _BATCH)
    stack = np.zeros((_BATCH, size * size), dtype=np.int64)
    stack[:, 0] = (first // size + 1) * width + first % size + 1
    state[mazes, stack[:, 0]] += 8
    state[mazes[:, None], stack[:, :1] + around] += 1
    depth = np.ones(_BATCH, dtype=np.int64)
    branching = _uniform(bits, (_BATCH,)) * _MOST_BRANCHING
    while len(growing := np.flatnonzero(depth)):
        top = depth[growing] - 1
        # Continue from an older cell now and then: it changes places with the newest one.
        older = np.where(
            _uniform(bits, growing.shape) < branching[growing], _below(bits, 1 << 30, len(growing)) % (top + 1), top
        )
        cell = stack[growing, older]
        stack[growing, older] = stack[growing, top]
        stack[growing, top] = cell
        neighbours = cell[:, None] + around
        possible = state[growing[:, None], neighbours] == 1
        preference = _below(bits, 1 << 16, possible.size).reshape(possible.shape) + 1
        step = np.where(possible, preference, 0).argmax(axis=1)
        moves = possible.any(axis=1)
        depth[growing] = np.where(moves, top + 2, top)
        going = growing[moves]
        opened = neighbours[np.arange(len(growing)), step][moves]
        stack[going, depth[going] - 1] = opened
        state[going, opened] += 8
        state[going[:, None], opened[:, None] + around] += 1
    open_cells = (state >= 8).reshape(_BATCH, width, width)[:, 1:-1, 1:-1]
    return np.ascontiguousarray(open_cells)


def _joints(walkable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Walls with two or more open neighbours: opening one joins corridors."""
    around = np.pad(walkable, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    neighbours = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
    return ~walkable & (neighbours >= 2)


def _longest(distance: npt.NDArray[np.int16], num_paths: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    longest: npt.NDArray[np.int64] = np.where(num_paths == 1, distance, 0).max(axis=1).astype(np.int64)
    return longest


# Everything is drawn from a bit generator's raw output: numpy promises those bits for ever, but not what its own
# distributions make of them, and the same seed must give the same mazes under the next numpy as well.


def _uniform(bits: np.random.BitGenerator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    raw = np.asarray(bits.random_raw(math.prod(shape)), dtype=np.uint64)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def _below(bits: np.random.BitGenerator, limit: int, num: int) -> npt.NDArray[np.int64]:
    """Integers from 0 to ``limit`` - 1; the limits here are so small that the modulus favours none noticeably."""
    return (np.asarray(bits.random_raw(num), dtype=np.uint64) % np.uint64(limit)).astype(np.int64)


def _chosen(candidates: npt.NDArray[np.bool_], bits: np.random.BitGenerator) -> npt.NDArray[np.int64]:
    """One True cell of each row (n, S), each as likely as the others; 0 where there is none."""
    chosen: npt.NDArray[np.int64] = np.where(candidates, _uniform(bits, candidates.shape) + 1.0, 0.0).argmax(axis=1)
    return chosen
