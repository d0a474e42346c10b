"""ARC tasks, their JSON form, and the choice among several copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hrm_engine.data.puzzles.arc.augment import parse_identifier
from hrm_engine.data.puzzles.arc.grids import Grid, parse_grid
from hrm_engine.errors import DataError


@dataclass(frozen=True, eq=False)
class Pair:
    """An input grid and its output; None where the output is not known (the hidden part of a competition)."""

    input: Grid
    output: Grid | None


@dataclass(frozen=True, eq=False)
class Task:
    """A task. A model learns the demonstrations of an evaluation task, never its test pairs."""

    name: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]
    is_evaluation: bool

    @property
    def is_answered(self) -> bool:
        """Whether the outputs of all test pairs are known."""
        return all(pair.output is not None for pair in self.tests)

    @property
    def training_pairs(self) -> tuple[Pair, ...]:
        """Pairs that a model may be trained on."""
        known = tuple(pair for pair in self.tests if pair.output is not None)
        return self.demonstrations if self.is_evaluation else (*self.demonstrations, *known)


def parse_task(value: Any, *, name: str, place: str, is_evaluation: bool) -> Task:
    """A task from JSON: ``{"train": [{"input", "output"}, ...], "test": [...]}``; a test pair may lack its output.

    Raises:
        DataError: it is no task; ``place`` and what is wrong where.
    """
    if parse_identifier(name)[0] != name:
        raise DataError(f"{place}: the name {name!r} reads as an augmentation of another task; rename it")
    lists = value if isinstance(value, dict) else {}
    pairs: dict[str, tuple[Pair, ...]] = {}
    for part in ("train", "test"):
        entries = lists.get(part)
        if not isinstance(entries, list) or not entries:
            raise DataError(
                f"{place}: no ARC task, which is an object with the lists 'train' and 'test', each of at least one "
                "pair of 'input' and 'output'"
            )
        pairs[part] = tuple(
            _parse_pair(entry, place=f"{place}, {part} pair {number}", needs_output=part == "train")
            for number, entry in enumerate(entries, start=1)
        )
    return Task(name, pairs["train"], pairs["test"], is_evaluation)


def _parse_pair(entry: Any, *, place: str, needs_output: bool) -> Pair:
    if not isinstance(entry, dict) or "input" not in entry or (needs_output and "output" not in entry):
        raise DataError(f"{place}: an object with 'input' and 'output' is expected")
    output = entry.get("output")
    if output is None and needs_output:
        raise DataError(f"{place}: the output of a demonstration is missing")
    return Pair(
        parse_grid(entry["input"], f"{place}, input"),
        None if output is None else parse_grid(output, f"{place}, output"),
    )


def task_json(task: Task) -> dict[str, Any]:
    """The JSON form of a task; a test pair without a known output has none."""
    return {
        "train": [_pair_json(pair) for pair in task.demonstrations],
        "test": [_pair_json(pair) for pair in task.tests],
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    content = {"input": pair.input.tolist()}
    return content if pair.output is None else {**content, "output": pair.output.tolist()}


def without_copies(tasks: Iterable[Task]) -> tuple[list[Task], int]:
    """The tasks in their order, each name and each content once, and how many copies were left out.

    Sets of tasks overlap: most of ARC-2's training tasks come from ARC-1, its evaluation part included. Were such a
    copy kept, the answer to an evaluation task would stand in the training split. So an evaluation task stays (rather
    one with known answers), and else the first.
    """
    listed = list(tasks)
    names: set[str] = set()
    contents: set[bytes] = set()
    kept: set[int] = set()
    for number in sorted(range(len(listed)), key=lambda number: (_precedence(listed[number]), number)):
        task = listed[number]
        content = _content(task)
        if task.name not in names and content not in contents:
            kept.add(number)
        names.add(task.name)
        contents.add(content)
    return [task for number, task in enumerate(listed) if number in kept], len(listed) - len(kept)


def _precedence(task: Task) -> int:
    return 2 if not task.is_evaluation else 0 if task.is_answered else 1


def _content(task: Task) -> bytes:
    grids = [grid for pair in task.demonstrations for grid in (pair.input, pair.output) if grid is not None]
    grids += [pair.input for pair in task.tests]
    parts = [bytes(grid.shape) + grid.tobytes() for grid in grids]
    return hashlib.sha256(b"".join(parts)).digest()
