"""Puzzle datasets on disk: the format of the HRM reference implementation, read and checked.

    FOLDER/about.json                     kind and shape of the board, origin (ours; may be absent)
    FOLDER/identifiers.json               name of every puzzle identifier (may be absent)
    FOLDER/{train,test}/dataset.json      vocabulary, sequence length, counts, names of the sets
    FOLDER/{train,test}/SET__inputs.npy   (N, S) tokens
    .../SET__labels.npy                   (N, S) tokens; those equal to ignore_label_id carry no loss
    .../SET__puzzle_indices.npy           (P + 1,) rows of puzzle p: puzzle_indices[p] up to puzzle_indices[p + 1]
    .../SET__group_indices.npy            (G + 1,) likewise the puzzles of a group: an original and its variants
    .../SET__puzzle_identifiers.npy       (P,) embedding number of each puzzle
    .../SET__ratings.npy                  (N,) difficulty of each row (ours; may be absent)

N rows, S cells, P puzzles, G groups. An epoch of training draws one row of one puzzle of every group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.arrays import read_array
from hrm_engine.data.puzzles.board import Puzzle
from hrm_engine.data.puzzles.description import (
    ABOUT_FILE,
    IDENTIFIERS_FILE,
    INFO_FILE,
    SPLITS,
    About,
    DatasetInfo,
    derived_about,
    read_about,
    read_identifiers,
    read_info,
)
from hrm_engine.data.puzzles.writer import fingerprint
from hrm_engine.errors import DataError

IntArray = npt.NDArray[np.integer[Any]]
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class PuzzleSet:
    """The arrays of one set of a split, as the module's head describes them; inputs and labels stay on the disk."""

    name: str
    inputs: IntArray = field(repr=False)
    labels: IntArray = field(repr=False)
    puzzle_identifiers: npt.NDArray[np.int64] = field(repr=False)
    puzzle_indices: npt.NDArray[np.int64] = field(repr=False)
    group_indices: npt.NDArray[np.int64] = field(repr=False)
    ratings: npt.NDArray[Any] | None = field(repr=False)

    @property
    def num_rows(self) -> int:
        return len(self.inputs)

    @property
    def num_puzzles(self) -> int:
        return len(self.puzzle_identifiers)

    @property
    def num_groups(self) -> int:
        return len(self.group_indices) - 1


