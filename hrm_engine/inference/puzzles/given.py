"""Puzzles of users: typed, drawn, as an ARC task, or from the solver's own test split.

A puzzle without a solution is refused before a model thinks about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.data.puzzles.arc.augment import parse_identifier
from hrm_engine.data.puzzles.arc.grids import NUM_CELLS, encode
from hrm_engine.data.puzzles.arc.sources import read_task_file
from hrm_engine.data.puzzles.board import Puzzle
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.errors import BundleError, DataError, HRMError
from hrm_engine.reading import YAML_LIMIT, read_regular
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import ARGS_FILE, Workspace

_NAMES_SHOWN = 5


def typed_sudoku(bundle: PuzzleBundle, text: str) -> Puzzle:
    """A Sudoku of 16, 36 or 81 characters.

    Raises:
        BundleError: the bundle solves something else.
        DataError: wrong length or characters, another size, a conflict, or no solution.
    """
    _check_kind(bundle, "--puzzle")
    return _read(bundle, text)


def drawn_maze(bundle: PuzzleBundle, file: Path) -> Puzzle:
    """A maze from a text file: ``#`` wall, space free, ``S`` start, ``G`` goal. Lines may lack spaces at their end.

    Raises:
        BundleError: the bundle solves something else.
        DataError: no such file, another size, other characters, not one start and one goal, or no way between them.
    """
    _check_kind(bundle, "--maze")
    content = read_regular(file, DataError, limit=YAML_LIMIT)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as problem:
        raise DataError(f"{file} cannot be read as a drawn maze: {problem}") from problem
    try:
        return replace(_read(bundle, text), source=str(file))
    except DataError as problem:
        raise DataError(f"{file}: {problem}") from problem


def arc_task(bundle: PuzzleBundle, file: Path) -> list[Puzzle]:
    """All test pairs of an ARC task file, which is named after the task.

    Raises:
        BundleError: the bundle solves something else, or was not trained on the demonstrations of this task.
        DataError: no such file, or no task.
    """
    _check_kind(bundle, "--arc")
    if bundle.card.height * bundle.card.width != NUM_CELLS:
        raise BundleError(f"{bundle.path.name} has boards of {bundle.card.height} x {bundle.card.width}, not 30 x 30")
    task = read_task_file(file)
    identifier = _task_identifier(bundle, task.name)
    return [
        Puzzle(
            encode(pair.input).astype(np.int64),
            None if pair.output is None else encode(pair.output).astype(np.int64),
            identifier=identifier,
            source=f"{task.name}, test pair {number} of {len(task.tests)}",
        )
        for number, pair in enumerate(task.tests, start=1)
    ]


def held_out_row(bundle: PuzzleBundle, index: int, workspace: Workspace) -> Puzzle:
    """Row ``index`` of the test split of the dataset that the bundle was trained on.

    Raises:
        DataError: the bundle does not name a dataset, it is missing, is of another kind, or has no such row.
    """
    folder = dataset_folder(bundle, workspace)
    if not folder.is_dir():
        raise DataError(
            f"{folder}, the dataset of {bundle.path.name}, does not exist: give a puzzle with --puzzle, --maze or --arc"
        )
    return open_dataset(folder, "test", check_tokens=False).puzzle(index)


def _read(bundle: PuzzleBundle, text: str) -> Puzzle:
    return bundle.card.board.read(text, bundle.card.height, bundle.card.width)


def _check_kind(bundle: PuzzleBundle, flag: str) -> None:
    board = bundle.card.board
    if board.flag != flag:
        raise BundleError(
            f"{flag}: {bundle.path.name} was trained on puzzles of kind {board.kind!r}; give it one with "
            f"{board.flag or '--index, from its test split'}"
        )


def _task_identifier(bundle: PuzzleBundle, task: str) -> int:
    names = bundle.card.identifiers
    if names is None or not bundle.config.prefix_tokens:
        raise BundleError(
            f"{bundle.path.name} holds no names of tasks, so it cannot be given one: an ARC solver knows a task by the "
            "embedding that it has learned for its name"
        )
    if task in names:
        return names.index(task)
    known = sorted(_plain(names))
    raise BundleError(
        f"{bundle.path.name} does not know task {task}: an ARC solver knows the tasks of its dataset alone, because it "
        f"learns an embedding for each from the demonstrations. It knows {len(known)}: "
        f"{', '.join(known[:_NAMES_SHOWN])}{', ...' if len(known) > _NAMES_SHOWN else ''}"
    )


def _plain(names: Iterable[str]) -> set[str]:
    return {parse_identifier(name)[0] for name in names if not name.startswith("<")}


def dataset_folder(bundle: PuzzleBundle, workspace: Workspace) -> Path:
    """The dataset that the bundle's metadata names last; a checkpoint has none, the run above it has its arguments.

    Raises:
        DataError: neither names one.
    """
    history = bundle.metadata.get("dataset_history")
    if isinstance(history, list) and history and isinstance(history[-1], dict) and history[-1].get("dataset"):
        return workspace.resolve(str(history[-1]["dataset"]))
    for folder in (bundle.path, *bundle.path.parents[:2]):
        try:
            parameters = read_json(folder / ARGS_FILE, HRMError)["parameters"]
            return workspace.resolve(str(parameters["data"]["data_path"]))
        except (HRMError, KeyError, TypeError):
            continue
    raise DataError(
        f"{bundle.path.name} does not name the dataset it was trained on: name one with --data-path (lab eval puzzle), "
        "or give a puzzle with --puzzle, --maze or --arc (lab solve)"
    )
