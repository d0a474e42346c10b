"""Bytes by run and place: everything is counted once, nothing outside the workspace is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hrm_engine.store.disk_usage import disk_usage, folder_bytes
from hrm_engine.store.paths import Workspace


def write(path: Path, num_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))


@pytest.fixture
def filled(tmp_path: Path) -> Workspace:
    """Two runs, an archived one, an expert, and a file in every other place."""
    place = Workspace(tmp_path / "workspace")
    run = place.brains / "a"
    sizes = {
        "training_args.json": 10,
        "metadata.json": 5,
        "model.safetensors": 1000,
        "model-00002-of-00002.safetensors": 500,
        "metrics.jsonl": 70,
        "run.log": 30,
        "wandb/run/x": 7,
        "best/model.safetensors": 900,
        "best/config.json": 3,
        "checkpoints/step_00000001/model.safetensors": 2000,
        "checkpoints/step_00000002/optimizer.safetensors": 3000,
        "checkpoints/.tmp-1-00000000-step_00000003/model.safetensors": 40,
        "evaluation/rows.jsonl": 20,
        "tokenizer.json": 50,
    }
    for name, size in sizes.items():
        write(run / name, size)
    write(place.runs / "b" / "training_args.json", 10)
    write(place.runs / "b" / "model.safetensors", 90)
    write(place.brains / ".archive" / "a-20260101T000000Z" / "training_args.json", 11)
    write(place.brains / ".archive" / "a-20260101T000000Z" / "checkpoints" / "step_00000001" / "x", 100)
    write(place.brains / "metrics.jsonl", 13)
    write(place.brains / ".tmp-1-00000000-killed" / "model.safetensors", 400)
    write(place.runs / ".old-1-00000000-killed" / "training_args.json", 4)
    write(place.experts / "poems" / "expert.safetensors", 300)
    write(place.experts / "poems" / "training_args.json", 8)
    write(place.experts / "registry.json", 12)
    write(place.notebooks / "quickstart-1" / "quickstart.ipynb", 60)
    write(place.base_model / "model.safetensors", 700)
    write(place.tokenizer_file, 17)
    write(place.goals, 21)
    write(place.training_data / "text.txt", 800)
    return place


def test_everything_is_counted_once(filled: Workspace) -> None:
    usage = disk_usage(filled)
    assert [run.path.name for run in usage.runs] == ["a", "a-20260101T000000Z", "b"]
    large, old, small = usage.runs
    assert (large.weights, large.checkpoints, large.best, large.metrics, large.other) == (1500, 5040, 903, 107, 85)
    assert large.num_checkpoints == 2
    assert (small.total, small.archived) == (100, False)
    assert (old.total, old.archived, old.checkpoints) == (111, True, 100)
    assert usage.places == {
        "runs": large.total + 100,
        "archived_runs": 111,
        "experts": 320,
        "notebooks": 60,
        "training_data": 800,
        "base_model": 717,
        "leftovers": 404,
        "other": 34,
    }
    assert usage.total == folder_bytes(filled.root)
    assert usage.disk_total >= usage.disk_free > 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_are_not_followed(filled: Workspace, tmp_path: Path) -> None:
    before = disk_usage(filled).total
    write(tmp_path / "outside" / "large", 5000)
    (filled.brains / "a" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    (filled.brains / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    (filled.brains / "loop").symlink_to(filled.brains, target_is_directory=True)
    assert disk_usage(filled).total == before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_what_cannot_be_read_counts_nothing(filled: Workspace) -> None:
    folder = filled.brains / "a" / "checkpoints"
    folder.chmod(0)
    try:
        assert disk_usage(filled).runs[0].checkpoints == 0
    finally:
        folder.chmod(0o755)


def test_an_empty_workspace(tmp_path: Path) -> None:
    usage = disk_usage(Workspace(tmp_path / "nowhere" / "yet"))
    assert (usage.runs, usage.total) == ([], 0)
    assert usage.disk_free > 0
