"""Which folder a run gets: nothing is overwritten, and what cannot start leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.bundles.listing import list_bundles
from hrm_engine.config.kinds import PUZZLE, TEXT
from hrm_engine.errors import BundleError, ConfigError, DataError, HRMError, LockedError, StorageError
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import find_run
from hrm_engine.training import Trainer, train
from hrm_engine.training.run_folder import claim_folder, existing_run
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, row_of


def names(lab: Lab) -> list[str]:
    """What lies in the folder of the runs, hidden things included."""
    return sorted(path.name for path in lab.workspace.brains.iterdir()) if lab.workspace.brains.exists() else []


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the lock, which holds nothing."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_runs_without_a_name_are_numbered(lab: Lab) -> None:
    results = [lab.train(steps=1, eval_batches=0) for _ in range(3)]
    assert [result.run_dir.name for result in results] == ["default", "default-2", "default-3"]
    assert names(lab) == ["default", "default-2", "default-3"]


def test_an_explicit_name_that_exists_is_refused_and_untouched(lab: Lab) -> None:
    before = contents(lab.trained("brain", steps=1, eval_batches=0).run_dir)
    with pytest.raises(ConfigError, match=r"brain exists.*--resume.*--fresh"):
        lab.train("brain", steps=1, eval_batches=0)
    assert contents(lab.run_dir("brain")) == before


def test_a_taken_name_is_refused_before_the_data_is_read(lab: Lab) -> None:
    lab.train("brain", steps=1, eval_batches=0)
    with pytest.raises(ConfigError, match="brain exists"):
        lab.train("brain", dataset_file="training_data/missing.txt")


def test_fresh_moves_the_old_run_to_the_archive(lab: Lab) -> None:
    before = contents(lab.trained("brain", steps=1, eval_batches=0).run_dir)
    for _ in range(2):  # twice within a second: the archive keeps both
        train(lab.config(brain_name="brain", steps=2, eval_batches=0), fresh=True, workspace=lab.workspace)
    archived = sorted((lab.workspace.brains / ".archive").iterdir())
    assert len(archived) == 2
    assert all(folder.name.startswith("brain-20") for folder in archived)
    assert contents(archived[0]) == before
    assert str(archived[1]) in " ".join(row_of(lab.run_dir("brain"), "start")["messages"])
    assert row_of(lab.run_dir("brain"), "final")["step"] == 2


def test_fresh_without_a_name_begins_default_again(lab: Lab) -> None:
    lab.train(steps=1, eval_batches=0)
    result = train(lab.config(steps=1, eval_batches=0), fresh=True, workspace=lab.workspace)
    assert result.run_dir.name == "default"
    assert names(lab) == [".archive", "default"]


def test_fresh_refuses_while_a_trainer_is_at_work(lab: Lab) -> None:
    result = lab.trained("brain", steps=1, eval_batches=0)
    with FolderLock(result.run_dir), pytest.raises(LockedError, match=f"process {os.getpid()}"):
        train(lab.config(brain_name="brain", steps=1), fresh=True, workspace=lab.workspace)
    assert names(lab) == ["brain"]


def test_resume_and_fresh_exclude_each_other(lab: Lab) -> None:
    result = lab.trained("brain", steps=1, eval_batches=0)
    with pytest.raises(ConfigError, match="--resume and --fresh"):
        train(lab.config(brain_name="brain"), resume=True, fresh=True, given={}, workspace=lab.workspace)
    assert result.run_dir.is_dir()


BAD_NAMES = [
    "../x",
    "a/b",
    "a\\b",
    "/etc/x",
    "C:\\x",
    "x" * 300,
    "a\0b",
    ".hidden",
    "",
    " ",
    "%252e",
    "é",
    "-x",
    "..",
    "a\n",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_hostile_names_are_refused(lab: Lab, name: str) -> None:
    for attempt in (lambda: lab.train(name), lambda: lab.resume(name)):
        with pytest.raises(ConfigError, match="not allowed"):
            attempt()
    assert names(lab) == []


def test_a_name_that_is_a_link_out_of_the_folder_is_refused(lab: Lab, tmp_path: Path) -> None:
    outside = lab.train("inside", steps=1, eval_batches=0).run_dir.rename(tmp_path / "outside")
    before = contents(outside)
    lab.run_dir("link").symlink_to(outside, target_is_directory=True)
    lab.run_dir("nowhere").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    for attempt in (
        lambda: lab.resume("link"),
        lambda: lab.train("link"),
        lambda: train(lab.config(brain_name="link"), fresh=True, workspace=lab.workspace),
        lambda: lab.train("nowhere"),
    ):
        with pytest.raises(ConfigError, match="leads out of"):
            attempt()
    assert contents(outside) == before
    assert not (tmp_path / "nowhere").exists()


BAD_STARTS: dict[str, tuple[dict[str, Any], type[HRMError], str]] = {
    "no data": ({"dataset_file": "training_data/missing.txt"}, DataError, "missing.txt: no such file"),
    "empty data": ({"dataset_file": "training_data/empty.txt"}, DataError, "empty.txt: the file is empty"),
    "one document": ({"dataset_file": "training_data/one.txt"}, DataError, "at least 2 are needed"),
    "a field that is not there": (
        {"dataset_file": "training_data/rows.jsonl"},
        DataError,
        r"rows\.jsonl.*line 1.*text",
    ),
    "no evaluation data": ({"eval_file": "training_data/missing.txt"}, DataError, "missing.txt: no such file"),
    "a model that is nowhere": ({"model": "nobody/nothing"}, ConfigError, "nobody/nothing.*lab implant"),
    "a student that does not fit": (
        {"student_init": "training_data/s.safetensors"},
        BundleError,
        "embed_tokens.weight is missing",
    ),
    "a device that is not there": ({"device": "cuda:99", "strict": True}, ConfigError, "--device cuda:99"),
    "a log file that is a folder": ({"log_file": "training_data"}, StorageError, "training_data"),
}


@pytest.mark.parametrize("what", BAD_STARTS)
def test_a_failed_start_leaves_no_folder(lab: Lab, what: str) -> None:
    settings, error, message = BAD_STARTS[what]
    data = lab.root / "training_data"
    (data / "empty.txt").write_text("")
    (data / "one.txt").write_text("only one document\n")
    (data / "rows.jsonl").write_text('{"body": "no text field"}\n')
    import torch
    from safetensors.torch import save_file

    save_file({"some.weight": torch.zeros(3)}, data / "s.safetensors")
    with pytest.raises(error, match=message):
        lab.train("brain", **settings)
    assert names(lab) == []
    assert lab.train("brain", steps=1, eval_batches=0).run_dir.name == "brain"


def test_a_failed_fresh_start_moves_nothing_away(lab: Lab) -> None:
    before = contents(lab.trained("brain", steps=1, eval_batches=0).run_dir)
    config = lab.config(brain_name="brain", student_init="training_data/missing.safetensors")
    with pytest.raises(BundleError, match="missing.safetensors"):
        train(config, fresh=True, workspace=lab.workspace)
    assert names(lab) == ["brain"]
    assert contents(lab.run_dir("brain")) == before


def test_a_file_in_the_folders_place_is_found_before_step_0(lab: Lab) -> None:
    (lab.root / "in-the-way").write_text("mine")
    for place in ("in-the-way", "in-the-way/deeper"):
        with pytest.raises(StorageError, match="in-the-way.*: .*choose another") as raised:
            lab.train("brain", bundle_dir=place)
        assert raised.value.exit_code == 5
    lab.workspace.brains.mkdir(parents=True)
    lab.run_dir("taken").write_text("mine")
    with pytest.raises(ConfigError, match="taken exists"):
        lab.train("taken")
    assert [(lab.root / "in-the-way").read_text(), lab.run_dir("taken").read_text()] == ["mine", "mine"]


def test_a_start_that_was_killed_at_once_does_not_block_its_name(lab: Lab) -> None:
    claim_folder(lab.config(brain_name="brain"), lab.workspace, resume=False, fresh=False)[0].release()
    assert names(lab) == ["brain"]
    with pytest.raises(ConfigError, match="there is no run 'brain'.*start it without --resume"):
        lab.resume("brain")
    assert lab.train("brain", steps=1, eval_batches=0).step == 1


def test_a_folder_of_somebody_else_is_not_taken(lab: Lab) -> None:
    lab.run_dir("notes").mkdir(parents=True)
    (lab.run_dir("notes") / "ideas.txt").write_text("mine")
    with pytest.raises(ConfigError, match="notes exists"):
        lab.train("notes")
    assert contents(lab.run_dir("notes")) == {"ideas.txt": b"mine"}


def test_bundle_dir_is_taken_from_the_workspace_root(lab: Lab, tmp_path: Path) -> None:
    assert lab.train("a", steps=1, eval_batches=0, bundle_dir="elsewhere").run_dir == lab.root / "elsewhere" / "a"
    absolute = lab.train("a", steps=1, eval_batches=0, bundle_dir=str(tmp_path / "abs"))
    assert absolute.run_dir == tmp_path / "abs" / "a"
    assert f"{absolute.run_dir} is outside of the workspace" in row_of(absolute.run_dir, "start")["messages"][-1]
    # that inside the workspace is listed and found, as are those in the usual place; no folder is listed that leads out
    lab.train("b", steps=1, eval_batches=0)
    assert [bundle.path for bundle in list_bundles(lab.workspace)] == [lab.run_dir("b"), lab.root / "elsewhere" / "a"]
    assert find_run("a", lab.workspace) == find_run("elsewhere/a", lab.workspace) == lab.root / "elsewhere" / "a"
    (lab.workspace.run_homes).write_text('{"folders": ["../abs", "/", 3, null, "elsewhere"]}')
    assert [path.name for path in lab.workspace.run_dirs()] == ["b", "a"]


def test_the_workspace_is_found_by_itself(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="brain", steps=1, eval_batches=0)) as trainer:
        assert trainer.workspace == Workspace.find() == lab.workspace
        assert trainer.run_dir == lab.run_dir("brain")
        trainer.step()
        trainer.finish()
    assert json.loads((lab.run_dir("brain") / "status.json").read_text())["state"] == "finished"


def test_an_unnamed_resume_takes_the_run_that_a_training_made(lab: Lab) -> None:
    first = lab.train(steps=1, eval_batches=0).run_dir
    for name, origin in {"default-poems": {"made_of": str(first)}, "default-x": {"imported_from": "hub/x"}}.items():
        (first.parent / name).mkdir()
        (first.parent / name / "training_args.json").write_text(json.dumps(origin))
    assert existing_run(None, first.parent, TEXT.run, 2) == first


def test_an_unnamed_solver_has_a_name_of_its_own(puzzle_lab: PuzzleLab) -> None:
    config = puzzle_lab.config(run_name=None, steps=2, eval_every=2)
    first, second = (train(config, workspace=puzzle_lab.workspace).run_dir for _ in range(2))
    assert (first.name, second.name) == ("solver", "solver-2")
    with pytest.raises(ConfigError, match="say which run with --run-name: solver, solver-2"):
        existing_run(None, first.parent, PUZZLE.run, 3)
    # unnamed solvers of version 0.1
    shutil.rmtree(second)
    first.rename(first.with_name("default"))
    assert existing_run(None, first.parent, PUZZLE.run, 3) == first.with_name("default")
    assert existing_run("runs/default", first.parent, PUZZLE.run) == first.with_name("default")
    for other in ("brains/actv1/default", "../runs/default"):
        with pytest.raises(ConfigError, match="--run-name"):
            existing_run(other, first.parent, PUZZLE.run)
