"""Full and read-only disks: a clear error, nothing that existed is lost, no half file or row stays."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hrm_engine.errors import StorageError
from hrm_engine.store.files import ensure_writable, new_folder, write_bytes, write_json
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.manifest import check_manifest, write_manifest
from hrm_engine.store.metrics import MetricsWriter
from hrm_engine.store.reader import MetricsReader
from hrm_engine.store.status import RunStatus, read_status, write_status

Mount = Callable[[str], Path]


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill the disk but for about ``leave`` bytes; returns the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.seek(0, 2) - leave))
    return filler


def test_a_full_disk_keeps_the_old_file_and_no_temporary(small_disk: Mount) -> None:
    disk = small_disk("64k")
    write_json(disk / "status.json", {"old": True})
    filler = fill(disk, leave=4096)
    with pytest.raises(StorageError, match="disk is full") as raised:
        write_bytes(disk / "status.json", bytes(40_000))
    assert raised.value.exit_code == 5
    assert json.loads((disk / "status.json").read_text()) == {"old": True}
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "status.json"]
    filler.unlink()
    write_json(disk / "status.json", {"new": True})
    assert json.loads((disk / "status.json").read_text()) == {"new": True}


def test_a_full_disk_during_a_checkpoint_keeps_the_one_before(small_disk: Mount) -> None:
    disk = small_disk("256k")
    first = disk / "checkpoints" / "step_00000001"
    with new_folder(first) as folder:
        (folder / "model.safetensors").write_bytes(bytes(100_000))
        write_manifest(folder)

    def second() -> None:
        with new_folder(disk / "checkpoints" / "step_00000002") as folder:
            (folder / "model.safetensors").write_bytes(bytes(100_000))
            (folder / "optimizer.safetensors").write_bytes(bytes(200_000))
            write_manifest(folder)

    with pytest.raises(StorageError, match=r"step_00000002.*disk is full"):
        second()
    assert check_manifest(first) == []
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["step_00000001"]


def test_a_full_disk_leaves_no_half_row_and_writing_goes_on_afterwards(small_disk: Mount) -> None:
    disk = small_disk("64k")
    path = disk / "metrics.jsonl"
    writer = MetricsWriter(path, "r")
    writer.write("train", 1, loss=1.0)
    filler = fill(disk, leave=8192)
    good = path.read_bytes()
    with pytest.raises(StorageError, match=r"metrics\.jsonl.*disk is full"):
        writer.write("sample", 2, text="x" * 30_000)
    assert path.read_bytes() == good
    filler.unlink()
    writer.write("train", 3, loss=1.0)
    writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]
    reader = MetricsReader(path)
    assert (reader.refresh().new_rows, reader.skipped_lines) == (2, 0)


def test_a_full_disk_under_a_copy_names_the_copy(small_disk: Mount, tmp_path: Path) -> None:
    disk = small_disk("64k")
    copy = disk / "all.jsonl"
    writer = MetricsWriter(tmp_path / "metrics.jsonl", "r", [copy])
    writer.write("train", 1)
    fill(disk, leave=8192)
    with pytest.raises(StorageError, match=r"all\.jsonl.*disk is full"):
        writer.write("sample", 2, text="x" * 30_000)
    writer.close()
    assert [json.loads(line)["step"] for line in copy.read_text().splitlines()] == [1]
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_completely_full_disk_is_found_before_the_first_step(small_disk: Mount) -> None:
    disk = small_disk("64k")
    (disk / "run").mkdir()
    fill(disk)
    with pytest.raises(StorageError, match="disk is full"):
        ensure_writable(disk / "run")
    assert list((disk / "run").iterdir()) == []


def test_a_read_only_disk_is_found_before_the_first_step(small_disk: Mount) -> None:
    disk = small_disk("256k")
    run = disk / "run"
    run.mkdir()
    status = RunStatus.of_this_process("stopped", 3)
    write_status(run, status)
    (run / "metrics.jsonl").write_text('{"event":"train","step":1,"loss":2}\n{"ev')
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    attempts: list[Callable[[], object]] = [
        lambda: ensure_writable(run),
        lambda: ensure_writable(disk / "new"),
        lambda: FolderLock(run).acquire(),
        lambda: write_status(run, status),
        lambda: MetricsWriter(run / "metrics.jsonl", "r"),
        lambda: new_folder(run / "checkpoints" / "step_00000001").__enter__(),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match="read-only"):
            attempt()
    assert read_status(run) == status
    reader = MetricsReader(run / "metrics.jsonl")
    assert reader.refresh().new_rows == 1
