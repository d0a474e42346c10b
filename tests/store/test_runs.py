"""One look-up of runs: names, ids and paths mean the same run in every command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hrm_engine.errors import BundleError, ConfigError, HRMError
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import find_run, pick_run, run_id, shared_name
from lab.cli.app import main

SHARED = "several runs are called same: name one by its id. They are brains/actv1/same, runs/same"


def make_run(home: Path, name: str) -> Path:
    folder = home / name
    folder.mkdir(parents=True)
    (folder / "training_args.json").write_text("{}")
    (folder / "run.log").write_text(f"log of {folder}\n")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two runs that share a name, one that has its own, and an expert."""
    monkeypatch.setenv("HRM_LAB_ROOT", str(tmp_path))
    lab = Workspace(tmp_path)
    make_run(lab.brains, "same")
    make_run(lab.runs, "same")
    make_run(lab.runs, "lone")
    make_run(lab.experts, "poems")
    return lab


def test_a_run_has_a_name_an_id_and_paths(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    lone, same = place.runs / "lone", place.runs / "same"
    for name in (
        "lone",
        "runs/lone",
        "artifacts/runs/lone",
        str(lone),
        lone,
        Path("runs/lone"),
        "./artifacts/runs/lone",
    ):
        assert find_run(name, place) == lone
    for folder in place.run_dirs():
        assert find_run(run_id(folder, place), place) == folder
    assert find_run("poems", place) == place.experts / "poems"
    (same / "checkpoints" / "step_00000002").mkdir(parents=True)
    (same / "checkpoints" / "step_00000002" / "config.json").write_text("{}")
    assert find_run("runs/same/checkpoints/step_00000002", place) == same / "checkpoints" / "step_00000002"
    (lone / "checkpoints" / "step_00000003").mkdir(parents=True)
    (lone / "checkpoints" / "step_00000003" / "config.json").write_text("{}")
    assert find_run("lone/checkpoints/step_00000003", place) == lone / "checkpoints" / "step_00000003"
    with pytest.raises(ConfigError, match="several runs are called same"):
        find_run("same/checkpoints/step_00000002", place)
    with pytest.raises(BundleError, match="no run 'lone/checkpoints/step_9'"):
        find_run("lone/checkpoints/step_9", place)
    # a path means what lies there, where that is a run
    (place.root / "runs" / "same").mkdir(parents=True)
    assert find_run("runs/same", place) == same
    here = make_run(place.root / "runs", "lone")
    assert find_run("runs/lone", place) == here
    assert find_run("artifacts/runs/lone", place) == lone


def test_a_run_that_has_only_just_begun_and_a_start_that_was_killed(place: Workspace) -> None:
    begun = place.runs / "begun"
    begun.mkdir()
    with pytest.raises(BundleError, match="begun is no run folder: 'lab bundle list' shows"):
        find_run("begun", place)
    (begun / "status.json").write_text("{}")
    assert find_run("begun", place) == begun
    (place.brains / "lone").mkdir()
    assert find_run("lone", place) == place.runs / "lone"


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "same"),
        ("bundle", "show", "same"),
        ("bundle", "verify", "same"),
        ("bundle", "copy", "same", "x"),
        ("bundle", "rename", "same", "x"),
        ("bundle", "delete", "same", "--yes"),
        ("bundle", "export", "same", "x", "--format", "trm"),
        ("bundle", "export", "same", "x", "--format", "hf"),
        ("generate", "--bundle", "same", "--prompt", "a"),
        ("solve", "--bundle", "same"),
        ("eval", "text", "--bundle", "same"),
        ("experts", "detach", "poems", "--bundle", "same"),
        ("train", "actv1", "--from-checkpoint", "same", "--steps", "1"),
        ("train", "puzzle", "--from-checkpoint", "same", "--steps", "1"),
        ("train", "actv1", "--student-init", "same", "--dataset-file", "x.txt", "--steps", "1"),
    ],
    ids=" ".join,
)
def test_a_shared_name_is_ambiguous_in_every_command(
    place: Workspace, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.root.rglob("*"))
    assert main(list(words)) == 2
    assert " ".join(capsys.readouterr().err.split()).removeprefix("error: ") == SHARED
    assert sorted(place.root.rglob("*")) == before


def test_ids_mean_the_same_run_in_commands_that_show_and_that_change(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "runs/same"]) == 0
    assert capsys.readouterr().out == f"log of {place.runs / 'same'}\n"
    assert main(["bundle", "show", "runs/same", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(place.runs / "same")
    assert main(["bundle", "rename", "runs/same", "other"]) == 0
    assert main(["bundle", "delete", "brains/actv1/same", "--yes"]) == 0
    assert [run_id(folder, place) for folder in place.run_dirs()] == ["experts/poems", "runs/lone", "runs/other"]


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "runs/../../x", "..", "", "a b", "~root/x", "a\0b", "runs/nobody", "runs"]
)
def test_what_names_no_run(place: Workspace, name: str) -> None:
    with pytest.raises(HRMError):
        find_run(name, place)


def test_the_runs_that_exist_are_told(place: Workspace) -> None:
    with pytest.raises(BundleError, match="no run 'nobody' in .*: brains/actv1/same, lone, runs/same$"):
        find_run("nobody", place)


@pytest.mark.skipif(os.name != "posix", reason="making symbolic links needs a privilege elsewhere")
def test_a_link_out_of_the_runs_is_refused(place: Workspace, tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside", "run")
    (place.runs / "link").symlink_to(outside)
    for name in ("link", "runs/link", "artifacts/runs/link"):
        with pytest.raises(ConfigError, match="leads out"):
            find_run(name, place)
    assert find_run(outside, place) == outside


def test_pages_pick_among_the_runs_they_show(place: Workspace) -> None:
    runs = place.run_dirs()
    assert pick_run("runs/same", runs, place) == place.runs / "same"
    assert pick_run("lone", runs, place) == place.runs / "lone"
    assert pick_run("same", runs, place) is None
    assert pick_run("artifacts/runs/same", runs, place) is None
    assert shared_name("same", runs, place) == SHARED
    assert shared_name("lone", runs, place) is None
