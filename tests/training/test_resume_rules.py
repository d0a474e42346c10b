"""``--resume``: the saved settings, the few that may change, and the data that may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.config import flat, leaves
from hrm_engine.config.text import TextTrainConfig
from hrm_engine.errors import CheckpointError, ConfigError, DataError
from hrm_engine.store.manifest import write_manifest
from hrm_engine.store.status import read_status
from hrm_engine.training import train
from hrm_engine.training.run_folder import resumed_config
from tests.tiny_runs import TEXT, Lab, assert_same_end, files, final_files, lasting_rows, row_of, rows, text

MAY_CHANGE = {
    "save_every",
    "keep_last",
    "eval_every",
    "log_file",
    "stop_file",
    "max_minutes",
    "steps",
    "samples",
    "allow_other_base",
}
MAY_MOVE = {"dataset_file", "eval_file"}


def test_the_flags_that_may_change_are_those_of_the_contract() -> None:
    known = leaves(TextTrainConfig)
    assert {name for name, leaf in known.items() if leaf.may_change_on_resume} == MAY_CHANGE | MAY_MOVE
    assert {name for name, leaf in known.items() if leaf.is_place_of_data} == MAY_MOVE


def test_a_flag_that_differs_names_both_values_and_changes_nothing(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    before = files(run_dir)
    with pytest.raises(ConfigError) as raised:
        lab.resume("run", lr=0.5, batch_size=4, seed=0, text_field="other")
    message = str(raised.value)
    assert "--lr is 0.003 in the saved run, 0.5 was given" in message
    assert "--batch-size is 2 in the saved run, 4 was given" in message
    assert "--text-field is text in the saved run, other was given" in message
    assert "--seed" not in message
    assert files(run_dir) == before


def test_flags_that_agree_are_accepted(lab: Lab) -> None:
    lab.interrupted("run", 3)
    assert lab.resume("run", **lab.settings()).state == "finished"


def test_from_python_everything_that_is_no_default_must_agree(lab: Lab) -> None:
    lab.interrupted("run", 3)
    with pytest.raises(ConfigError, match=r"--lr is 0.003 in the saved run, 0.1 was given"):
        train(lab.config(brain_name="run", lr=0.1), resume=True, workspace=lab.workspace)
    result = train(lab.config(brain_name="run"), resume=True, workspace=lab.workspace)
    assert (result.run_dir.name, result.step) == ("run", 6)


def test_the_allowed_changes_are_made(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    given = {
        "steps": 9,
        "save_every": 1,
        "keep_last": 2,
        "eval_every": 4,
        "log_file": "copy.jsonl",
        "stop_file": "STOP",
        "max_minutes": 5.0,
        "samples": False,
    }
    assert set(given) == MAY_CHANGE - {"allow_other_base"}  # which is of experts
    result = lab.resume("run", **given)
    assert (result.state, result.step) == ("finished", 9)
    saved = json.loads((run_dir / "training_args.json").read_text())["parameters"]
    assert (saved["run"]["steps"], saved["run"]["keep_last"], saved["evaluation"]["eval_every"]) == (9, 2, 4)
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step_00000008", "step_00000009"]
    assert [row["step"] for row in rows(run_dir) if row["event"] == "eval"] == [0, 3, 4, 8, 9]
    copied = [json.loads(line) for line in (lab.root / "copy.jsonl").read_text().splitlines()]
    assert copied == [row for row in rows(run_dir) if row["step"] > 3 or row["event"] == "resume"]


def test_steps_may_grow_but_not_shrink(lab: Lab) -> None:
    run_dir = lab.trained("run").run_dir
    before = files(run_dir)
    with pytest.raises(ConfigError, match="--steps is 6 in the saved run, 4 was given"):
        lab.resume("run", steps=4)
    assert files(run_dir) == before


def test_a_resumed_run_keeps_its_folder_whatever_its_name(lab: Lab) -> None:
    for _ in range(2):
        lab.train(steps=2, eval_batches=0)
    with pytest.raises(ConfigError, match="say which run with --brain-name: default, default-2"):
        lab.resume(steps=3)
    assert lab.resume("default-2", steps=3).run_dir == lab.run_dir("default-2")
    lab.run_dir("default-2").rename(lab.run_dir("renamed"))
    assert lab.resume("renamed", steps=4).run_dir == lab.run_dir("renamed")
    assert row_of(lab.run_dir("renamed"), "resume")["step"] == 3
    assert not lab.run_dir("default-2").exists()
    # now there is one default: no name is needed
    assert lab.resume(steps=3).run_dir == lab.run_dir("default")


def test_a_run_in_another_folder_is_found_there(lab: Lab) -> None:
    lab.train("run", steps=2, eval_batches=0, bundle_dir="elsewhere")
    (lab.root / "elsewhere").rename(lab.root / "moved")
    given = {"steps": 3, "brain_name": "run", "bundle_dir": Path("moved")}
    config = resumed_config(TextTrainConfig, given, lab.workspace)
    assert (flat(config)["brain_name"], flat(config)["bundle_dir"]) == ("run", "moved")
    result = train(config, resume=True, given={"steps": 3}, workspace=lab.workspace)
    assert (result.run_dir, result.step) == (lab.root / "moved" / "run", 3)


def test_a_name_that_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="there is no run 'nobody'"):
        lab.resume("nobody")
    with pytest.raises(ConfigError, match="there is no run 'default'"):
        lab.resume()
    assert not lab.workspace.brains.exists()


def test_without_a_checkpoint_it_starts_at_0_and_says_so(lab: Lab) -> None:
    lab.trained("straight")
    with pytest.raises(KeyboardInterrupt):
        _break_off(lab, "run", 3)
    assert list(lab.run_dir("run").glob("checkpoints/*")) == []
    run_id = rows(lab.run_dir("run"))[0]["run_id"]
    assert lab.resume("run").state == "finished"
    resumed = row_of(lab.run_dir("run"), "resume")
    assert (resumed["step"], resumed["from_checkpoint"]) == (0, None)
    assert "--resume: no checkpoint yet, starting at step 0" in resumed["messages"]
    assert {row["run_id"] for row in rows(lab.run_dir("run"))} == {run_id}
    assert lasting_rows(lab.run_dir("run")) == lasting_rows(lab.run_dir("straight"))


def _break_off(lab: Lab, name: str, at_step: int) -> None:
    """A run that ends like one that was killed, without a checkpoint."""

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == at_step:
            raise KeyboardInterrupt

    train(lab.config(brain_name=name, save_every=100), workspace=lab.workspace, observer=observe)


def test_data_that_changed_is_refused_unless_it_is_allowed(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    original = lab.text.read_text()
    before, status = files(run_dir), read_status(run_dir)
    lab.text.write_text(original.replace("cat", "bat", 1))
    with pytest.raises(DataError, match=r"text\.txt is not what it was.*--allow-changed-data"):
        lab.resume("run")
    assert files(run_dir) == before
    assert read_status(run_dir) == status
    result = lab.resume("run", allow_changed_data=True)
    assert result.state == "finished"
    assert "continuing on the new data" in " ".join(row_of(run_dir, "resume")["messages"])
    history = json.loads((run_dir / "metadata.json").read_text())["dataset_history"]
    assert [(entry["dataset"], entry["rows"]) for entry in history] == [(TEXT, 6), (TEXT, 12)]
    assert history[0]["fingerprint"] != history[1]["fingerprint"]


def test_data_that_was_restored_is_accepted(lab: Lab) -> None:
    lab.trained("straight")
    lab.interrupted("run", 3)
    original = lab.text.read_bytes()
    lab.text.write_text("something else\n\nentirely\n")
    with pytest.raises(DataError, match="--allow-changed-data"):
        lab.resume("run")
    lab.text.unlink()
    with pytest.raises(DataError, match="no such file"):
        lab.resume("run")
    lab.text.write_bytes(original)
    lab.resume("run")
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_data_that_moved_is_known_by_its_fingerprint(lab: Lab) -> None:
    folder, held_out = lab.root / "training_data", "training_data/held_out.txt"
    (lab.root / held_out).write_text(text(5, seed=9))
    lab.train("straight", eval_file=held_out)
    run_dir = lab.interrupted("run", 3, eval_file=held_out).run_dir
    before, moved = files(run_dir), lab.root / "moved.txt"
    lab.text.rename(moved)
    with pytest.raises(DataError, match=r"text\.txt: no such file.* name its new place: --resume --dataset-file PATH"):
        lab.resume("run")
    (folder / "other.txt").write_text("something else\n\nentirely\n")
    with pytest.raises(DataError, match=r"other\.txt or .*held_out\.txt is not what it was.*--allow-changed-data"):
        lab.resume("run", dataset_file="training_data/other.txt")
    assert files(run_dir) == before
    lab.resume("run", dataset_file="moved.txt", interrupt_at=5)
    message = f"moved.txt holds the data that was {TEXT}: its fingerprint is the same"
    assert message in row_of(run_dir, "resume")["messages"]
    # from here on it is taken from there, and of a session that was killed too
    for name in ("training_args.json", "metadata.json"):
        (run_dir / name).write_bytes(before[name])
    (lab.root / held_out).rename(lab.root / "held_out.txt")
    with pytest.raises(DataError, match=r"held_out\.txt: no such file.*--resume --eval-file PATH"):
        lab.resume("run")
    assert lab.resume("run", eval_file="held_out.txt").state == "finished"
    assert lasting_rows(run_dir) == lasting_rows(lab.run_dir("straight"))
    weights = [lab.run_dir(name) / "model.safetensors" for name in ("straight", "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    history = json.loads((run_dir / "metadata.json").read_text())["dataset_history"]
    assert [(entry["dataset"], entry["rows"]) for entry in history] == [("moved.txt", 12)]


def test_evaluation_data_that_changed_is_refused_too(lab: Lab) -> None:
    held_out = lab.root / "training_data" / "held_out.txt"
    held_out.write_text(text(5, seed=9))
    lab.interrupted("run", 3, eval_file="training_data/held_out.txt")
    held_out.write_text(text(5, seed=8))
    with pytest.raises(DataError, match=r"text\.txt or .*held_out\.txt is not what it was.*--allow-changed-data"):
        lab.resume("run")


def test_a_tokenizer_that_changed_elsewhere_does_not_matter(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(lab.tokenizer, folder)
    lab.train("straight", model=str(folder))
    lab.interrupted("run", 3, model=str(folder))
    shutil.rmtree(folder)
    lab.resume("run")
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_a_model_of_another_shape_names_the_keys(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    checkpoint = run_dir / "checkpoints" / "step_00000003"
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
    write_manifest(checkpoint)
    with pytest.raises(
        CheckpointError, match=r"embed_tokens\.weight has shape \(300, 64\), the model needs \(301, 64\)"
    ):
        lab.resume("run")


def test_a_checkpoint_of_a_newer_version_is_refused_clearly(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    checkpoint = run_dir / "checkpoints" / "step_00000003"
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({**state, "schema_version": 2}))
    write_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=r"state\.json has schema_version 2.*newer one; update HRM Lab"):
        lab.resume("run")


def test_the_optimizer_of_another_model_names_the_key(lab: Lab) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint = lab.interrupted("run", 3).run_dir / "checkpoints" / "step_00000003"
    tensors = load_file(checkpoint / "optimizer.safetensors")
    save_file({**tensors, "no_such_layer.weight.exp_avg": torch.zeros(2)}, checkpoint / "optimizer.safetensors")
    write_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=r"no_such_layer\.weight\.exp_avg"):
        lab.resume("run")


def test_resuming_says_where_it_goes_on(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    lab.resume("run")
    row = row_of(run_dir, "resume")
    assert (row["step"], row["total_steps"], row["from_checkpoint"]) == (3, 6, "checkpoints/step_00000003")
    assert rows(run_dir)[0]["run_id"] == row["run_id"]
    assert "state" in final_files(run_dir)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_run_with_nothing_left_to_do_says_so_and_stays_as_it_is(lab: Lab, is_old: bool) -> None:
    first = lab.trained("run")
    if is_old:  # what version 0.1 left
        metadata = json.loads((first.run_dir / "metadata.json").read_text())
        left = {name: value for name, value in metadata.items() if name not in ("planned_steps", "is_complete", "seal")}
        (first.run_dir / "metadata.json").write_text(json.dumps({**left, "schema_version": 1}))
    before = files(first.run_dir)
    again = lab.resume("run", save_every=1, observer=lambda row: pytest.fail(f"{row} was written"))
    assert files(first.run_dir) == before
    assert (again.state, again.step, again.exit_code) == ("finished", 6, 0)
    assert again.message == "Nothing is left to do; --resume with more --steps trains it further"
    assert (again.first_eval, again.last_eval, again.best_eval) == (first.first_eval, first.last_eval, first.best_eval)
    assert lab.resume("run", steps=7).step == 7


def test_a_damaged_bundle_is_something_to_do(lab: Lab) -> None:
    weights = lab.trained("run").run_dir / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert lab.resume("run").message == "finished"
    assert weights.read_bytes() == whole


def test_without_a_name_the_unnamed_run_with_work_left_goes_on(lab: Lab) -> None:
    lab.train()
    with pytest.raises(ConfigError, match="nothing is left to do for default; give more --steps, or say which run"):
        lab.resume()
    lab.interrupted("default-2", 3)
    assert lab.resume().run_dir.name == "default-2"
    assert lab.resume("default", steps=7).step == 7
    with pytest.raises(ConfigError, match="nothing is left to do for default, default-2"):
        lab.resume()
    with pytest.raises(ConfigError, match="say which run with --brain-name: default, default-2"):
        lab.resume(steps=9)