@dataclass(frozen=True, eq=False)
class PuzzleDataset:
    """One split of a dataset. ``identifiers[i]`` is the name of puzzle identifier i."""

    folder: Path
    split: str
    info: DatasetInfo
    about: About
    sets: list[PuzzleSet]
    identifiers: list[str] | None = field(repr=False)

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.sets)

    @property
    def num_groups(self) -> int:
        return sum(part.num_groups for part in self.sets)

    @property
    def row_identifiers(self) -> npt.NDArray[np.int64]:
        """Puzzle identifier of every row (N,)."""
        return np.concatenate([np.repeat(part.puzzle_identifiers, np.diff(part.puzzle_indices)) for part in self.sets])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ``dataset.json`` and the bytes of every array of the split, read at the first use."""
        return fingerprint(self.folder / self.split)

    def row(self, index: int) -> tuple[PuzzleSet, int]:
        """The set that holds row ``index`` of the split (sets one after the other), and its number there.

        Raises:
            DataError: the split has no such row.
        """
        rest = index
        for part in self.sets:
            if 0 <= rest < part.num_rows:
                return part, rest
            rest -= part.num_rows
        raise DataError(f"row {index}: {self.folder / self.split} has rows 0 to {self.num_rows - 1}")

    def puzzle(self, index: int) -> Puzzle:
        """Row ``index`` as a puzzle; without a solution if no label counts. Raises DataError like :meth:`row`."""
        part, row = self.row(index)
        labels = np.asarray(part.labels[row], dtype=np.int64)
        ignored = self.info.ignore_label_id
        counts = None if ignored is None else labels != ignored
        return Puzzle(
            np.asarray(part.inputs[row], dtype=np.int64),
            labels if counts is None or counts.any() else None,
            rating=None if part.ratings is None else float(part.ratings[row]),
            identifier=int(part.puzzle_identifiers[np.searchsorted(part.puzzle_indices, row, side="right") - 1]),
            source=f"row {index} of {self.folder / self.split}",
            counts=counts,
        )


def open_dataset(folder: Path, split: str, *, check_tokens: bool = True) -> PuzzleDataset:
    """Open one split of a dataset in the reference format, whoever wrote it.

    ``check_tokens`` reads every cell once; without it only names, shapes, types and indices are checked, which is
    enough to look at a single row.

    Raises:
        DataError: no dataset there; a file is missing or damaged; shapes, types or counts do not fit each other;
            indices do not rise; a token or identifier outside its range. The message names the file and the cure.
    """
    folder = Path(folder)
    place = folder / split
    if not (place / INFO_FILE).is_file():
        raise DataError(_no_split(folder, split))
    info = read_info(place / INFO_FILE)
    about = read_about(folder / ABOUT_FILE) if (folder / ABOUT_FILE).is_file() else derived_about(info)
    if about.height * about.width != info.seq_len:
        raise DataError(
            f"{folder / ABOUT_FILE}: a board of {about.height} x {about.width} does not have the {info.seq_len} cells "
            f"that {place / INFO_FILE} states; build the dataset again"
        )
    sets = [_open_set(place, name, info, check_tokens=check_tokens) for name in info.sets]
    dataset = PuzzleDataset(folder, split, info, about, sets, _identifiers(folder / IDENTIFIERS_FILE, info))
    if dataset.num_groups != info.total_groups:
        raise DataError(
            f"{place / INFO_FILE} states {info.total_groups} groups, the arrays have {dataset.num_groups}: some files "
            "are of another build; build or copy the dataset again"
        )
    return dataset


def _open_set(place: Path, name: str, info: DatasetInfo, *, check_tokens: bool) -> PuzzleSet:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part in ("inputs", "labels"):
        path = place / f"{name}__{part}.npy"
        arrays[part] = _load(path, "iu", (None, info.seq_len), is_mapped=True)
        if check_tokens:
            _check_range(path, arrays[part], info.vocab_size, "vocab_size")
    num_rows = len(arrays["inputs"])
    if len(arrays["labels"]) != num_rows:
        raise DataError(
            f"{place / f'{name}__labels.npy'} has {len(arrays['labels'])} rows, {name}__inputs.npy has {num_rows}: "
            "the files are of different builds; build or copy the dataset again"
        )
    path = place / f"{name}__puzzle_identifiers.npy"
    identifiers = _load(path, "iu", (None,))
    _check_range(path, identifiers, info.num_puzzle_identifiers, "num_puzzle_identifiers")
    puzzle_indices = _load_indices(place / f"{name}__puzzle_indices.npy", num_rows, "rows")
    if len(puzzle_indices) != len(identifiers) + 1:
        raise DataError(
            f"{place / f'{name}__puzzle_indices.npy'} bounds {len(puzzle_indices) - 1} puzzles, {path.name} names "
            f"{len(identifiers)}: the files are of different builds; build or copy the dataset again"
        )
    group_indices = _load_indices(place / f"{name}__group_indices.npy", len(identifiers), "puzzles")
    path = place / f"{name}__ratings.npy"
    ratings = _load(path, "iuf", (num_rows,)) if path.exists() else None
    return PuzzleSet(
        name, arrays["inputs"], arrays["labels"], identifiers.astype(np.int64), puzzle_indices, group_indices, ratings
    )


def _load(path: Path, kinds: str, shape: tuple[int | None, ...], *, is_mapped: bool = False) -> npt.NDArray[Any]:
    array = read_array(path, kinds, is_mapped=is_mapped)
    if array.ndim != len(shape) or any(
        size not in (None, length) for size, length in zip(shape, array.shape, strict=True)
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise DataError(
            f"{path} has shape {array.shape}, and ({expected}) is needed: it does not fit {INFO_FILE} or the other "
            "arrays; build or copy the dataset again"
        )
    if not len(array):
        raise DataError(f"{path} is empty: a split without rows cannot be used")
    return array


def _load_indices(path: Path, end: int, what: str) -> npt.NDArray[np.int64]:
    indices = _load(path, "iu", (None,)).astype(np.int64)
    if indices[0] != 0 or indices[-1] != end or np.any(np.diff(indices) < 1):
        raise DataError(
            f"{path} must rise strictly from 0 to the number of {what}, {end}; it begins with {indices[0]}, ends with "
            f"{indices[-1]} and its smallest step is {min(np.diff(indices), default=0)}; build the dataset again"
        )
    return indices


def _check_range(path: Path, array: IntArray, end: int, name: str) -> None:
    for start, block in _blocks(array):
        if block.min() < 0 or block.max() >= end:
            outside = (block < 0) | (block >= end)
            row = start + int(np.argmax(outside.reshape(len(block), -1).any(axis=1)))
            raise DataError(
                f"{path}, row {row}: the value {block[outside][0]} is not below {name} = {end} of {INFO_FILE}; correct "
                f"{name} or build the dataset again"
            )


def _blocks(array: IntArray) -> Iterator[tuple[int, IntArray]]:
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _identifiers(path: Path, info: DatasetInfo) -> list[str] | None:
    names = read_identifiers(path)
    if names is not None and len(names) != info.num_puzzle_identifiers:
        raise DataError(
            f"{path} names {len(names)} identifiers, {INFO_FILE} states {info.num_puzzle_identifiers}: the files are "
            "of different builds; build or copy the dataset again"
        )
    return names


def _no_split(folder: Path, split: str) -> str:
    if not folder.is_dir():
        return f"no dataset at {folder}: 'lab data --help' lists the commands that build one"
    present = [name for name in SPLITS if (folder / name / INFO_FILE).is_file()]
    if present:
        return f"{folder} has no split {split!r}, it has: {', '.join(present)}"
    if (folder / INFO_FILE).is_file() and folder.name in SPLITS:
        return f"{folder} is one split of a dataset: give the folder above it, {folder.parent}"
    return f"{folder} is no puzzle dataset: {split}/{INFO_FILE} is missing"
