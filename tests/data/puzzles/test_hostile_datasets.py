"""Datasets damaged by chance or on purpose: a sentence that names the file, at once, and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hrm_engine.data.puzzles.arrays import read_array
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.puzzles.maze.published import read_mazes
from hrm_engine.data.puzzles.sudoku.csv_files import read_csv
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.errors import DataError
from hrm_engine.reading import POINTER

ABOUT = About(kind="sudoku", height=4, width=4)
JSON_FILES = ("train/dataset.json", "about.json", "identifiers.json")
ARRAYS = ("inputs", "labels", "puzzle_indices", "group_indices", "puzzle_identifiers", "ratings")
ODD_JSON = {
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 5_000,
    "6,000 digits": "1" * 6_000,
    "large": "1" + "0" * 300,
    "infinite": "1e999",
    "no number": "NaN",
    "half a pair": '"\\ud800"',
    "NUL": '"\\u0000"',
    "null": "null",
    "list": '["\\ud83d", "../../elsewhere"]',
    "object": "{}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of one puzzle."""
    rows = np.full((1, 16), 2, dtype=np.uint8)
    with DatasetWriter(tmp_path / "dataset", about=ABOUT, vocab_size=6, seq_len=16) as dataset:
        train = dataset.split("train")
        train.begin_group()
        train.begin_puzzle()
        train.add(rows, rows, np.array([1]))
    return tmp_path / "dataset"


def refused(folder: Path, name: str) -> str:
    with pytest.raises(DataError, match=re.escape(Path(name).name)) as caught:
        _ = open_dataset(folder, "train").fingerprint
    message = str(caught.value)
    assert len(message.encode("utf8")) < 1_000
    return message


def problem_of(call: Callable[[], object]) -> str | None:
    """What a reader says against a file; None if it takes it."""
    try:
        call()
    except DataError as problem:
        return str(problem)
    return None


@pytest.mark.parametrize("value", ODD_JSON.values(), ids=ODD_JSON)
@pytest.mark.parametrize("name", JSON_FILES)
def test_odd_json(folder: Path, name: str, value: str) -> None:
    file = folder / name
    whole = json.loads(file.read_text())
    file.write_text(value)
    refused(folder, name)
    for key in whole if isinstance(whole, dict) else ():
        file.write_text(json.dumps({**whole, key: "here"}).replace('"here"', value))
        # None where the format says nothing about the value
        message = problem_of(lambda: open_dataset(folder, "train"))
        assert message is None or (str(folder) in message and len(message.encode("utf8")) < 1_000)


@pytest.mark.parametrize("part", ARRAYS)
def test_every_bit_and_every_end_of_an_array(folder: Path, part: str) -> None:
    file = folder / "train" / f"all__{part}.npy"
    content = file.read_bytes()
    known = 0
    for at in range(128):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            file.write_bytes(damaged)
            message = problem_of(lambda: read_array(file, "iuf"))
            assert message is None or file.name in message
            known += message is None  # another type of the same width, or a space that means nothing
    assert known < 100
    for end in range(len(content)):
        file.write_bytes(content[:end])
        with pytest.raises(DataError, match=file.name):
            read_array(file, "iuf")
    file.write_bytes(content + b"\0")
    assert "has 1" in refused(folder, file.name)


@pytest.mark.parametrize(
    ("descr", "shape", "told"),
    [
        ("'|O'", "(1,)", r"holds '\|O', and integers are needed"),
        ("'<U4'", "(1,)", "holds '<U4', and integers are needed"),
        ("'<c8'", "(1,)", "integers are needed"),
        ("'<f4'", "(1,)", "holds float32, and integers are needed"),
        ("[('a', '<i4')]", "(1,)", "its header is none of numbers"),
        ("'<i4'", "(999999999999999, 999999999999999, 999999999999999)", "the file has "),
        ("'<i4'", "(9999999999999999999999,)", "its header is none of numbers"),
        ("'<i4'", "(-1,)", "its header is none of numbers"),
        ("'<i4'", "()", "has shape"),
        ("__import__('os')", "(1,)", "its header is none of numbers"),
        ("'<i4'", "(" * 3_000, "its header is none of numbers"),
    ],
)
def test_headers_that_state_something_else(folder: Path, descr: str, shape: str, told: str) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    file = folder / "train" / "all__group_indices.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4))
    assert re.search(told, refused(folder, file.name))


def test_numbers_in_the_order_of_columns_are_read(tmp_path: Path) -> None:
    array = np.arange(12, dtype=">i2").reshape(3, 4)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    for is_mapped in (True, False):
        assert np.array_equal(read_array(tmp_path / "a.npy", "i", is_mapped=is_mapped), array)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path.name),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": lambda path: os.mkfifo(path),
    "pointer": lambda path: path.write_bytes(POINTER + b"v1\n"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices among the files")
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("name", [*JSON_FILES[:1], *(f"train/all__{part}.npy" for part in ARRAYS)])
def test_what_is_no_file_of_data(folder: Path, name: str, make: Callable[[Path], object]) -> None:
    (folder / name).unlink()
    make(folder / name)
    refused(folder, "dataset.json" if name.endswith("json") else name)


CSV = "source,question,answer,rating\n"
CSV_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), "cannot be read"),
    "pipe": (lambda path: os.mkfifo(path), "no regular file"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "broken link": (lambda path: path.symlink_to("gone"), "is a broken link: it leads to gone"),
    "nothing": (lambda path: None, "does not exist: give the CSV file"),
    "pointer": (lambda path: path.write_bytes(POINTER + b"v1\n"), "a pointer of Git LFS"),
    "packed": (lambda path: path.write_bytes(gzip.compress(CSV.encode())), "is a gzip file, not text"),
    "UTF-16": (lambda path: path.write_bytes(CSV.encode("utf-16")), "not UTF-8 text"),
    "semicolons": (lambda path: path.write_text(CSV.replace(",", ";")), "line 1"),
    "empty": (lambda path: path.write_text(""), "line 1"),
    "endless field": (lambda path: path.write_text(CSV + 'a,"' + "." * 200_000), "field larger than field limit"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices among the files")
@pytest.mark.parametrize(("make", "told"), CSV_FILES.values(), ids=CSV_FILES)
@pytest.mark.parametrize("read", [lambda path: list(read_csv(path)), lambda path: read_mazes([path])])
def test_what_is_no_csv_of_puzzles(
    tmp_path: Path, read: Callable[[Path], object], make: Callable[[Path], object], told: str
) -> None:
    file = tmp_path / "puzzles.csv"
    make(file)
    message = problem_of(lambda: read(file))
    assert message is not None
    assert str(file) in message
    assert told in message
