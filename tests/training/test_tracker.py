"""Weights & Biases, offline: the real package writes what the run's own file holds; without it, one sentence."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_engine.errors import MissingExtraError
from tests.tiny_puzzles import PuzzleLab

BLOCK, HEADER = 32768, 7
WRITING_LIMIT_S = 60.0


def records(file: Path) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: LevelDB's log format, blocks of 32 KiB with (checksum, length, type) before
    each piece, behind 7 bytes that name the format. Types: 1 whole, 2 first, 3 middle, 4 last piece of a record."""
    data, place, record = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += HEADER + length
        if place > len(data):
            return  # still being written
        record += data[place - length : place]
        if kind in (1, 4):
            yield record
            record = b""


def logged(folder: Path) -> list[dict[str, float]]:
    """The history of an offline run without the package's own columns; waits for the end of the file."""
    from wandb.proto.wandb_internal_pb2 import Record

    # A process of the package writes the file, on a busy machine a moment after the run has finished.
    (file,) = folder.glob("offline-run-*/run-*.wandb")
    read: list[Record] = []
    until = time.monotonic() + WRITING_LIMIT_S
    while not any(record.WhichOneof("record_type") == "exit" for record in read) and time.monotonic() < until:
        read = [Record.FromString(data) for data in records(file)]
        time.sleep(0.1)
    rows = []
    for record in read:
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows.append({key: json.loads(value) for key, value in items.items() if not key.startswith("_")})
    return rows


def test_an_offline_run_holds_the_rows_of_the_run(puzzle_lab: PuzzleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = puzzle_lab.train("tracked", wandb="offline")
    rows = logged(result.run_dir / "wandb")
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    own = [line["loss"] for line in lines if line["event"] == "train"]
    assert own
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx(own)
    evals = [line["exact_accuracy_by_segment"][0] for line in lines if line["event"] == "eval"]
    tracked = [row["eval/exact_accuracy_by_segment/1"] for row in rows if "eval/exact_accuracy_by_segment/1" in row]
    assert set(tracked) <= set(evals)
    assert tracked


def test_without_the_package_a_sentence_says_how_to_get_it(
    puzzle_lab: PuzzleLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"--wandb offline needs the package wandb: .*constraints\.txt wandb$"):
        puzzle_lab.train("untracked", wandb="offline")
    assert not puzzle_lab.run_dir("untracked").exists()
