"""Full and read-only disks under a trainer: a clear error, exit code 5, and nothing that existed is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hrm_engine.bundles.exchange.hf_export import export_folder
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.errors import StorageError
from hrm_engine.starting.implant import create_implant
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.paths import Workspace
from hrm_engine.store.status import live_state
from hrm_engine.training import train
from tests.tiny_runs import Forks, Lab, assert_same_end, flags, lasting_rows, rows

Mount = Callable[[str], Path]


def fill(disk: Path, *, leave: int = 0) -> None:
    """Fill a disk but for about ``leave`` bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.seek(0, 2) - leave))


def leftovers(run_dir: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.name for path in run_dir.rglob(".*") if path.name not in (".lock", ".lock.json")]


@pytest.mark.parametrize("leave", [0, 40_000, 800_000], ids=["at once", "in a small file", "in a large file"])
def test_full_while_saving(lab: Lab, small_disk: Mount, leave: int) -> None:
    disk = small_disk("32m")
    lab.trained("straight")
    settings = lab.config(brain_name="run", bundle_dir=str(disk))

    def observe(row: dict[str, object]) -> None:
        if row["event"] == "train" and row["step"] == 4:
            fill(disk, leave=leave)

    with pytest.raises(StorageError, match="the disk is full") as raised:
        train(settings, workspace=lab.workspace, observer=observe)
    assert raised.value.exit_code == 5
    run_dir = disk / "run"
    assert json.loads((run_dir / "status.json").read_text())["state"] == "failed"
    assert live_state(run_dir) == "failed"
    assert [(info.step, info.problems) for info in list_checkpoints(run_dir)] == [(2, [])]
    assert leftovers(run_dir) == []
    assert all(json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines())
    (disk / "filler").unlink()
    assert train(settings, resume=True, workspace=lab.workspace).state == "finished"
    assert verify_bundle(run_dir) == []
    assert_same_end(lab.run_dir("straight"), run_dir)


def test_full_while_another_library_writes(lab: Lab, small_disk: Mount) -> None:
    disk, names = small_disk("32m"), ("implant", "export")
    (disk / "artifacts").mkdir()
    lab.trained("run")
    for leave in (0, 20_000, 60_000):
        fill(disk, leave=leave)
        small = Workspace(disk)
        with pytest.raises(StorageError, match=r"cannot (write|create the folder) .*: the disk is full"):
            create_implant(workspace=small, dataset_file=lab.text, vocab_size=300, hidden_size=512)
        with pytest.raises(StorageError, match=r"cannot (write|create the folder) .*: the disk is full"):
            export_folder("run", disk / "exported", workspace=lab.workspace, segments=1)
        assert not any(path.is_file() for path in disk.rglob("*") if path.name != "filler"), names
    (disk / "filler").unlink()
    export_folder("run", disk / "exported", workspace=lab.workspace, segments=1)
    assert len({path.stat().st_mode for path in (disk / "exported").iterdir()}) == 1


def test_full_while_writing_rows(lab: Lab, small_disk: Mount) -> None:
    disk = small_disk("32m")
    lab.train("straight", save_every=3)
    settings = lab.config(brain_name="run", bundle_dir=str(disk), save_every=3)

    def observe(row: dict[str, object]) -> None:
        if row["event"] == "train" and row["step"] == 4:
            fill(disk)
            with (disk / "run" / "metrics.jsonl").open("rb+") as file:  # no room in the last block either
                size = file.seek(0, 2)
                file.write(b" " * (-size % 4096 - 10) + b"\n")

    with pytest.raises(StorageError, match=r"metrics\.jsonl.*the disk is full"):
        train(settings, workspace=lab.workspace, observer=observe)
    content = (disk / "run" / "metrics.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert [row["step"] for row in rows_that_are(content, "train")] == [1, 2, 3, 4]
    (disk / "filler").unlink()
    assert train(settings, resume=True, workspace=lab.workspace).state == "finished"
    ended = (disk / "run" / "metrics.jsonl").read_bytes()
    assert [row["step"] for row in rows_that_are(ended, "train")] == [1, 2, 3, 4, 4, 5, 6]


def rows_that_are(content: bytes, event: str) -> list[dict[str, object]]:
    """The rows of an event; every line but blank ones must be whole."""
    found = [json.loads(line) for line in content.splitlines() if line.strip()]
    return [row for row in found if row["event"] == event]


def test_full_before_the_first_step(lab: Lab, small_disk: Mount) -> None:
    disk = small_disk("1m")
    fill(disk)
    with pytest.raises(StorageError, match="the disk is full"):
        lab.train("run", bundle_dir=str(disk))
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_too_small_for_a_checkpoint_at_all(lab: Lab, small_disk: Mount) -> None:
    disk = small_disk("1m")
    with pytest.raises(StorageError, match=r"step_00000002.*the disk is full"):
        lab.train("run", bundle_dir=str(disk), eval_batches=0)
    run_dir = disk / "run"
    assert leftovers(run_dir) == []
    assert list((run_dir / "checkpoints").iterdir()) == []
    assert rows(run_dir)[-1]["event"] == "stop"
    assert "the disk is full" in rows(run_dir)[-1]["reason"]
    assert json.loads((run_dir / "status.json").read_text())["state"] == "failed"


def test_a_full_disk_under_the_copy_of_the_metrics(lab: Lab, small_disk: Mount) -> None:
    disk = small_disk("16k")
    with pytest.raises(StorageError, match=r"copy\.jsonl.*the disk is full"):
        lab.train("run", log_file=str(disk / "copy.jsonl"), steps=500, save_every=500, eval_every=500)
    copied = (disk / "copy.jsonl").read_bytes()
    assert copied.endswith(b"\n")
    assert len(lasting_rows(lab.run_dir("run"))) > 10


def test_read_only_is_found_before_the_first_step(lab: Lab, small_disk: Mount) -> None:
    disk = small_disk("16m")
    run_dir = train(lab.config(brain_name="run", bundle_dir=str(disk)), workspace=lab.workspace).run_dir
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StorageError, match="read-only"):
        lab.train("other", bundle_dir=str(disk))
    config = lab.config(brain_name="run", bundle_dir=str(disk))
    with pytest.raises(StorageError, match="read-only"):
        train(config, resume=True, given={"steps": 7}, workspace=lab.workspace)
    assert verify_bundle(run_dir) == []


def test_the_process_ends_with_exit_code_5(lab: Lab, forks: Forks, small_disk: Mount) -> None:
    disk = small_disk("1m")
    settings = lab.settings(brain_name="run", bundle_dir=str(disk))
    assert forks.run(lab.root, "train", "actv1", *flags(settings)) == 5
    assert "the disk is full" in lab.output().replace("\n", " ")
    assert "Traceback" not in lab.output()
    assert "Logging error" not in lab.output()
