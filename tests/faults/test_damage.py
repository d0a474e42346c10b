"""Damaged checkpoints and bundles: found by their hashes, named, never chosen, never loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.errors import BundleError, CheckpointError
from hrm_engine.optim.updater import SCALE_NAMES
from hrm_engine.store.manifest import write_manifest
from tests.tiny_runs import Forks, Lab, assert_same_end, lasting_rows, row_of


def truncate(path: Path) -> None:
    """Lose the second half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def grow(path: Path) -> None:
    """Gain a byte."""
    path.write_bytes(path.read_bytes() + b"\n")


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model.safetensors", truncate, "is cut off"),
    ("optimizer.safetensors", flip, "its sha256 is not the one that was written"),
    ("optimizer.safetensors", Path.unlink, "is missing"),
    ("state.json", flip, "its sha256 is not the one that was written"),
    ("tokenizer.json", grow, "has changed"),
    ("MANIFEST.json", truncate, "is damaged"),
    ("MANIFEST.json", Path.unlink, "is missing"),
]


@pytest.fixture
def interrupted(lab: Lab) -> Path:
    """A run of six steps stopped after four, with checkpoints at 2 and 4; beside it the uninterrupted one."""
    lab.trained("straight")
    return lab.interrupted("run", 4).run_dir


def test_the_newest_checkpoint_is_damaged(lab: Lab, interrupted: Path) -> None:
    whole = interrupted.with_name("whole")
    interrupted.rename(whole)
    for name, damage, how in DAMAGES:
        shutil.copytree(whole, interrupted)
        damage(interrupted / "checkpoints" / "step_00000004" / name)
        assert any(name in problem and how in problem for problem in verify_bundle(interrupted)), (name, how)
        result = lab.resume("run")
        assert result.state == "finished", (name, how)
        row = row_of(interrupted, "resume")
        assert (row["step"], row["from_checkpoint"]) == (2, "checkpoints/step_00000002"), (name, how)
        warning = " ".join(row["messages"])
        assert "checkpoint step_00000004 is damaged and was passed over" in warning
        assert name in warning
        assert how in warning
        assert_same_end(lab.run_dir("straight"), interrupted)
        # the damaged one has been written anew on the way
        assert verify_bundle(interrupted) == []
        shutil.rmtree(interrupted)


@pytest.mark.parametrize(
    "content",
    [{}, {"state": None}, {"state": []}, {"state": {"step": "x"}}, {"state": {"rows": -1}}, {"state": {}}],
    ids=str,
)
def test_a_state_that_is_none_of_a_training(lab: Lab, interrupted: Path, content: dict[str, object]) -> None:
    newest = interrupted / "checkpoints" / "step_00000004"
    state = json.loads((newest / "state.json").read_text())
    others = {"dataset_fingerprint": None} if content == {"state": {}} else {}
    kept = {name: value for name, value in state.items() if name not in ("state", *others)}
    (newest / "state.json").write_text(json.dumps({**kept, **content}))
    write_manifest(newest)
    with pytest.raises(CheckpointError, match=r"step_00000004/state\.json is not the state of a training"):
        lab.resume("run")


def test_tensors_that_are_none_of_this_training(lab: Lab, interrupted: Path) -> None:
    newest = interrupted / "checkpoints" / "step_00000004"
    for stem, gone in (("optimizer", SCALE_NAMES[0]), ("model", "lm_head.weight")):
        tensors = load_tensors(newest, stem)
        others = {name: tensor for name, tensor in tensors.items() if name != gone}
        for changed in (others, {**tensors, "another": tensors[gone]}, {**others, gone: tensors[gone][None, None]}):
            save_tensors(newest, stem, changed)
            write_manifest(newest)
            with pytest.raises(CheckpointError, match="step_00000004|'another'"):
                lab.resume("run")
        save_tensors(newest, stem, tensors)
        write_manifest(newest)
    assert lab.resume("run").state == "finished"


def test_nothing_is_begun_anew_when_all_checkpoints_are_damaged(lab: Lab, interrupted: Path) -> None:
    for step in (2, 4):
        flip(interrupted / "checkpoints" / f"step_{step:08d}" / "model.safetensors")
    before = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"step_00000004 is damaged.*step_00000002 is damaged.*--fresh"):
        lab.resume("run")
    assert {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()} == before


def test_a_link_is_no_checkpoint(lab: Lab, interrupted: Path) -> None:
    newest = interrupted / "checkpoints" / "step_00000004"
    newest.rename(lab.root / "elsewhere")
    newest.symlink_to(lab.root / "elsewhere", target_is_directory=True)
    lab.resume("run")
    assert row_of(interrupted, "resume")["from_checkpoint"] == "checkpoints/step_00000002"
    assert "is a link, not a folder of this run" in " ".join(row_of(interrupted, "resume")["messages"])


def test_damaged_best_weights_are_not_used(lab: Lab, interrupted: Path) -> None:
    flip(interrupted / "best" / "model.safetensors")
    assert lab.resume("run", eval_every=100).state == "finished"
    # the last evaluation, at the last step, is the best again
    assert lasting_rows(interrupted)[-1]["event"] == "sample"
    assert load_bundle(interrupted).metadata["weights"] == {"which": "best", "step": 6}


