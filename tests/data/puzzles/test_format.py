"""The dataset format: written and read back, as others write it, damaged in every way, interrupted."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.errors import DataError, StorageError

ABOUT = About(kind="sudoku", height=4, width=4, description="a test", seed=7)
FIELDS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")


def rows(count: int, *, first: int = 0) -> np.ndarray:
    """Rows of 16 tokens, all different from each other."""
    return ((np.arange(first, first + count)[:, None] // 4 ** np.arange(16)) % 4 + 2).astype(np.uint8)


def write(folder: Path, *, ratings: bool = True, replace: bool = False, boom: bool = False) -> None:
    """Three groups: a puzzle of two rows with a variant of one row, and two puzzles of one row; one row to test."""
    names = ["<blank>", "first", "second"]
    with DatasetWriter(folder, about=ABOUT, vocab_size=6, seq_len=16, identifiers=names, replace=replace) as dataset:
        train, test = dataset.split("train"), dataset.split("test")
        train.begin_group()
        train.begin_puzzle(1)
        train.add(rows(2), rows(2) + 0, np.array([3, 1]) if ratings else None)
        test.begin_group()
        test.begin_puzzle(0)
        test.add(rows(1, first=90), rows(1, first=90))
        train.begin_puzzle(2)
        train.add(rows(1, first=2), rows(1, first=2), np.array([2]) if ratings else None)
        if boom:
            raise RuntimeError("the builder failed midway")
        train.add_puzzles(rows(2, first=3), rows(2, first=3), np.array([0, 9]) if ratings else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset."""
    write(tmp_path / "dataset")
    return tmp_path / "dataset"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_read(folder: Path) -> None:
    train, test = open_dataset(folder, "train"), open_dataset(folder, "test")
    (part,) = train.sets
    assert (train.num_rows, part.num_puzzles, train.num_groups, test.num_rows) == (5, 4, 3, 1)
    assert part.puzzle_indices.tolist() == [0, 2, 3, 4, 5]
    assert part.group_indices.tolist() == [0, 2, 3, 4]
    assert part.puzzle_identifiers.tolist() == [1, 2, 0, 0]
    assert part.ratings is not None
    assert part.ratings.tolist() == [3, 1, 2, 0, 9]
    assert test.sets[0].ratings is None
    np.testing.assert_array_equal(part.inputs, rows(5))
    assert (part.inputs.dtype, isinstance(part.inputs, np.memmap)) == (np.uint8, True)
    assert train.identifiers == ["<blank>", "first", "second"]
    assert train.about.model_copy(update={"fingerprints": {}}) == ABOUT
    assert train.info.mean_puzzle_examples == 5 / 4
    assert train.about.fingerprints == {"train": train.fingerprint, "test": test.fingerprint}
    assert [train.row(index)[1] for index in range(5)] == [0, 1, 2, 3, 4]
    for index in (-1, 5):
        with pytest.raises(DataError, match=f"row {index}: .*rows 0 to 4"):
            train.row(index)


def test_files_are_those_of_the_reference(folder: Path) -> None:
    """Names, fields and types as the reference implementation's loader asks for them, read without our reader."""
    info = json.loads((folder / "train" / "dataset.json").read_text())
    assert info == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 6,
        "seq_len": 16,
        "num_puzzle_identifiers": 3,
        "total_groups": 3,
        "mean_puzzle_examples": 1.25,
        "sets": ["all"],
    }
    assert json.loads((folder / "identifiers.json").read_text()) == ["<blank>", "first", "second"]
    arrays = {field: np.load(folder / "train" / f"all__{field}.npy") for field in FIELDS}
    assert {field: str(array.dtype) for field, array in arrays.items()} == {
        "inputs": "uint8",
        "labels": "uint8",
        "puzzle_identifiers": "int32",
        "puzzle_indices": "int32",
        "group_indices": "int32",
    }
    buffer = io.BytesIO()
    np.save(buffer, rows(5))
    assert (folder / "train" / "all__inputs.npy").read_bytes() == buffer.getvalue()


def test_the_same_rows_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)
    write(tmp_path / "other", ratings=False)
    assert open_dataset(tmp_path / "other", "train").fingerprint != open_dataset(folder, "train").fingerprint


