"""The published CSV form of Sudokus: ``source,question,answer,rating``, a blank written ``.`` or ``0``.

Every line is checked as it is read: lengths, characters, rules, and that the answer keeps the question. Whether the
answer is the only one is proved by ``check_unique``, for the puzzles that are really used.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.folders import broken_link
from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.puzzles.sudoku.board import Sudoku
from hrm_engine.data.puzzles.sudoku.rules import BLANK, sudoku_size
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.data.random import permutation
from hrm_engine.errors import DataError
from hrm_engine.reading import open_text

HEADER = ("source", "question", "answer", "rating")
_BLOCK = 8192
_ILLEGAL = 255
# The token of every character code.
_MEANING = np.full(256, _ILLEGAL, dtype=np.uint8)
_MEANING[[ord("."), ord("0")]] = BLANK
_MEANING[ord("1") : ord("9") + 1] = np.arange(2, 11)


@dataclass(frozen=True, eq=False)
class CsvBlock:
    """Puzzles of a file and the line (from 1) that each stands in."""

    puzzles: Puzzles
    lines: npt.NDArray[np.int64]

    def __getitem__(self, rows: npt.NDArray[np.integer[Any]]) -> CsvBlock:
        return CsvBlock(self.puzzles[rows], self.lines[rows])


@dataclass(frozen=True, eq=False)
class Selection:
    """The puzzles of a file with at least a rating, or, of these, the ones with the numbers ``chosen`` (rising)."""

    path: Path
    size: int | None = None
    min_difficulty: int = 0
    progress: Progress | None = None
    chosen: npt.NDArray[np.int64] | None = None

    def board_size(self) -> int:
        """The size of the puzzles, from the first of them. Raises DataError, also where there is none."""
        for block in self._all_blocks():
            return sudoku_size(block.puzzles.inputs.shape[1])
        raise DataError(f"{self.path} holds no puzzle with a rating of {self.min_difficulty} or more")

    def parted(self, count: int, *, seed: int, name: str) -> tuple[Selection, Selection]:
        """``count`` puzzles drawn by seed and name, and the rest. Raises DataError if there are not so many."""
        numbers = self.chosen
        if numbers is None:
            numbers = np.arange(sum(len(block.lines) for block in self._all_blocks()))
        if count > len(numbers):
            raise DataError(f"{self.path} has {len(numbers):,} puzzles to choose from, but {count:,} are needed")
        order = permutation(seed, name, 0, len(numbers))
        taken, left = (numbers[np.sort(part)] for part in (order[:count], order[count:]))
        return replace(self, chosen=taken), replace(self, chosen=left)

    def blocks(self) -> Iterator[Puzzles]:
        """The puzzles in order, each proved to have one solution. Raises DataError naming file and line."""
        first = 0
        for block in self._all_blocks():
            last = first + len(block.lines)
            if self.chosen is not None:
                bounds = np.searchsorted(self.chosen, [first, last])
                block = block[self.chosen[slice(*bounds)] - first]
            first = last
            if len(block.lines):
                check_unique(self.path, block)
                yield block.puzzles

    def _all_blocks(self) -> Iterator[CsvBlock]:
        num_read = 0
        for block in read_csv(self.path, size=self.size):
            num_read += len(block.lines)
            if self.progress is not None:
                self.progress(num_read, 0)
            yield block[np.flatnonzero(block.puzzles.ratings >= self.min_difficulty)]


def read_csv(path: Path, *, size: int | None = None) -> Iterator[CsvBlock]:
    """The puzzles of a file, in blocks and in order.

    Raises:
        DataError: no such file, no header, or a line that is not a puzzle of ``size`` (by default that of the first
            line) with a valid answer. The message names file and line.
    """
    path = Path(path)
    source = _read_rows(path)
    while block := list(itertools.islice(source, _BLOCK)):
        lines, rows = zip(*block, strict=True)
        if size is None:
            size = _first_size(path, rows[0], lines[0])
        yield _checked(path, rows, np.array(lines), size)


def check_unique(path: Path, block: CsvBlock) -> None:
    """Prove that every puzzle has one solution. Raises DataError naming file and line of the first that has more."""
    several = np.flatnonzero(solve(block.puzzles.inputs).num_solutions != 1)
    if several.size:
        raise _refusal(path, int(block.lines[several[0]]), "the puzzle has more than one solution: remove the line")


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row. Raises DataError."""
    reader = None
    try:
        with open_text(path, DataError) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if tuple(name.strip().lower() for name in header) != HEADER:
                raise _refusal(path, 1, f"the header {','.join(HEADER)} is expected, found {','.join(header)[:80]!r}")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(HEADER):
                    raise _refusal(path, reader.line_num, f"{len(HEADER)} columns are expected, found {len(row)}")
                yield reader.line_num, row
    except FileNotFoundError:
        raise DataError(broken_link(path) or f"{path} does not exist: give the CSV file of the puzzles") from None
    except csv.Error as problem:
        raise _refusal(path, reader.line_num if reader else 1, f"cannot be read as CSV ({problem})") from problem
    except UnicodeDecodeError as problem:
        place = f"{path}, after line {reader.line_num}" if reader else str(path)
        raise DataError(f"{place}: not UTF-8 text; save the file as UTF-8") from problem
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror or problem})") from problem