def test_the_best_weights_outlive_damage_to_one_copy(lab: Lab) -> None:
    # so large a rate that every evaluation is worse than the one before
    worse = {"lr": 0.3, "warmup_steps": 0, "lr_scheduler": "constant", "amp": False, "eval_every": 2, "seed": 1}
    run_dir = lab.interrupted("run", 5, **worse).run_dir
    whole = shutil.copytree(run_dir, lab.root / "whole")
    best, evaluation = (run_dir / "best" / name for name in ("model.safetensors", "evaluation.json"))
    kept, measured = best.read_bytes(), evaluation.read_text()
    flip(best)
    lab.resume("run")
    assert best.read_bytes() == kept == (run_dir / "model.safetensors").read_bytes()
    assert evaluation.read_text() == measured
    assert load_bundle(run_dir).metadata["weights"] == {"which": "best", "step": json.loads(measured)["step"]}
    assert verify_bundle(run_dir) == []
    message = " ".join(row_of(run_dir, "resume")["messages"])
    assert "best/, the weights of step" in message
    assert "its sha256 is not the one that was written. It was made again of model.safetensors" in message
    assert "It was made again of model.safetensors" in (run_dir / "run.log").read_text()

    shutil.rmtree(run_dir)
    whole.rename(run_dir)
    for path in (best, run_dir / "model.safetensors"):
        flip(path)
    lab.resume("run")
    assert "There is no copy of them" in " ".join(row_of(run_dir, "resume")["messages"])
    assert load_bundle(run_dir).metadata["weights"] == {"which": "best", "step": 6}
    assert verify_bundle(run_dir) == []
    flip(best)
    evaluation.with_name("MANIFEST.json").unlink()
    lab.resume("run", steps=6)
    assert verify_bundle(run_dir) == []


def test_best_weights_of_a_later_step_than_the_checkpoint_are_not_taken_for_its_own(lab: Lab) -> None:
    """As a kill leaves them between an evaluation and the next save."""
    later = lab.trained("later").run_dir
    run_dir = lab.interrupted("run", 4).run_dir
    ahead, own = (json.loads((path / "best" / "evaluation.json").read_text())["step"] for path in (later, run_dir))
    assert (ahead, own) == (6, 3)
    shutil.rmtree(run_dir / "best")
    shutil.copytree(later / "best", run_dir / "best")
    (lab.root / "STOP").touch()
    result = lab.resume("run", stop_file="STOP")
    assert (result.step, result.best_eval) == (4, None)
    bundle = load_bundle(run_dir)
    assert bundle.metadata["weights"] == {"which": "last", "step": 4}
    assert not torch.equal(bundle.model.lm_head.weight, load_bundle(later).model.lm_head.weight)
    lab.resume("run")
    assert_same_end(later, run_dir)


def test_damaged_best_weights_are_not_sealed_as_if_they_were_whole(lab: Lab, interrupted: Path) -> None:
    for path in (interrupted / "best" / "model.safetensors", interrupted / "model.safetensors"):
        flip(path)
    assert lab.resume("run", interrupt_at=5, eval_every=100).state == "stopped"
    assert load_bundle(interrupted).metadata["weights"] == {"which": "last", "step": 5}
    assert verify_bundle(interrupted) == [
        "best/model.safetensors has changed: its sha256 is not the one that was written"
    ]


def test_a_damaged_bundle_is_named_refused_and_rebuilt(lab: Lab) -> None:
    lab.trained("straight")
    run_dir = lab.trained("run").run_dir
    for name in ("model.safetensors", "tokenizer.json", "config.json", "training_args.json"):
        flip(run_dir / name)
        problems = verify_bundle(run_dir)
        assert problems[0] == f"{name} has changed: its sha256 is not the one that was written"
        assert "--resume rebuilds them" in problems[1]
        with pytest.raises(BundleError, match=f"cannot be loaded: {name} has changed"):
            load_bundle("run", workspace=lab.workspace)
        if name == "training_args.json":  # what the run is resumed from
            shutil.copy(lab.run_dir("straight") / name, run_dir / name)
        lab.resume("run")
        assert verify_bundle(run_dir) == []
        load_bundle("run", workspace=lab.workspace)
    assert_same_end(lab.run_dir("straight"), run_dir)


def test_saved_arguments_that_are_damaged_are_named(lab: Lab, interrupted: Path) -> None:
    truncate(interrupted / "training_args.json")
    with pytest.raises(CheckpointError, match=r"training_args\.json, line \d+"):
        lab.resume("run")
    (interrupted / "training_args.json").write_text(json.dumps({"schema_version": 99, "parameters": {}}))
    with pytest.raises(CheckpointError, match=r"training_args\.json has schema_version 99"):
        lab.resume("run")
    (interrupted / "training_args.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(CheckpointError, match=r"training_args\.json holds no parameters"):
        lab.resume("run")


def test_damaged_runs_are_listed_with_their_problems(lab: Lab, interrupted: Path) -> None:
    truncate(interrupted / "model.safetensors")
    infos = {info.name: info for info in list_bundles(lab.workspace)}
    assert infos["straight"].problems == []
    assert infos["run"].problems[0].startswith("model.safetensors is cut off")
    assert infos["run"].num_parameters is None


def test_the_command_line_says_it_without_a_traceback(lab: Lab, forks: Forks, interrupted: Path) -> None:
    flip(interrupted / "model.safetensors")
    assert forks.run(lab.root, "bundle", "verify", "run") == 2
    assert forks.run(lab.root, "generate", "--bundle", "run", "--prompt", "the") == 2
    assert "model.safetensors has changed" in lab.output().replace("\n", " ")
    assert "Traceback" not in lab.output()
