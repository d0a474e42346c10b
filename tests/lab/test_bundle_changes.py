"""``lab bundle copy | rename | delete`` and ``lab disk``, as they are typed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from hrm_engine.store.files import write_json
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.dashboard.run_folders import write_checkpoint, write_run
from tests.tiny_runs import Lab


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_bundle_is_copied_renamed_and_deleted(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train("base", steps=2)
    brains = "artifacts/brains/actv1"
    assert run(capsys, "bundle", "copy", "base", "twin") == (0, f"Copied base to {brains}/twin.\n", "")
    code, out, _ = run(capsys, "bundle", "rename", "base", "old")
    assert (code, out.splitlines()[0]) == (0, f"Renamed base to {brains}/old.")
    assert f"{brains}/twin names its old path" in out
    assert run(capsys, "bundle", "verify", "twin")[0] == 0
    code, out, err = run(capsys, "bundle", "delete", "old")
    assert code == 2
    assert f"{brains}/twin names it as the origin" in out
    assert f"Delete {brains}/old (" in err
    assert "add --yes" in err
    code, out, _ = run(capsys, "bundle", "delete", "old", "--yes")
    assert code == 0
    assert f"Deleted {brains}/old. " in out
    assert "MB are free again." in out
    assert [path.name for path in lab.workspace.run_dirs()] == ["twin"]


def test_the_answer_no_deletes_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(workspace, "a", last=5)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert run(capsys, "bundle", "delete", "a")[:2] == (0, "Nothing was deleted.\n")
    assert (folder / "metadata.json").is_file()


def test_old_checkpoints_alone(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(workspace, "a", last=5)
    for step in (2, 4):
        write_checkpoint(folder, step)
    code, out, _ = run(capsys, "bundle", "delete", "a", "--old-checkpoints", "--yes")
    assert code == 0
    assert "step_00000002. 4." in out
    assert [info.step for info in list_checkpoints(folder)] == [4]
    code, out, _ = run(capsys, "bundle", "delete", "a", "--old-checkpoints", "--yes")
    assert "none: there is no older one" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("copy", "a", "../b"), "new name '../b' is not allowed"),
        (("rename", "a", "b"), "b exists: choose another new name"),
        (("rename", "../../etc", "c"), "leads out of"),
        (("delete", "nobody", "--yes"), "no run 'nobody'"),
        (("copy", "a", "c"), "cannot be loaded"),
    ],
)
def test_refused_in_one_sentence(
    workspace: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        folder = write_run(workspace, name, last=5)
        write_json(folder / "metadata.json", {"schema_version": 1, "files": {"x": {"bytes": 1, "sha256": "0" * 64}}})
    code, out, err = run(capsys, "bundle", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert sorted(path.name for path in Workspace(workspace).run_dirs()) == ["a", "b"]


def test_disk(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "disk")
    assert code == 0
    assert "free on the disk" in out
    for number in range(3):
        write_checkpoint(write_run(workspace, f"r{number}", last=5, ago=timedelta(days=number)), 3, 1000 * (number + 1))
    code, out, _ = run(capsys, "disk", "-n", "2")
    lines = out.splitlines()
    assert lines[0].split() == ["run", "total", "weights", "checkpoints", "best", "metrics", "other"]
    assert [line.split()[0] for line in lines[1:3]] == [f"artifacts/brains/actv1/r{number}" for number in (2, 1)]
    assert "and 1 more; -n 0 shows all" in out
    assert "lab bundle delete artifacts/brains/actv1/r2 --old-checkpoints" in out
    code, out, _ = run(capsys, "disk", "--json")
    content = json.loads(out)
    assert [Path(found["path"]).name for found in content["runs"]] == ["r2", "r1", "r0"]
    assert content["total"] == sum(content["places"].values()) == sum(found["total"] for found in content["runs"])
    assert run(capsys, "disk", "-n", "-1")[0] == 2
