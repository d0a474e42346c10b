"""Mazes from CSV files in the published form: columns source, question, answer, rating; characters ``# SGo``.

A row is checked before it can become a label: the answer must be the question with a path of ``o`` from S to G, and no
shorter path may exist. Where several are equally short the given one stands, and the row is counted.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrm_engine.data.folders import broken_link
from hrm_engine.data.puzzles.maze.board import FREE, GOAL, PATH, START, WALL, Maze
from hrm_engine.data.puzzles.maze.generate import LARGEST
from hrm_engine.data.puzzles.maze.search import SEVERAL, breadth_first
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.errors import DataError
from hrm_engine.reading import open_text

_COLUMNS = ("question", "answer")
_CHUNK_ROWS = 512


@dataclass(frozen=True)
class PublishedMazes:
    """The good rows of some files in their order; how many were left out; how many have several shortest paths."""

    mazes: Puzzles
    num_skipped: int
    num_several: int


@dataclass(frozen=True)
class _Row:
    place: str
    question: npt.NDArray[np.uint8]
    answer: npt.NDArray[np.uint8]


def read_mazes(files: Sequence[Path], *, size: int | None = None, skip_bad: bool = False) -> PublishedMazes:
    """Read and check the mazes of ``files``, all of one size (that of the first row if ``size`` is not given).

    Raises:
        DataError: a file is missing, not text or without the columns; a bad row (file, line and reason are named),
            unless ``skip_bad`` asks for it to be left out and counted; no good row at all.
    """
    parts: list[Puzzles] = []
    num_skipped = num_several = 0
    source = _entries(files, size)
    while entries := list(itertools.islice(source, _CHUNK_ROWS)):
        mazes, several, reasons = _checked([entry for entry in entries if isinstance(entry, _Row)])
        problems = [
            entry if isinstance(entry, str) else f"{entry.place}: {reasons[entry.place]}"
            for entry in entries
            if isinstance(entry, str) or entry.place in reasons
        ]
        if problems and not skip_bad:
            raise DataError(f"{problems[0]}. Correct the row, or leave bad ones out with --skip-bad-records.")
        parts.append(mazes)
        num_several, num_skipped = num_several + several, num_skipped + len(problems)
    good = [part for part in parts if len(part)]
    if not good:
        raise DataError(f"no maze in {', '.join(map(str, files))}: rows of source,question,answer,rating are needed")
    return PublishedMazes(Puzzles.joined(good), num_skipped, num_several)


def _entries(files: Sequence[Path], size: int | None) -> Iterator[_Row | str]:
    """The rows of all files in their order; a sentence in the place of one that is no maze at all."""
    for file in files:
        for row in _rows(file):
            entry = row if isinstance(row, str) else _parsed(*row, size)
            if isinstance(entry, _Row):
                size = math.isqrt(len(entry.question))
            yield entry


def _rows(file: Path) -> Iterator[tuple[str, str, str] | str]:
    """(place, question, answer) of each row, or a sentence about a row that has not got them."""
    try:
        with open_text(file, DataError) as text:
            reader = csv.DictReader(text)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{file}, line 1: no column {' and no column '.join(missing)}; a header "
                    "source,question,answer,rating is needed"
                )
            for row in reader:
                place = f"{file}, line {reader.line_num}"
                question, answer = row["question"], row["answer"]
                if question is None or answer is None:
                    yield f"{place}: the row ends before its answer"
                else:
                    yield place, question, answer
    except FileNotFoundError:
        raise DataError(broken_link(file) or f"{file} does not exist: give the CSV file of the mazes") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{file}: not UTF-8 text; save the file as UTF-8") from problem
    except OSError as problem:
        raise DataError(f"{file} cannot be read ({problem.strerror or problem})") from problem
    except csv.Error as problem:
        raise DataError(f"{file} cannot be read as CSV ({problem})") from problem


def _parsed(place: str, question: str, answer: str, size: int | None) -> _Row | str:
    side = math.isqrt(len(question))
    if side * side != len(question) or not 2 <= side <= LARGEST:
        return f"{place}: a question of {len(question)} cells is not a square of up to {LARGEST} x {LARGEST}"
    if size is not None and side != size:
        return f"{place}: a maze of {side} x {side} among mazes of {size} x {size}"
    if len(answer) != len(question):
        return f"{place}: the question has {len(question)} cells, the answer {len(answer)}"
    try:
        return _Row(place, *map(Maze().to_tokens, (question, answer)))
    except DataError as problem:
        return f"{place}: {problem}"


def _checked(rows: list[_Row]) -> tuple[Puzzles, int, dict[str, str]]:
    """The good mazes, how many of them have several shortest paths, and what is wrong at the place of every bad row."""
    if not rows:
        return Puzzles(np.empty((0, 0), np.uint8), np.empty((0, 0), np.uint8), np.empty(0, np.int64)), 0, {}
    inputs = np.stack([row.question for row in rows])
    labels = np.stack([row.answer for row in rows])
    marked = labels == PATH
    starts, goals = (inputs == START).argmax(axis=1), (inputs == GOAL).argmax(axis=1)
    each = np.arange(len(rows))
    size = math.isqrt(inputs.shape[1])
    # Within the marked cells alone the way must need every one of them: then they are a path, with none left over.
    on_path = breadth_first((marked | (inputs == START) | (inputs == GOAL)).reshape(-1, size, size), starts)
    through = breadth_first((inputs != WALL).reshape(-1, size, size), starts)
    lengths = through.distance[each, goals].astype(np.int64)
    walked = on_path.distance[each, goals]
    one_end = [(inputs == token).sum(axis=1) == 1 for token in (START, GOAL)]
    checks = {
        "a maze has exactly one S and one G": ~one_end[0] | ~one_end[1],
        "the question shows a path already": (inputs == PATH).any(axis=1),
        "the path runs through a wall, or over S or G": (marked & (inputs != FREE)).any(axis=1),
        "the answer is another maze than the question": (~marked & (inputs != labels)).any(axis=1),
        "no path leads from S to G": lengths < 0,
        "the cells marked o are not one path from S to G": walked != marked.sum(axis=1) + 1,
        "the path is not the shortest": walked != lengths,
    }
    bad = np.stack(list(checks.values()))
    good: npt.NDArray[np.bool_] = ~np.any(bad, axis=0)
    reasons = list(checks)
    wrong = {rows[row].place: reasons[int(bad[:, row].argmax())] for row in np.flatnonzero(~good)}
    several = int((good & (through.num_paths[each, goals] == SEVERAL)).sum())
    return Puzzles(inputs, labels, lengths)[good], several, wrong
