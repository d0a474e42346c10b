"""Generated mazes, judged by a search of another kind: one cell at a time, counting every shortest path."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.maze.board import FREE, GOAL, PATH, START, WALL
from hrm_engine.data.puzzles.maze.generate import MazeSettings, canonical_keys, generate_mazes
from hrm_engine.data.puzzles.maze.search import breadth_first, shortest_paths
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.errors import ConfigError, DataError


def plain_search(walkable: np.ndarray, start: int) -> tuple[list[int], list[int]]:
    """Distance (-1: never) and number of shortest paths of every cell."""
    size = len(walkable)
    distance, ways = [-1] * size**2, [0] * size**2
    distance[start], ways[start] = 0, 1
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        row, column = divmod(cell, size)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < size and 0 <= c < size and walkable[r, c]:
                other = r * size + c
                if distance[other] < 0:
                    distance[other] = distance[cell] + 1
                    queue.append(other)
                if distance[other] == distance[cell] + 1:
                    ways[other] += ways[cell]
    return distance, ways


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7).flatmap(lambda size: arrays(bool, (3, size, size), elements=st.booleans())), st.data())
def test_search_of_many_mazes_is_the_plain_search_of_each(walkable: np.ndarray, data: st.DataObject) -> None:
    size = walkable.shape[-1]
    starts = np.array([data.draw(st.integers(0, size * size - 1)) for _ in walkable])
    walkable.reshape(len(walkable), -1)[np.arange(len(walkable)), starts] = True
    found = breadth_first(walkable, starts)
    for maze, start in enumerate(starts.tolist()):
        distance, ways = plain_search(walkable[maze], start)
        assert found.distance[maze].tolist() == distance
        assert found.num_paths[maze].tolist() == [min(number, 2) for number in ways]
    goals = found.distance.argmax(axis=1)
    paths = shortest_paths(found, goals, size)
    for maze, (start, goal) in enumerate(zip(starts.tolist(), goals.tolist(), strict=True)):
        steps = int(found.distance[maze, goal])
        assert paths[maze].sum() == max(steps - 1, 0)
        assert not paths[maze, [start, goal]].any()
        on_path = paths[maze].copy()
        on_path[[start, goal]] = True
        assert plain_search(on_path.reshape(size, size), start)[0][goal] == steps


def draw(**changes: object) -> Puzzles:
    kind = {"size": 12, "min_path": 12, "loops": 0.05, "seed": 3, **changes}
    return generate_mazes(MazeSettings(**kind), count=60, name="train", seen=set())


def test_labels_are_the_one_shortest_path() -> None:
    mazes = draw()
    assert mazes.inputs.shape == mazes.labels.shape == (60, 144)
    assert mazes.inputs.dtype == mazes.labels.dtype == np.uint8
    assert BOARDS["maze"].are_valid(mazes.inputs, mazes.labels).all()
    loops = 0
    for question, answer, length in zip(mazes.inputs, mazes.labels, mazes.ratings.tolist(), strict=True):
        assert set(question.tolist()) == {WALL, FREE, START, GOAL}
        start, goal = int((question == START).argmax()), int((question == GOAL).argmax())
        distance, ways = plain_search((question != WALL).reshape(12, 12), start)
        assert (distance[goal], ways[goal]) == (length, 1)
        assert length >= 12
        assert (answer == PATH).sum() == length - 1
        loops += max(ways) > 1
    assert loops > 10  # there are mazes in which ways meet, so that the search has something to decide


def test_without_loops_the_open_cells_are_a_tree() -> None:
    mazes = draw(loops=0.0)
    for question in mazes.inputs:
        walkable = (question != WALL).reshape(12, 12)
        distance, _ = plain_search(walkable, int((question == START).argmax()))
        joints = (walkable[1:] & walkable[:-1]).sum() + (walkable[:, 1:] & walkable[:, :-1]).sum()
        assert joints == walkable.sum() - 1
        assert all((steps >= 0) == (token != WALL) for steps, token in zip(distance, question, strict=True))


def test_mazes_are_a_function_of_the_seed_and_new_in_every_orientation() -> None:
    first, again, other = draw(), draw(), draw(seed=4)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not set(canonical_keys(first.inputs)) & set(canonical_keys(other.inputs))
    assert len(set(canonical_keys(first.inputs))) == 60
    seen = set(canonical_keys(first.inputs[:20]))
    kind = MazeSettings(size=12, min_path=12, loops=0.05, seed=3)
    rest = generate_mazes(kind, count=60, name="train", seen=seen)
    np.testing.assert_array_equal(rest.inputs[:40], first.inputs[20:])
    assert len(seen) == 80


def test_keys_are_those_of_all_orientations() -> None:
    mazes = draw()
    keys = canonical_keys(mazes.inputs)
    for number in range(NUM_DIHEDRAL):
        assert canonical_keys(mazes.inputs[:, dihedral_cells(12)[number]]) == keys


def test_hard_mazes_have_long_paths() -> None:
    kind = MazeSettings(size=30, min_path=110, loops=0.02, seed=0)
    mazes = generate_mazes(kind, count=20, name="test", seen=set())
    assert mazes.ratings.min() >= 110
    assert ((mazes.labels == PATH).sum(axis=1) == mazes.ratings - 1).all()


def test_what_cannot_be_had_is_said() -> None:
    for bad, message in (({"size": 3}, "4 to 100"), ({"loops": 1.5}, "0 to 1"), ({"min_path": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=message):
            draw(**bad)
    with pytest.raises(DataError, match=r"0 of 60 .* smaller --min-path than 100 \(the longest path seen was \d+\)"):
        draw(size=6, min_path=100)
    kind = MazeSettings(size=4, min_path=9, loops=0.0, seed=0)
    with pytest.raises(DataError, match="smaller --count"):
        generate_mazes(kind, count=10_000, name="train", seen=set())
