"""``--from-checkpoint``: a fork ends in the bits of its parent, may differ from there on, and leaves it alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.config import PuzzleTrainConfig, TextTrainConfig
from hrm_engine.config.training import Beginning
from hrm_engine.data.puzzles.sudoku.build import build_sudokus
from hrm_engine.errors import BundleError, CheckpointError, ConfigError, DataError
from hrm_engine.store.files import sha256_file
from hrm_engine.store.reader import MetricsReader
from hrm_engine.training import TrainResult, settle, train
from hrm_engine.training.run_folder import saved_config
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, files, interrupter, lasting_rows, row_of, rows, text
from tests.training.expert_runs import expert_config, train_expert

STEP = "checkpoints/step_00000004"
OWN = ("created", "trained_s", "parent", "best_step", "best_score", "evals_since_best", "first_eval", "first_score")
"""Of the state of a fork, what is not its parent's."""


def fork(lab: Lab, source: str | Path, name: str | None = "fork", **options: Any) -> TrainResult:
    """A fork of a text run; options that are no settings as ``train`` has them."""
    own = {key: options.pop(key) for key in ("fresh", "observer", "resume") if key in options}
    given = {**options, **({} if name is None else {"brain_name": name})}
    return train(lab.config(brain_name=name), from_checkpoint=source, given=given, workspace=lab.workspace, **own)


def fork_puzzles(lab: PuzzleLab, source: Path, **given: Any) -> TrainResult:
    """A fork of a puzzle run."""
    config, given = lab.config(run_name="fork"), {"run_name": "fork", **given}
    return train(config, from_checkpoint=source, given=given, workspace=lab.workspace)