@pytest.mark.parametrize(
    ("vocab_size", "seq_len", "expected"),
    [
        (11, 81, ("sudoku", 9, 9)),
        (12, 900, ("arc", 30, 30)),
        (6, 900, ("maze", 30, 30)),
        (40, 49, ("other", 7, 7)),
        (40, 50, ("other", 1, 50)),
    ],
)
def test_datasets_of_others_are_read(
    vocab_size: int, seq_len: int, expected: tuple[str, int, int], tmp_path: Path
) -> None:
    """Two sets, wide integers, no file of ours, a field more in dataset.json."""
    place = tmp_path / "train"
    place.mkdir()
    for name in ("one", "two"):
        for field, array in {
            "inputs": np.ones((3, seq_len), np.int64),
            "labels": np.ones((3, seq_len), np.int32),
            "puzzle_identifiers": np.zeros(2, np.int64),
            "puzzle_indices": np.array([0, 1, 3]),
            "group_indices": np.array([0, 2]),
        }.items():
            np.save(place / f"{name}__{field}.npy", array)
    info = {"pad_id": 0, "ignore_label_id": None, "blank_identifier_id": 0, "num_puzzle_identifiers": 1}
    info |= {"vocab_size": vocab_size, "seq_len": seq_len, "total_groups": 2, "mean_puzzle_examples": 1.5}
    (place / "dataset.json").write_text(json.dumps({**info, "sets": ["one", "two"], "total_puzzles": 4}))
    dataset = open_dataset(tmp_path, "train")
    assert (dataset.about.kind, dataset.about.height, dataset.about.width) == expected
    assert (dataset.num_rows, dataset.num_groups, dataset.identifiers) == (6, 2, None)
    assert dataset.row(4)[0].name == "two"
    assert dataset.info.ignore_label_id is None


Damage = Callable[[Path], object]


def saved(name: str, change: Callable[[np.ndarray], Any]) -> Damage:
    return lambda train: np.save(train / name, change(np.load(train / name)))


def stated(**values: object) -> Damage:
    def change(train: Path) -> None:
        path = train / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def cell(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.int16)
        array[2, 5] = value
        return array

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda train: (train / "all__labels.npy").unlink(), r"all__labels\.npy is missing"),
        (lambda train: (train / "all__group_indices.npy").unlink(), r"all__group_indices\.npy is missing"),
        (lambda train: (train / "all__inputs.npy").write_bytes(b"not an array"), r"all__inputs\.npy is not a whole"),
        (
            lambda train: (train / "all__inputs.npy").write_bytes((train / "all__inputs.npy").read_bytes()[:-1]),
            r"all__inputs\.npy is not a whole",
        ),
        (lambda train: (train / "all__inputs.npy").write_bytes(b""), r"all__inputs\.npy is not a whole"),
        (saved("all__inputs.npy", lambda array: array.astype(np.float32)), r"all__inputs\.npy holds float32"),
        (saved("all__inputs.npy", lambda array: array[:, :15]), r"inputs\.npy has shape \(5, 15\).*\(any, 16\)"),
        (saved("all__labels.npy", lambda array: array[:4]), r"labels\.npy has 4 rows, all__inputs\.npy has 5"),
        (saved("all__inputs.npy", cell(6)), r"inputs\.npy, row 2: the value 6 .*vocab_size = 6"),
        (saved("all__labels.npy", cell(-1)), r"labels\.npy, row 2: the value -1 "),
        (saved("all__puzzle_identifiers.npy", lambda array: array + 1), r"row 1: the value 3 .*num_puzzle_identifiers"),
        (saved("all__puzzle_identifiers.npy", lambda array: array[:3]), r"bounds 4 puzzles, .* names 3"),
        (saved("all__puzzle_indices.npy", lambda array: array[::-1]), r"puzzle_indices\.npy must rise .* rows, 5"),
        (saved("all__puzzle_indices.npy", lambda array: np.array([0, 2, 2, 4, 5])), "smallest step is 0"),
        (saved("all__group_indices.npy", lambda array: array + 1), r"group_indices\.npy must rise .* puzzles, 4"),
        (saved("all__group_indices.npy", lambda array: np.array([0, 1, 4])), "states 3 groups, the arrays have 2"),
        (saved("all__ratings.npy", lambda array: array[:2]), r"ratings\.npy has shape"),
        (saved("all__inputs.npy", lambda array: array[:0]), r"inputs\.npy is empty"),
        (lambda train: (train / "dataset.json").write_text("{"), r"dataset\.json, line 1, column 2: not valid JSON"),
        (lambda train: (train / "dataset.json").write_text("{}"), r"dataset\.json .*vocab_size: a value is needed"),
        (stated(vocab_size="many"), r"dataset\.json .*vocab_size"),
        (stated(sets=[]), r"dataset\.json .*sets"),
        (stated(seq_len=25), r"about\.json: a board of 4 x 4 does not have the 25 cells"),
        (
            lambda train: (train.parent / "identifiers.json").write_text('["<blank>"]'),
            "names 1 .* states 3",
        ),
        (lambda train: (train.parent / "identifiers.json").write_text("[1]"), "a list of names is expected"),
        (lambda train: (train.parent / "identifiers.json").write_text("["), "not valid JSON"),
        (lambda train: (train.parent / "about.json").write_text('{"kind": "chess"}'), r"about\.json .*kind"),
        (
            lambda train: (train.parent / "about.json").write_text(
                '{"kind": "sudoku", "height": 4, "width": 4, "schema_version": 99}'
            ),
            "written by a newer one",
        ),
    ],
)
def test_damage_is_named(damage: Damage, told: str, folder: Path) -> None:
    damage(folder / "train")
    with pytest.raises(DataError, match=told):
        open_dataset(folder, "train")


