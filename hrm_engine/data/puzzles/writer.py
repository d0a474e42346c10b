"""Write a puzzle dataset in the format of ``format.py``: rows are streamed, and it appears whole or not at all.

with DatasetWriter(folder, about=About(kind="sudoku", height=9, width=9), vocab_size=11, seq_len=81) as dataset:
    train = dataset.split("train")
    train.begin_group()
    train.begin_puzzle(0)
    train.add(inputs, labels)
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.description import (
    ABOUT_FILE,
    BLANK_IDENTIFIER,
    IDENTIFIERS_FILE,
    INFO_FILE,
    SPLITS,
    TEST_PUZZLES_FILE,
    About,
    DatasetInfo,
)
from hrm_engine.errors import DataError
from hrm_engine.reading import open_regular
from hrm_engine.store.files import clean_temporaries, new_folder, storage_error, write_json, write_text

Rows = npt.NDArray[np.integer[Any]]
_BLOCK_BYTES = 1 << 20
_OURS = {*SPLITS, ABOUT_FILE, IDENTIFIERS_FILE, TEST_PUZZLES_FILE}


class DatasetWriter:
    """Context manager for a new dataset folder; leaving it after an exception leaves nothing behind.

    Memory holds the indices only. ``identifiers`` may be appended to until the block ends; the first stands for
    "no puzzle in particular".

    Raises:
        DataError: on entering, ``folder`` exists (with ``replace``: and is not a dataset); on leaving, a split has no
            rows, or an identifier number has no name.
        StorageError: the folder cannot be written.
        ValueError: rows that do not fit the declared shape or vocabulary, or come outside a group or puzzle.
    """

    def __init__(
        self,
        folder: Path,
        *,
        about: About,
        vocab_size: int,
        seq_len: int,
        pad_id: int = 0,
        ignore_label_id: int | None = 0,
        blank_identifier_id: int = 0,
        identifiers: Sequence[str] = (BLANK_IDENTIFIER,),
        replace: bool = False,
    ) -> None:
        if about.height * about.width != seq_len:
            raise ValueError(f"a board of {about.height} x {about.width} does not have {seq_len} cells")
        if not 1 <= vocab_size <= 256:
            raise ValueError(f"tokens are written as bytes: vocab_size must be 1 to 256, not {vocab_size}")
        self.folder = Path(folder)
        self.about = about
        self.vocab_size = vocab_size
        self.seq_len = seq_len
        self.identifiers = list(identifiers)
        self._ids = {"pad_id": pad_id, "ignore_label_id": ignore_label_id, "blank_identifier_id": blank_identifier_id}
        self._replace = replace
        self._stack = ExitStack()
        self._place: Path | None = None
        self._splits: dict[str, dict[str, SplitWriter]] = {}

    def __enter__(self) -> DatasetWriter:
        self._refuse_overwriting()
        clean_temporaries(self.folder.parent, name=self.folder.name)
        self._place = self._stack.enter_context(new_folder(self.folder, replace=self._replace))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            self._finish()

    def split(self, name: str, set_name: str = "all") -> SplitWriter:
        """The writer of one set of a split, made at its first use. Several may be written in turn."""
        if self._place is None:
            raise ValueError("a split can only be written inside the with block")
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is not one of {SPLITS}")
        sets = self._splits.setdefault(name, {})
        if set_name not in sets:
            part = SplitWriter(self._place / name, set_name, vocab_size=self.vocab_size, seq_len=self.seq_len)
            self._stack.callback(part.close)
            sets[set_name] = part
        return sets[set_name]

    def group_ratings(self, name: str) -> npt.NDArray[np.int64]:
        """Ratings of the first puzzles of a split's groups, where a puzzle is a row (``add_puzzles``)."""
        part = self._splits.get(name, {}).get("all")
        if part is None or part._ratings is None:
            return np.zeros(0, dtype=np.int64)
        return np.array(part._ratings, dtype=np.int64)[np.array(part._group_starts)]

    def add_test_puzzles(self, puzzles: dict[str, Any]) -> None:
        """``test_puzzles.json`` beside the splits: the puzzles of the test split as they were, by their names."""
        if self._place is None:
            raise ValueError("test puzzles can only be written inside the with block")
        write_text(self._place / TEST_PUZZLES_FILE, json.dumps(puzzles) + "\n")

    def _refuse_overwriting(self) -> None:
        if not (self.folder.exists() or self.folder.is_symlink()):
            return
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else {"."}
        if not names:
            self._replace = True  # an empty folder holds nothing that could be lost
        elif not self._replace:
            raise DataError(f"{self.folder} exists already: choose another folder, or allow it to be replaced")
        elif not names <= _OURS or not any((self.folder / name / INFO_FILE).is_file() for name in SPLITS):
            raise DataError(f"{self.folder} holds more than a dataset and is not replaced: choose another folder")

    def _finish(self) -> None:
        if not self._splits:
            raise DataError(f"{self.folder}: no rows were given, so nothing was written")
        assert self._place is not None
        fingerprints = {}
        for name in sorted(self._splits):
            parts = self._splits[name]
            for part in parts.values():
                part.finish(len(self.identifiers))
            info = DatasetInfo(
                **self._ids,
                vocab_size=self.vocab_size,
                seq_len=self.seq_len,
                num_puzzle_identifiers=len(self.identifiers),
                total_groups=sum(part.num_groups for part in parts.values()),
                mean_puzzle_examples=sum(part.num_rows for part in parts.values())
                / sum(part.num_puzzles for part in parts.values()),
                sets=list(parts),
            )
            write_json(self._place / name / INFO_FILE, info.model_dump())
            fingerprints[name] = fingerprint(self._place / name)
        write_text(self._place / IDENTIFIERS_FILE, json.dumps(self.identifiers, ensure_ascii=False) + "\n")
        about = self.about.model_copy(update={"fingerprints": fingerprints})
        write_json(self._place / ABOUT_FILE, about.model_dump())


