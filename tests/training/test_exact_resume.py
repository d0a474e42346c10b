"""A run that was interrupted and continued ends exactly as one that was not, to the last bit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hrm_engine.config import TextTrainConfig, flat
from hrm_engine.training.run_folder import saved_config
from tests.tiny_runs import Lab, assert_same_end, lasting_rows, row_of, rows, text

KINDS: dict[str, dict[str, Any]] = {
    "amp": {},
    "fp32": {"amp": False},
    "bf16 weights": {"model_dtype": "bf16"},
    "fp16 weights with loss scaling": {"model_dtype": "fp16"},
    "accumulation": {"gradient_accumulation_steps": 3, "batch_size": 1},
    "one segment": {"halt_max_steps": 1},
    "three segments": {"halt_max_steps": 3, "amp": False},
    "8-bit optimizer": {"use_8bit_optimizer": True, "amp": False},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "fixed random states": {"arch": "hrm", "pos_encodings": "learned"},
    "moving average": {"ema_decay": 0.9},
    "moving average of bf16 weights that starts late": {"ema_decay": 0.9, "ema_start_step": 5, "model_dtype": "bf16"},
    "warm-up of gradient calls": {"h_cycles": 2, "grad_calls": "full", "grad_calls_warmup": 0.9},
    "warm-up": {"warmup_steps": 4, "lr_scheduler": "linear"},
    "shuffled": {"linear_dataset": False, "amp": False, "seed": 5},
    "offset": {"dataset_start_offset": 7},
    "experts": {"use_moe": True, "model_dtype": "bf16"},
    "experts balanced by a bias, noise": {"use_moe": True, "balance": "bias", "balance_rate": 0.1, "router_noise": 0.5},
    "experts that drop, 8-bit": {"use_moe": True, "moe_capacity_factor": 0.6, "use_8bit_optimizer": True, "amp": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_in_the_middle_of_an_epoch(lab: Lab, kind: str) -> None:
    lab.train("straight", **KINDS[kind])
    stopped = lab.interrupted("interrupted", 3, **KINDS[kind])
    assert (stopped.state, stopped.step, stopped.exit_code) == ("stopped", 3, 143)
    resumed = lab.resume("interrupted")
    assert (resumed.state, resumed.step, resumed.exit_code) == ("finished", 6, 0)
    assert row_of(resumed.run_dir, "resume")["from_checkpoint"] == "checkpoints/step_00000003"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("interrupted"))


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "shuffled"])
def test_several_interruptions_across_epochs(lab: Lab, linear: bool) -> None:
    lab.text.write_text(text(4))
    settings = {"linear_dataset": linear, "steps": 10, "eval_every": 4, "save_every": 5, "batch_size": 4}
    lab.train("straight", **settings)
    lab.interrupted("interrupted", 1, **settings)
    for step in (4, 5, 9):  # at an evaluation, at a checkpoint, between
        assert lab.resume("interrupted", interrupt_at=step).step == step
    lab.resume("interrupted")
    straight, interrupted = lab.run_dir("straight"), lab.run_dir("interrupted")
    epochs = [row["epoch"] for row in lasting_rows(straight) if row["event"] == "train"]
    assert epochs[-1] >= 2, "the run is meant to cross epochs"
    assert_same_end(straight, interrupted)


def test_interrupted_at_the_last_step_all_the_same(lab: Lab) -> None:
    lab.trained("straight")
    stopped = lab.interrupted("interrupted", 6)
    assert (stopped.state, stopped.step) == ("stopped", 6)
    assert lab.resume("interrupted").state == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("interrupted"))


def test_resuming_a_finished_run_changes_nothing(lab: Lab) -> None:
    lab.trained("straight")
    lab.train("again")
    assert lab.resume("again").state == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("again"))


def test_the_same_settings_give_the_same_run(lab: Lab) -> None:
    lab.train("one")
    lab.train("other")
    lab.train("seed", seed=1)
    assert_same_end(lab.run_dir("one"), lab.run_dir("other"))
    weights = [(lab.run_dir(name) / "model.safetensors").read_bytes() for name in ("one", "seed")]
    assert weights[0] != weights[1]


def test_another_number_of_threads_is_a_warning(lab: Lab) -> None:
    stopped = lab.interrupted("run", 3)
    state_file = stopped.run_dir / "checkpoints" / "step_00000003" / "state.json"
    assert json.loads(state_file.read_text())["environment"]["num_threads"] == 1
    import torch

    torch.set_num_threads(2)
    lab.resume("run")
    messages = row_of(stopped.run_dir, "resume")["messages"]
    assert "num_threads was 1 before and is 2 now: the continuation may differ in the last bits" in messages
    assert "num_threads was 1" in (stopped.run_dir / "run.log").read_text()


def test_each_row_of_an_uninterrupted_run_comes_once(lab: Lab) -> None:
    result = lab.train("run")
    events = [(row["event"], row["step"]) for row in rows(result.run_dir) if row["event"] != "system"]
    assert events == [
        *[("start", 0), ("eval", 0), ("sample", 0), ("train", 1), ("train", 2), ("checkpoint", 2), ("train", 3)],
        *[("eval", 3), ("sample", 3), ("train", 4), ("checkpoint", 4), ("train", 5), ("train", 6)],
        *[("eval", 6), ("sample", 6), ("checkpoint", 6), ("final", 6)],
    ]
    assert flat(saved_config(result.run_dir, TextTrainConfig))["save_every"] == 2
