"""Links and files in the places that a run writes in: nothing outside of its folder is read, written or removed."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dashboard.queries.folder import log_tail
from dashboard.queries.scan import MetricsScan
from hrm_engine.bundles.changing import delete_old_checkpoints
from hrm_engine.errors import ConfigError, StorageError
from hrm_engine.store.files import new_folder
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.reader import MetricsReader
from hrm_engine.training import train
from lab.cli.app import main
from tests.tiny_runs import Lab, files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="making symbolic links needs a privilege there")


def test_a_run_folder_is_not_written_or_read_through_links(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, outside = lab.interrupted("run", 4).run_dir, lab.root / "outside"
    before = files(run_dir)
    for name in ("metrics.jsonl", "run.log", "checkpoints", "best", "wandb"):
        entry = run_dir / name
        if entry.exists():
            entry.rename(outside)
        entry.symlink_to(outside)
        with pytest.raises(ConfigError, match=f"{name}: it is a link, and none is followed"):
            lab.resume("run")
        if name == "run.log":
            assert main(["logs", "run"]) == 2
            assert "it is a link" in capsys.readouterr().err
            assert log_tail(entry) is None
        elif name == "metrics.jsonl":
            assert MetricsReader(entry).refresh().missing
            scan = MetricsScan(entry)
            scan.look()
            assert scan.last_train is None
        elif name == "checkpoints":
            assert list_checkpoints(run_dir) == []
            assert delete_old_checkpoints("run", workspace=lab.workspace) == ([], 0)
        entry.unlink()
        if outside.exists():
            outside.rename(entry)
    assert files(run_dir) == before
    assert lab.resume("run").state == "finished"


def test_a_link_that_comes_while_a_run_goes_on_is_not_followed(lab: Lab) -> None:
    outside = lab.root / "outside"
    before: dict[str, bytes] = {}

    def observe(row: dict[str, Any]) -> None:
        if (row["event"], row["step"]) == ("train", 3):
            (lab.run_dir("run") / "checkpoints").rename(outside)
            (lab.run_dir("run") / "checkpoints").symlink_to(outside)
            before.update(files(outside))

    with pytest.raises(StorageError, match="checkpoints: it is a link"):
        train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert files(outside) == before != {}


def test_a_file_in_the_place_of_a_folder_is_not_deleted(lab: Lab) -> None:
    best = lab.interrupted("run", 2).run_dir / "best"
    best.write_text("mine")
    with pytest.raises(ConfigError, match="best is a file, and a run keeps a folder of that name: move the file away"):
        lab.resume("run")
    with pytest.raises(StorageError, match="something of that name is in the way"), new_folder(best, replace=True):
        pass
    assert best.read_text() == "mine"