def last_state(run_dir: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Tensors and counters of the last checkpoint."""
    newest = max((run_dir / "checkpoints").glob("step_*"))
    state = json.loads((newest / "state.json").read_text())["state"]
    tensors = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    return tensors, {name: value for name, value in state.items() if name not in OWN}


def assert_same_bits(parent: Path, child: Path, *, after: int) -> None:
    """Weights, optimizer, average, task, counters and rows are equal."""
    (expected, counters), (found, own_counters) = last_state(parent), last_state(child)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert own_counters == counters
    assert lasting_rows(child)[-1]["step"] == lasting_rows(parent)[-1]["step"]
    later = [row for row in lasting_rows(parent) if row["step"] > after]
    assert [row for row in lasting_rows(child) if row["step"] > after] == later


KINDS: dict[str, dict[str, Any]] = {
    "amp": {},
    "moving average": {"ema_decay": 0.8, "amp": False},
    "shuffled, 8-bit": {"linear_dataset": False, "use_8bit_optimizer": True, "amp": False},
    "experts": {"use_moe": True, "amp": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_same_settings_it_ends_in_the_same_bits(lab: Lab, kind: str) -> None:
    parent = lab.trained("parent", **KINDS[kind], warmup_steps=1).run_dir
    before = files(parent)
    child = fork(lab, parent / STEP)
    assert (child.state, child.step) == ("finished", 6)
    assert files(parent) == before
    assert_same_bits(parent, child.run_dir, after=4)


def test_puzzles_end_in_the_same_bits(puzzle_lab: PuzzleLab) -> None:
    parent = puzzle_lab.train("parent", ema_decay=0.9).run_dir
    before = files(parent)
    child = fork_puzzles(puzzle_lab, parent / STEP)
    assert files(parent) == before
    assert_same_bits(parent, child.run_dir, after=4)


def test_what_the_folder_says(lab: Lab) -> None:
    parent = lab.trained("parent").run_dir
    child = fork(lab, parent / STEP, steps=8, lr=1e-3).run_dir
    start = rows(child)[0]
    assert (start["event"], start["step"], start["total_steps"]) == ("start", 4, 8)
    assert start["from_checkpoint"] == f"artifacts/brains/actv1/parent/{STEP}"
    assert f"a fork of {parent / STEP}, from step 4 on" in start["messages"]
    events = [(row["event"], row["step"]) for row in rows(child) if row["event"] in ("eval", "train")]
    assert events[:3] == [("eval", 4), ("train", 5), ("train", 6)]
    metadata = json.loads((child / "metadata.json").read_text())
    seal = {"path": str(parent / STEP), "sha256": sha256_file(parent / STEP / "MANIFEST.json"), "step": 4}
    assert metadata["parent"] == seal
    assert metadata["step"] == 8
    assert metadata["run_id"] != json.loads((parent / "metadata.json").read_text())["run_id"]
    assert metadata["dataset_history"][0]["rows"] == 16
    saved = saved_config(child, TextTrainConfig)
    assert (saved.run.brain_name, saved.run.steps, saved.optim.lr) == ("fork", 8, 1e-3)
    reader = MetricsReader(child / "metrics.jsonl")
    reader.refresh()
    assert reader.rows("train")["step"].tolist() == [5, 6, 7, 8]


def test_it_has_its_own_schedule_over_its_own_steps(lab: Lab) -> None:
    parent = lab.trained("parent", warmup_steps=1).run_dir
    lab.train("long", warmup_steps=1, steps=9)
    child = fork(lab, parent / STEP, steps=9).run_dir
    wanted, found = (
        {row["step"]: row["lr"] for row in lasting_rows(run) if row["event"] == "train" and row["step"] > 4}
        for run in (lab.run_dir("long"), child)
    )
    assert found == wanted


def test_a_run_folder_or_its_name_means_its_newest_checkpoint(lab: Lab) -> None:
    parent = lab.trained("parent").run_dir
    newest = parent / "checkpoints" / "step_00000006"
    for number, source in enumerate((parent, "parent", newest)):
        start = rows(fork(lab, source, f"fork-{number}", steps=7, eval_batches=0).run_dir)[0]
        assert (start["step"], start["from_checkpoint"]) == (6, newest.relative_to(lab.root).as_posix())
    (newest / "state.json").write_text("{}")
    start = rows(fork(lab, parent, "earlier", steps=7, eval_batches=0).run_dir)[0]
    assert start["step"] == 4
    assert any("step_00000006 is damaged and was passed over" in message for message in start["messages"])


def test_without_a_name_it_takes_the_next_free_one(lab: Lab) -> None:
    parent = lab.train(eval_batches=0).run_dir
    child = fork(lab, parent, name=None, steps=7).run_dir
    assert (parent.name, child.name) == ("default", "default-2")


def test_the_settings_of_a_session_are_not_taken_over(lab: Lab) -> None:
    own = {"log_file": "copy.jsonl", "stop_file": "STOP", "max_minutes": 50.0, "bundle_dir": "elsewhere"}
    parent = lab.train("parent", eval_batches=0, **own).run_dir
    copied = (lab.root / "copy.jsonl").read_bytes()
    child = fork(lab, parent, steps=7).run_dir
    assert child == lab.run_dir("fork")
    run = saved_config(child, TextTrainConfig).run
    assert (run.log_file, run.stop_file, run.max_minutes) == (None, None, None)
    assert (lab.root / "copy.jsonl").read_bytes() == copied


def test_a_fork_is_resumed_like_any_run(lab: Lab) -> None:
    parent = lab.trained("parent", ema_decay=0.8).run_dir
    fork(lab, parent / STEP, "straight", steps=9, lr=1e-3)
    stopped = fork(lab, parent / STEP, "interrupted", steps=9, lr=1e-3, observer=interrupter(6))
    assert (stopped.state, stopped.step) == ("stopped", 6)
    shutil.rmtree(parent)
    lab.resume("interrupted")
    assert last_state(lab.run_dir("interrupted")) == last_state(lab.run_dir("straight"))
    assert lasting_rows(lab.run_dir("interrupted")) == lasting_rows(lab.run_dir("straight"))
    metadata = json.loads((lab.run_dir("interrupted") / "metadata.json").read_text())
    assert metadata["parent"]["path"] == str(parent / STEP)


def test_without_a_checkpoint_of_its_own_it_begins_again_with_its_parent(lab: Lab) -> None:
    parent = lab.trained("parent").run_dir
    fork(lab, parent / STEP, "straight", steps=9)

    def killed(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 5:
            raise KeyboardInterrupt

    for name in ("killed", "orphan"):
        with pytest.raises(KeyboardInterrupt):
            fork(lab, parent / STEP, name, steps=9, observer=killed)
    lab.resume("killed")
    row = row_of(lab.run_dir("killed"), "resume")
    assert row["step"] == 4
    assert f"--resume: no checkpoint yet, starting again from {parent / STEP}" in row["messages"]
    assert last_state(lab.run_dir("killed")) == last_state(lab.run_dir("straight"))
    assert lasting_rows(lab.run_dir("killed")) == lasting_rows(lab.run_dir("straight"))
    shutil.rmtree(parent / STEP)
    with pytest.raises(BundleError, match="no run"):
        lab.resume("orphan")


def test_settings_that_may_change(lab: Lab) -> None:
    parent = lab.trained("parent", eval_batches=0, amp=False, use_moe=True).run_dir
    before = files(parent)
    other = lab.root / "training_data" / "other.txt"
    other.write_text(text(60, seed=4))
    changed = {
        "steps": 7,
        "dataset_file": "training_data/other.txt",
        "batch_size": 3,
        "gradient_accumulation_steps": 2,
        "seed": 3,
        "max_seq_len": 24,
        "h_cycles": 2,
        "halt_max_steps": 3,
        "num_experts_per_tok": 1,
        "lr_scheduler": "constant",
        "eval_batches": 1,
        "keep_last": 1,
    }
    cut = fork(lab, parent / STEP, "cut", steps=5, max_seq_len=24)
    assert not [message for message in rows(cut.run_dir)[0]["messages"] if "is not what was trained on" in message]
    child = fork(lab, parent / STEP, **changed)
    assert child.step == 7
    assert files(parent) == before
    messages = rows(child.run_dir)[0]["messages"]
    assert "h_cycles is 2 from here on; it was 1" in messages
    assert "max_seq_len is 24 from here on; it was 16" in messages
    assert "training_data/other.txt is not what was trained on up to here" in messages
    history = json.loads((child.run_dir / "metadata.json").read_text())["dataset_history"]
    assert [(entry["dataset"], entry["rows"]) for entry in history] == [
        ("training_data/text.txt", 8),
        ("training_data/other.txt", 26),
    ]
    config = json.loads((child.run_dir / "config.json").read_text())
    assert (config["h_cycles"], config["halt_max_steps"], config["max_seq_len"]) == (2, 3, 24)
    assert lab.resume("fork", steps=8).step == 8


RULES: list[dict[str, Any]] = [{"optimizer": "muon"}, {"use_8bit_optimizer": True}, {"model_dtype": "bf16"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_another_optimizer_begins_anew_and_says_so(lab: Lab, rule: dict[str, Any]) -> None:
    parent = lab.trained("parent", eval_batches=0, amp=False).run_dir
    child = fork(lab, parent, steps=7, **rule)
    said = " ".join(rows(child.run_dir)[0]["messages"])
    name, value = next(iter(rule.items()))
    assert f"the optimizer's state begins anew: --{name.replace('_', '-')} is {value} and was" in said
    assert child.step == 7


def test_a_moving_average_is_begun_or_left_out(lab: Lab) -> None:
    plain = lab.train("plain", eval_batches=0).run_dir
    begun = fork(lab, plain, "begun", steps=7, ema_decay=0.9).run_dir
    assert "the moving average begins with the weights of the checkpoint" in rows(begun)[0]["messages"]
    assert json.loads((begun / "metadata.json").read_text())["weights"] == {"which": "last", "step": 7, "average": 0.9}
    ended = fork(lab, begun, "ended", steps=8, ema_decay=0.0).run_dir
    assert "the moving average of the checkpoint is left out (--ema-decay 0)" in rows(ended)[0]["messages"]


def test_puzzles_with_other_slots_or_data_begin_with_fresh_rows(puzzle_lab: PuzzleLab) -> None:
    parent = puzzle_lab.trained("parent", eval_rows=0).run_dir
    taken = json.loads((parent / STEP / "state.json").read_text())["state"]["rows"]
    fresh = "all slots begin with fresh rows: they are not as many as in the checkpoint, or of other data"
    build_sudokus(output_dir=puzzle_lab.root / "other", size=4, count=12, test_count=2, blanks=6, seed=1)
    changes: list[tuple[dict[str, Any], int]] = [({"batch_size": 5}, 5), ({"data_path": "other"}, 8)]
    for number, (given, slots) in enumerate(changes):
        child = fork_puzzles(puzzle_lab, parent / STEP, run_name=f"fork-{number}", **given)
        first = next(row for row in rows(child.run_dir) if row["event"] == "train")
        assert fresh in rows(child.run_dir)[0]["messages"]
        assert first["rows"] == taken + slots
    assert (first["epoch"], first["dataset_position"]) == (1, 8)
    kept = fork_puzzles(puzzle_lab, parent / STEP, run_name="kept", lr=1e-4, halt_max_steps=2)
    assert fresh not in rows(kept.run_dir)[0]["messages"]


def test_steps_take_the_place_of_epochs(puzzle_lab: PuzzleLab) -> None:
    parent = puzzle_lab.train("parent", epochs=2, eval_rows=0)
    assert parent.step == 6
    config = settle(PuzzleTrainConfig, {"steps": 9}, Beginning(from_checkpoint=parent.run_dir), puzzle_lab.workspace)
    assert (config.run.epochs, config.run.steps) == (None, 9)
    assert fork_puzzles(puzzle_lab, parent.run_dir, steps=9).step == 9


def test_an_expert_is_forked_under_another_id(lab: Lab) -> None:
    parent = train_expert(lab, "first", steps=4).run_dir
    before = files(parent)
    config = expert_config(lab, "second", steps=6)
    given = {"expert_id": "second", "steps": 6}
    result = train(config, from_checkpoint=parent, given=given, workspace=lab.workspace)
    assert (result.step, result.run_dir.name) == (6, "second")
    assert files(parent) == before
    with pytest.raises(ConfigError, match="a fork leaves its parent as it is"):
        train(config, from_checkpoint=parent, given={**given, "expert_id": "first"}, workspace=lab.workspace)
    assert files(parent) == before


@pytest.fixture
def parent(lab: Lab) -> Path:
    """A finished run without evaluations."""
    return lab.trained("parent", eval_batches=0).run_dir


def refused(lab: Lab, source: str | Path, error: type[Exception], match: str, **given: Any) -> None:
    """A fork that is refused leaves no folder, and what it names as it was."""
    before = files(lab.run_dir("parent"))
    with pytest.raises(error, match=match):
        fork(lab, source, **given)
    assert not lab.run_dir("fork").exists()
    assert files(lab.run_dir("parent")) == before


def test_what_is_no_checkpoint(lab: Lab, parent: Path) -> None:
    (lab.root / "empty").mkdir()
    refused(lab, "empty", BundleError, "no run 'empty'")
    refused(lab, "nobody", BundleError, "no run 'nobody'.*Runs here: parent")
    refused(lab, lab.text, BundleError, "no run")
    shutil.copytree(parent, lab.run_dir("bare"))
    shutil.rmtree(lab.run_dir("bare") / "checkpoints")
    refused(lab, "bare", CheckpointError, "bare has no checkpoint; weights alone are what --student-init begins with")


def test_weights_without_an_optimizer(lab: Lab) -> None:
    parent = lab.trained("parent").run_dir
    refused(lab, parent / "best", CheckpointError, "has weights, and no state of an optimizer.*--student-init")


def test_a_damaged_checkpoint(lab: Lab, parent: Path) -> None:
    file = parent / STEP / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(lab, parent / STEP, CheckpointError, r"step_00000004 is damaged: optimizer\.safetensors has changed")


def test_a_checkpoint_of_another_kind(lab: Lab, parent: Path, puzzle_lab: PuzzleLab) -> None:
    puzzles = puzzle_lab.train("puzzles", steps=1, eval_rows=0).run_dir
    refused(lab, puzzles, CheckpointError, "is a run of `lab train puzzle`", steps=9)
    with pytest.raises(CheckpointError, match="is a run of `lab train actv1`"):
        fork_puzzles(puzzle_lab, parent, steps=9)


def test_settings_that_cannot_fit(lab: Lab, parent: Path) -> None:
    where = r"its weights are of another network: "
    refused(lab, parent, ConfigError, where + "hidden_size is 64 there, 32 was asked for", steps=9, hidden_size=32)
    refused(lab, parent, ConfigError, "halt_max_steps is 2 there, 1 was asked for", steps=9, halt_max_steps=1)
    refused(lab, parent, ConfigError, "feed_forward is dense there, moe was asked for", steps=9, use_moe=True)
    refused(lab, parent, ConfigError, "norm is pre there, post was asked for", steps=9, arch="hrm")
    refused(
        lab, parent, ConfigError, "--model other: .* the tokenizer is that of the checkpoint", steps=9, model="other"
    )
    refused(lab, parent, ConfigError, "--student-init .*: .* the weights are", student_init=str(parent))


def test_boards_of_another_size(puzzle_lab: PuzzleLab) -> None:
    parent = puzzle_lab.trained("parent", eval_rows=0).run_dir
    build_sudokus(output_dir=puzzle_lab.root / "larger", size=6, count=8, test_count=2, blanks=6, seed=1)
    with pytest.raises(DataError, match="it has 8 tokens, the network 6; it has 36 cells, the network 16"):
        fork_puzzles(puzzle_lab, parent, steps=9, data_path="larger")
    with pytest.raises(ConfigError, match="its weights are of another network: prefix_tokens is 1 there, 2 was"):
        fork_puzzles(puzzle_lab, parent, steps=9, puzzle_tokens=2)
    assert not puzzle_lab.run_dir("fork").exists()


def test_neither_fork_nor_resumed_run_needs_what_the_parent_began_with(lab: Lab) -> None:
    first = lab.train("first", steps=1, eval_batches=0).run_dir
    parent = lab.trained("parent", student_init=str(first), eval_batches=0).run_dir
    shutil.rmtree(first)
    assert fork(lab, parent / STEP, steps=5).step == 5
    assert lab.resume("parent", steps=7).step == 7


def test_nothing_left_to_train(lab: Lab, parent: Path) -> None:
    refused(lab, parent, ConfigError, "is at step 6, where a fork goes on: --steps 6 leaves nothing to train")


def test_flags_that_contradict_each_other(lab: Lab, parent: Path) -> None:
    refused(lab, parent, ConfigError, "--resume and --from-checkpoint exclude each other", resume=True)
    with pytest.raises(ConfigError, match=r"parent exists: continue it with --resume"):
        fork(lab, parent, "parent", steps=9)
    before = files(parent)
    with pytest.raises(ConfigError, match="a fork leaves its parent as it is, and would move .*parent away"):
        fork(lab, parent, "parent", steps=9, fresh=True)
    assert files(parent) == before
    fork(lab, parent, steps=7)
    assert fork(lab, parent, steps=8, fresh=True).step == 8  # an earlier fork may be moved away
