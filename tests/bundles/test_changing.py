"""Bundles copied, renamed and deleted: what stays, what is new, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.bundles.changing import (
    copy_bundle,
    delete_bundle,
    delete_old_checkpoints,
    find_changeable,
    made_of,
    rename_bundle,
)
from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import BundleError, CheckpointError, ConfigError, HRMError, LockedError
from hrm_engine.store.disk_usage import folder_bytes
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import sha256_file
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.training import train
from hrm_engine.training.run_folder import saved_config
from tests.tiny_experts import make_expert
from tests.tiny_runs import Lab, lasting_rows, rows

SMALL = {"steps": 4, "eval_every": 2, "save_every": 2}


@pytest.fixture(scope="module")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, trained once."""
    root = tmp_path_factory.mktemp("trained")
    (root / "training_data").mkdir()
    return Lab(root, source).train("base", **SMALL).run_dir


@pytest.fixture
def base(lab: Lab, trained: Path) -> Path:
    """That run in the test's own workspace."""
    shutil.copytree(trained, lab.run_dir("base"))
    return lab.run_dir("base")


def hashes(folder: Path) -> dict[str, str]:
    """Of every file but the lock."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf8")))


def test_a_copy_is_a_new_bundle_that_names_its_parent(lab: Lab, base: Path) -> None:
    before = hashes(base)
    copy = copy_bundle("base", "twin", workspace=lab.workspace)
    assert copy == lab.run_dir("twin")
    assert hashes(base) == before
    assert verify_bundle(copy) == []
    metadata, old = read(copy / "metadata.json"), read(base / "metadata.json")
    assert metadata["parent"] == {"path": str(base), "sha256": sha256_file(base / "metadata.json")}
    assert metadata["run_id"].startswith("twin-")
    kept = ("kind", "step", "weights", "last_metrics", "dataset_history", "device")
    assert {name: metadata[name] for name in kept} == {name: old[name] for name in kept}
    assert metadata["files"].keys() == old["files"].keys()
    assert {row["run_id"] for row in rows(copy)} == {metadata["run_id"]}
    assert lasting_rows(copy) == lasting_rows(base)
    for name in ("model.safetensors", "best/model.safetensors", "run.log", "tokenizer.json"):
        assert (copy / name).read_bytes() == (base / name).read_bytes()
    assert not (copy / "checkpoints").exists()
    assert load_bundle("twin", device="cpu", workspace=lab.workspace).messages == []
    [row] = [row for row in list_bundles(lab.workspace) if row.name == "twin"]
    assert (row.state, row.problems, row.parent) == ("finished", [], str(base))
    assert made_of(base, lab.workspace) == [copy]
    with pytest.raises(CheckpointError, match="no run to resume"):
        saved_config(copy, type(lab.config()))


def test_a_copy_with_checkpoints_goes_on_by_itself(lab: Lab, base: Path) -> None:
    before = hashes(base)
    (base / "checkpoints" / ".tmp-1-00000000-step_00000009").mkdir()
    damaged = base / "checkpoints" / "step_00000002" / "model.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"x")
    copy = copy_bundle("base", "twin", with_checkpoints=True, workspace=lab.workspace)
    assert [(info.step, info.problems) for info in list_checkpoints(copy)] == [(4, [])]
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["step_00000004"]
    lab.resume("twin", steps=6)
    metadata = read(copy / "metadata.json")
    assert (metadata["step"], metadata["parent"]["path"]) == (6, str(base))
    assert {row["run_id"] for row in rows(copy)} == {metadata["run_id"]}
    damaged.write_bytes(content)
    shutil.rmtree(base / "checkpoints" / ".tmp-1-00000000-step_00000009")
    assert hashes(base) == before
    lab.resume("base", steps=6)
    assert (copy / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_an_archived_bundle_is_copied_back(lab: Lab, base: Path) -> None:
    archived = base.parent / ".archive" / "base-20260101T000000Z"
    archived.parent.mkdir()
    base.rename(archived)
    with pytest.raises(BundleError, match="no run 'base'"):
        copy_bundle("base", "again", workspace=lab.workspace)
    assert copy_bundle(archived, "again", workspace=lab.workspace) == lab.run_dir("again")


def test_a_renamed_run_is_the_same_run(lab: Lab, base: Path) -> None:
    before = hashes(base)
    copy = copy_bundle("base", "twin", workspace=lab.workspace)
    renamed = rename_bundle("base", "better", workspace=lab.workspace)
    assert renamed == lab.run_dir("better")
    assert not base.exists()
    assert hashes(renamed) == before
    assert verify_bundle(renamed) == []
    assert made_of(renamed, lab.workspace) == [copy], "the hash still tells"
    lab.resume("better", steps=5)
    assert read(renamed / "metadata.json")["step"] == 5


def test_deleting_says_how_much_and_leaves_the_rest(lab: Lab, base: Path) -> None:
    copy = copy_bundle("base", "twin", workspace=lab.workspace)
    kept = hashes(copy)
    num_bytes = folder_bytes(base)
    assert num_bytes > 1_000_000
    # the lock's holder is noted for the moment of the deletion
    assert delete_bundle("base", workspace=lab.workspace) == pytest.approx(num_bytes, abs=1000)
    assert [path.name for path in base.parent.iterdir()] == ["twin"]
    assert hashes(copy) == kept
    assert made_of(copy, lab.workspace) == []


def test_what_cannot_be_loaded_can_still_be_renamed_and_deleted(lab: Lab, base: Path) -> None:
    (base / "metadata.json").unlink()
    (base / "config.json").write_text("{")
    with pytest.raises(BundleError, match="has not finished"):
        copy_bundle("base", "twin", workspace=lab.workspace)
    rename_bundle("base", "broken", workspace=lab.workspace)
    delete_bundle("broken", workspace=lab.workspace)
    assert list(base.parent.iterdir()) == []


def test_only_the_newest_whole_checkpoint_stays(lab: Lab, base: Path) -> None:
    folder = base / "checkpoints"
    shutil.copytree(folder / "step_00000004", folder / "step_00000007")
    (folder / "step_00000007" / "state.json").write_text("{}")
    gone, num_bytes = delete_old_checkpoints("base", workspace=lab.workspace)
    assert sorted(path.name for path in gone) == ["step_00000002", "step_00000007"]
    assert num_bytes > 1_000_000
    assert [path.name for path in folder.iterdir()] == ["step_00000004"]
    assert verify_bundle(base) == []
    lab.resume("base", steps=5)
    (folder / "step_00000004" / "state.json").write_text("{}")
    (folder / "step_00000005" / "state.json").write_text("{}")
    assert delete_old_checkpoints("base", workspace=lab.workspace) == ([], 0)
    assert len(list(folder.iterdir())) == 2


def test_a_folder_at_work_is_refused(lab: Lab, base: Path) -> None:
    before = hashes(base)
    with FolderLock(base):
        for change in (
            lambda: copy_bundle("base", "twin", workspace=lab.workspace),
            lambda: rename_bundle("base", "twin", workspace=lab.workspace),
            lambda: delete_bundle("base", workspace=lab.workspace),
            lambda: delete_old_checkpoints("base", workspace=lab.workspace),
        ):
            with pytest.raises(LockedError, match="base is locked by process"):
                change()
    assert hashes(base) == before
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_what_is_refused(lab: Lab, base: Path, tmp_path: Path) -> None:
    make_expert(lab.workspace, "poems", inner=256)
    (lab.workspace.experts / "poems" / "training_args.json").write_text("{}")
    (lab.workspace.runs / "base").mkdir(parents=True)
    (lab.workspace.runs / "base" / "training_args.json").write_text("{}")
    (lab.workspace.runs / "other").mkdir()
    (lab.workspace.runs / "link").symlink_to(tmp_path, target_is_directory=True)
    before = sorted(path.relative_to(lab.root) for path in lab.root.rglob("*"))
    path = Path("artifacts/brains/actv1/base")
    cases: list[tuple[Any, str, type[HRMError], str]] = [
        ("base", "x", ConfigError, "several runs are called base: name one by its id"),
        ("nobody", "x", BundleError, "no run 'nobody'.*Runs here: brains/actv1/base, runs/base"),
        ("../base", "x", ConfigError, "leads out of"),
        ("/etc", "x", ConfigError, "leads out of"),
        ("-rf", "x", ConfigError, "is not allowed"),
        ("", "x", ConfigError, "is not allowed"),
        ("link", "x", ConfigError, "leads out of"),
        ("poems", "x", BundleError, "is an expert"),
        ("other", "x", BundleError, "is no run folder"),
        (Path("artifacts/brains"), "x", BundleError, "is no run folder"),
        (path / "best", "x", BundleError, "is a checkpoint or a best/ folder"),
        (path / "checkpoints" / "step_00000004", "x", BundleError, "is a checkpoint or a best/ folder"),
        (path, "../x", ConfigError, "new name .* is not allowed"),
        (path, ".hidden", ConfigError, "new name .* is not allowed"),
        (path, "base", ConfigError, "exists: choose another new name"),
    ]
    for bundle, name, error, told in cases:
        for change in (copy_bundle, rename_bundle):
            with pytest.raises(error, match=told):
                change(bundle, name, workspace=lab.workspace)
        if name == "x":
            for change in (delete_bundle, delete_old_checkpoints):
                with pytest.raises(error, match=told):
                    change(bundle, workspace=lab.workspace)
    after = {path.relative_to(lab.root) for path in lab.root.rglob("*")}
    assert after - set(before) <= {path / ".lock"}
    assert set(before) <= after


def test_a_folder_of_runs_is_no_run_though_metrics_lie_in_it(lab: Lab, base: Path) -> None:
    (base.parent / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(BundleError, match="is no run folder"):
        find_changeable(base.parent, lab.workspace)
    (base.parent / "status.json").write_text("{}\n")
    with pytest.raises(BundleError, match="holds other runs"):
        find_changeable(base.parent, lab.workspace)


def test_runs_begun_from_a_bundle_are_known_before_they_have_finished(lab: Lab, base: Path) -> None:
    config = lab.config(student_init="artifacts/brains/actv1/base", brain_name="pupil", max_minutes=1e-6)
    pupil = train(config, workspace=lab.workspace).run_dir
    assert not (pupil / "metadata.json").exists()
    other = train(lab.config(brain_name="other", max_minutes=1e-6), workspace=lab.workspace).run_dir
    (other / "training_args.json").write_text("no json")
    assert made_of(base, lab.workspace) == [pupil]


def test_a_copy_holds_its_experts(lab: Lab, base: Path) -> None:
    make_expert(lab.workspace, "poems", inner=read(base / "config.json")["intermediate_size"])
    child = attach_expert("poems", "base", workspace=lab.workspace)
    copy = copy_bundle(child, "twin", workspace=lab.workspace)
    assert attached_experts(copy) == attached_experts(child)
    delete_bundle(child, workspace=lab.workspace)
    with pytest.raises(HRMError, match="is attached to .*twin"):
        ExpertRegistry(lab.workspace).delete("poems")
    delete_bundle(copy, workspace=lab.workspace)
    ExpertRegistry(lab.workspace).delete("poems")