def test_what_is_no_dataset_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset at .*lab data --help"):
        open_dataset(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="give the folder above it"):
        open_dataset(folder / "train", "train")
    with pytest.raises(DataError, match=r"is no puzzle dataset: train/dataset\.json is missing"):
        open_dataset(tmp_path, "train")
    (folder / "test" / "dataset.json").unlink()
    with pytest.raises(DataError, match="has no split 'test', it has: train"):
        open_dataset(folder, "test")


def test_a_row_can_be_read_without_reading_all(folder: Path) -> None:
    saved("all__inputs.npy", cell(6))(folder / "train")
    assert open_dataset(folder, "train", check_tokens=False).num_rows == 5


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="midway"):
        write(tmp_path / "dataset", boom=True)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_dataset(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(RuntimeError, match="midway"):
        write(folder, replace=True, boom=True)
    assert files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]
    write(folder, ratings=False, replace=True)
    assert open_dataset(folder, "train").sets[0].ratings is None


def test_nothing_else_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        write(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds more than a dataset"):
        write(folder, replace=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="holds more than a dataset"):
        write(tmp_path / "file", replace=True)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert open_dataset(tmp_path / "empty", "train").num_rows == 5
    with pytest.raises(StorageError):
        write(tmp_path / "file" / "below")


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.writer import DatasetWriter
about = About(kind="other", height=1, width=4)
with DatasetWriter(Path(sys.argv[1]), about=about, vocab_size=9, seq_len=4) as dataset:
    train = dataset.split("train")
    train.add_puzzles(np.ones((50_000, 4), np.uint8), np.ones((50_000, 4), np.uint8))
    os.kill(os.getpid(), 9)
"""


def test_a_killed_build_is_no_dataset_and_the_next_one_puts_its_rest_away(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-")
    assert sum(len(content) for content in files(left).values()) > 100_000, "rows are not kept in memory"
    other = tmp_path / ".tmp-999999999-0123abcd-another"
    other.mkdir()
    write(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", other.name}


def test_wrong_use_of_the_writer_is_refused(tmp_path: Path) -> None:
    about = About(kind="other", height=1, width=4)
    good = np.ones((1, 4), np.uint8)

    def attempt(use: Callable[[Any], object]) -> None:
        with DatasetWriter(tmp_path / "d", about=about, vocab_size=5, seq_len=4) as dataset:
            use(dataset.split("train"))

    def puzzle(part: Any) -> Any:
        part.begin_group()
        part.begin_puzzle(0)
        return part

    wrong: list[tuple[Callable[[Any], object], str]] = [
        (lambda part: part.begin_puzzle(0), "begin_group comes before"),
        (lambda part: part.add(good, good), "begin_puzzle comes before"),
        (lambda part: puzzle(part).add(good[:, :3], good), r"\(1, 3\)"),
        (lambda part: puzzle(part).add(good * 5, good), "inputs hold 5 to 5, the vocabulary has 5"),
        (lambda part: puzzle(part).add(good.astype(float), good), "float64"),
        (lambda part: puzzle(part).begin_puzzle(0), "puzzle 0 has no row"),
        (lambda part: (puzzle(part).add(good, good), part.begin_group(), part.begin_group()), "group 1 has no puzzle"),
        (lambda part: (puzzle(part).add(good, good), part.add(good, good, np.ones(1))), "for all rows of a set or"),
        (lambda part: part.add_puzzles(good, good, group_size=2), "groups of 2"),
        (lambda part: (part.begin_group(), part.begin_puzzle(-1)), "is negative"),
    ]
    for use, told in wrong:
        with pytest.raises(ValueError, match=told):
            attempt(use)
    with pytest.raises(DataError, match="identifier 3 has no name"):
        attempt(lambda part: part.add_puzzles(good, good, identifier=3))
    with pytest.raises(DataError, match="no rows were left for the train split"):
        attempt(lambda part: None)
    with pytest.raises(ValueError, match="does not have 5 cells"):
        DatasetWriter(tmp_path / "d", about=about, vocab_size=5, seq_len=5)
    with pytest.raises(ValueError, match="1 to 256"):
        DatasetWriter(tmp_path / "d", about=about, vocab_size=257, seq_len=4)
    with pytest.raises(ValueError, match="inside the with block"):
        DatasetWriter(tmp_path / "d", about=about, vocab_size=5, seq_len=4).split("train")
    assert list(tmp_path.iterdir()) == []