def _first_size(path: Path, row: list[str], line: int) -> int:
    try:
        return sudoku_size(len(row[1]))
    except DataError as problem:
        raise _refusal(path, line, f"question: {problem}") from problem


def _checked(path: Path, rows: Sequence[list[str]], lines: npt.NDArray[np.int64], size: int) -> CsvBlock:
    inputs = _tokens(path, rows, lines, size, 1)
    labels = _tokens(path, rows, lines, size, 2)
    for number in np.flatnonzero(~Sudoku().are_valid(inputs, labels))[:1]:
        raise _refusal(path, lines[number], _why_wrong(inputs[number], labels[number], size))
    ratings = np.empty(len(rows), dtype=np.int64)
    for number, row in enumerate(rows):
        try:
            ratings[number] = int(row[3])
        except (ValueError, OverflowError):
            raise _refusal(path, lines[number], f"the rating {row[3][:20]!r} is not a whole number") from None
    return CsvBlock(Puzzles(inputs, labels, ratings), lines)


def _tokens(
    path: Path, rows: Sequence[list[str]], lines: npt.NDArray[np.int64], size: int, column: int
) -> npt.NDArray[np.uint8]:
    num_cells = size * size
    texts = [row[column] for row in rows]
    for number, text in enumerate(texts):
        if len(text) != num_cells:
            raise _refusal(
                path, lines[number], f"the {HEADER[column]} has {len(text)} characters, {num_cells} are expected"
            )
    codes = np.frombuffer("".join(texts).encode("latin-1", "replace"), dtype=np.uint8)
    tokens = _MEANING[codes].reshape(len(texts), num_cells)
    illegal = tokens > size + BLANK
    if column == 2:
        illegal |= tokens == BLANK
    for number in np.flatnonzero(illegal.any(axis=1))[:1]:
        place = int(np.argmax(illegal[number]))
        allowed = f"1 to {size}" if column == 2 else f"1 to {size}, '.' and '0'"
        raise _refusal(
            path,
            lines[number],
            f"character {place + 1} of the {HEADER[column]} is {texts[number][place]!r}, allowed are {allowed}",
        )
    return tokens


def _why_wrong(inputs: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], size: int) -> str:
    changed = np.flatnonzero((inputs > BLANK) & (inputs != labels))
    if changed.size:
        row, column = divmod(int(changed[0]), size)
        return f"the answer contradicts the question in row {row + 1}, column {column + 1}"
    return "the answer has a digit twice in a row, column or box"


def _refusal(path: Path, line: int, problem: str) -> DataError:
    return DataError(f"{path}, line {line}: {problem}")