class SplitWriter:
    """One set of a split: open a group, open a puzzle in it, add its rows; or many puzzles of one row at once."""

    def __init__(self, place: Path, set_name: str, *, vocab_size: int, seq_len: int) -> None:
        self.num_rows = 0
        self._place = place
        self._set_name = set_name
        self._vocab_size = vocab_size
        self._seq_len = seq_len
        self._puzzle_starts = array("q")
        self._group_starts = array("q")
        self._identifiers = array("q")
        self._ratings: array[int] | None = None
        self._files: dict[str, IO[bytes]] = {}
        try:
            place.mkdir(exist_ok=True)
            for field in ("inputs", "labels"):
                self._files[field] = self._path(field).open("xb")
                self._files[field].write(_header(0, seq_len))
        except OSError as problem:
            raise storage_error(problem, place) from problem

    @property
    def num_puzzles(self) -> int:
        return len(self._puzzle_starts)

    @property
    def num_groups(self) -> int:
        return len(self._group_starts)

    def begin_group(self) -> None:
        """Open a group: variants of one original, of which an epoch draws one."""
        self._check_not_empty()
        self._group_starts.append(self.num_puzzles)

    def begin_puzzle(self, identifier: int = 0) -> None:
        """Open a puzzle: its rows follow, with this embedding number."""
        if not self._group_starts:
            raise ValueError("begin_group comes before begin_puzzle")
        if identifier < 0:
            raise ValueError(f"puzzle identifier {identifier} is negative")
        if self.num_puzzles > self._group_starts[-1]:
            self._check_not_empty()
        self._puzzle_starts.append(self.num_rows)
        self._identifiers.append(identifier)

    def add(self, inputs: Rows, labels: Rows, ratings: Rows | None = None) -> None:
        """Rows of the puzzle begun last: inputs and labels (n, S), ratings (n,) for all rows of the set or for none."""
        if not self._puzzle_starts:
            raise ValueError("begin_puzzle comes before add")
        for name, rows in (("inputs", inputs), ("labels", labels)):
            if rows.shape != (len(inputs), self._seq_len) or not np.issubdtype(rows.dtype, np.integer):
                raise ValueError(f"{name} are {rows.dtype} {rows.shape}, and integers (n, {self._seq_len}) are needed")
            if rows.size and (rows.min() < 0 or rows.max() >= self._vocab_size):
                raise ValueError(
                    f"{name} hold {rows.min()} to {rows.max()}, the vocabulary has {self._vocab_size} tokens"
                )
        if not self.num_rows and ratings is not None:
            self._ratings = array("q")
        if (ratings is None) != (self._ratings is None) or (ratings is not None and ratings.shape != (len(inputs),)):
            raise ValueError("ratings are one number for each row, given for all rows of a set or for none")
        try:
            self._files["inputs"].write(np.ascontiguousarray(inputs, dtype=np.uint8).data)
            self._files["labels"].write(np.ascontiguousarray(labels, dtype=np.uint8).data)
        except OSError as problem:
            raise storage_error(problem, self._place) from problem
        if self._ratings is not None and ratings is not None:
            self._ratings.extend(ratings.tolist())
        self.num_rows += len(inputs)

    def add_puzzles(
        self, inputs: Rows, labels: Rows, ratings: Rows | None = None, *, group_size: int = 1, identifier: int = 0
    ) -> None:
        """Rows (n, S) that are a puzzle each; every ``group_size`` of them, one after the other, form a group."""
        if group_size < 1 or not len(inputs) or len(inputs) % group_size:
            raise ValueError(f"{len(inputs)} rows cannot be divided into groups of {group_size}")
        first_row, first_puzzle = self.num_rows, self.num_puzzles
        self.begin_group()
        self.begin_puzzle(identifier)
        self.add(inputs, labels, ratings)
        self._puzzle_starts.extend(range(first_row + 1, first_row + len(inputs)))
        self._identifiers.extend([identifier] * (len(inputs) - 1))
        self._group_starts.extend(range(first_puzzle + group_size, first_puzzle + len(inputs), group_size))

    def finish(self, num_identifiers: int) -> None:
        """Complete the arrays. Raises DataError for a set without rows and for identifiers without a name."""
        if not self.num_rows:
            raise DataError(f"no rows were left for the {self._place.name} split, so nothing was written")
        self._check_not_empty()
        if max(self._identifiers) >= num_identifiers:
            raise DataError(f"puzzle identifier {max(self._identifiers)} has no name, there are {num_identifiers}")
        if self.num_rows > np.iinfo(np.int32).max:
            raise DataError(f"{self.num_rows} rows are more than the format can number; write fewer")
        try:
            for file in self._files.values():
                file.seek(0)
                file.write(_header(self.num_rows, self._seq_len))
            self.close()
            self._save("puzzle_identifiers", self._identifiers)
            self._save("puzzle_indices", array("q", [*self._puzzle_starts, self.num_rows]))
            self._save("group_indices", array("q", [*self._group_starts, self.num_puzzles]))
            if self._ratings is not None:
                self._save("ratings", self._ratings)
        except OSError as problem:
            raise storage_error(problem, self._place) from problem

    def close(self) -> None:
        """Close the files; without :meth:`finish` they are no dataset."""
        for file in self._files.values():
            file.close()

    def _check_not_empty(self) -> None:
        """A group and a puzzle that are left behind must hold something: the format has no empty ones."""
        if self._group_starts and self._group_starts[-1] == self.num_puzzles:
            raise ValueError(f"group {self.num_groups - 1} has no puzzle")
        if self._puzzle_starts and self._puzzle_starts[-1] == self.num_rows:
            raise ValueError(f"puzzle {self.num_puzzles - 1} has no row")

    def _path(self, field: str) -> Path:
        return self._place / f"{self._set_name}__{field}.npy"

    def _save(self, field: str, values: array[int]) -> None:
        np.save(self._path(field), np.frombuffer(values, dtype=np.int64).astype(np.int32))


def fingerprint(place: Path) -> str:
    """SHA-256 over ``dataset.json`` and every array of the split folder ``place``, names included.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted([place / INFO_FILE, *place.glob("*.npy")], key=lambda path: path.name):
            with open_regular(path) as file:
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
    except OSError as problem:
        raise DataError(f"{place} cannot be read: {problem}") from problem
    return digest.hexdigest()


def _header(num_rows: int, seq_len: int) -> bytes:
    # numpy leaves room in a header for the first axis to grow, so this has one length for every number of rows.
    buffer = io.BytesIO()
    shape = (num_rows, seq_len)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
