"""ARC tasks, their JSON form, and the choice among several copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count as count_from
from typing import Any

from hrm_engine.data.puzzles.arc.augment import parse_identifier
from hrm_engine.data.puzzles.arc.grids import Grid, parse_grid
from hrm_engine.errors import DataError

_SHOWN = 10
"""Most messages of a kind that are shown."""


@dataclass(frozen=True, eq=False)
class Pair:
    """An input grid and its output; None where the output is not known (the hidden part of a competition)."""

    input: Grid
    output: Grid | None


@dataclass(frozen=True, eq=False)
class Task:
    """A task and where it was read. A model learns the demonstrations of an evaluation task, never its test pairs."""

    name: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]
    is_evaluation: bool
    place: str

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
    return Task(name, pairs["train"], pairs["test"], is_evaluation, place)


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


@dataclass(frozen=True)
class Chosen:
    """Tasks without copies, each under a name of its own; ``messages`` are sentences for the user."""

    tasks: list[Task]
    num_copies: int
    num_renamed: int
    messages: list[str]


def without_copies(tasks: Iterable[Task]) -> Chosen:
    """The tasks in their order, each once and under a name of its own.

    Sets of tasks overlap: most of ARC-2's training tasks come from ARC-1, its evaluation part included, with their
    pairs in another order and one corrected. Were such a copy kept, the answer to an evaluation task would stand in
    the training split. So an evaluation task stays (rather one with known answers), and else the first.

    Two tasks are copies if they have the same grids, or one name and at least half of the inputs in common. Different
    tasks of one name are both kept, the later one with a number at its name.
    """
    listed = list(tasks)
    contents: dict[frozenset[bytes], Task] = {}
    named: dict[str, list[Task]] = {}
    names = {task.name for task in listed}
    kept: dict[int, Task] = {}
    copies, renamed = list[str](), list[str]()
    for number in sorted(range(len(listed)), key=lambda number: (_precedence(listed[number]), number)):
        task = listed[number]
        content, namesakes = _content(task), named.setdefault(task.name, [])
        if original := contents.get(content):
            if original.name != task.name:
                copies.append(f"{task.place} is left out: it is a copy of {original.place}")
            continue
        if original := next((other for other in namesakes if _are_versions(task, other)), None):
            copies.append(f"{task.place} is left out: it is another version of {original.place}")
            continue
        name = task.name
        if namesakes:
            name = next(name for count in count_from(2) if (name := f"{task.name}-{count}") not in names)
            names.add(name)
            renamed.append(f"{task.place} is called {name} in the dataset: {namesakes[0].place} is another task")
        namesakes.append(task)
        contents[content] = task
        kept[number] = replace(task, name=name)
    num_copies = len(listed) - len(kept)
    return Chosen([kept[number] for number in sorted(kept)], num_copies, len(renamed), _few(copies) + _few(renamed))


def _few(messages: list[str]) -> list[str]:
    shown = messages[:_SHOWN]
    return shown if len(messages) <= _SHOWN else [*shown, f"and {len(messages) - _SHOWN:,} more like this"]


def _precedence(task: Task) -> int:
    return 2 if not task.is_evaluation else 0 if task.is_answered else 1


def _content(task: Task) -> frozenset[bytes]:
    """What makes a task, whatever the order of its pairs: the demonstrations, and the inputs of its tests."""
    pairs = {_key(pair.input, pair.output) for pair in task.demonstrations}
    return frozenset(pairs | {_key(pair.input) for pair in task.tests})


def _are_versions(*tasks: Task) -> bool:
    first, second = ({_key(pair.input) for pair in (*task.demonstrations, *task.tests)} for task in tasks)
    return 2 * len(first & second) >= min(len(first), len(second))


def _key(*grids: Grid | None) -> bytes:
    return b"".join(bytes(grid.shape) + grid.tobytes() for grid in grids if grid is not None)
