"""Trainings with experts: what is minimised, told and adjusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_engine.bundles.load import load_bundle
from hrm_engine.config import TextTrainConfig, build_config
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.inference import generate
from hrm_engine.training.run_folder import saved_config
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, rows

MOE: dict[str, Any] = {"use_moe": True, "num_experts": 4, "amp": False}


def of(run_dir: Path, event: str) -> list[dict[str, Any]]:
    return [row for row in rows(run_dir) if row["event"] == event]


def test_experts_are_the_default_of_text_and_not_of_puzzles() -> None:
    config = build_config(TextTrainConfig, overrides={"dataset_file": "text.txt"})
    assert (config.moe.use_moe, config.moe.num_experts, config.moe.num_experts_per_tok) == (True, 8, 2)
    assert config.moe.moe_capacity_factor == 1.25


def test_more_experts_for_a_token_than_there_are() -> None:
    with pytest.raises(ConfigError, match="--num-experts-per-tok 5 of --num-experts 4"):
        build_config(TextTrainConfig, overrides={"dataset_file": "t.txt", "num_experts": 4, "num_experts_per_tok": 5})


def of_halting(row: dict[str, Any]) -> float:
    """What the halting loss of two segments adds to the loss of a step in which some positions stop after the first."""
    return 0.05 * 2 * (1 - 1 / row["act_steps_mean"]) * row["halt_loss"]


def test_the_rows_of_a_run(lab: Lab) -> None:
    losses = {"moe_capacity_factor": 0.5, "load_balance_coef": 0.1, "router_z_coef": 0.01}
    result = lab.train("run", **MOE, **losses, h_cycles=2)
    first = of(result.run_dir, "train")[0]
    added = 0.1 * first["lb_loss"] + 0.01 * first["z_loss"]
    assert first["loss"] == pytest.approx(first["ce"] + of_halting(first) + added, rel=1e-5)
    assert first["lb_loss"] >= 0.99
    assert first["moe_layers"] == 2
    usage = of(result.run_dir, "expert_usage")
    assert [(row["step"], row["layer"]) for row in usage] == [(s, layer) for s in (1, 3, 6) for layer in ("H.0", "L.0")]
    usage = usage[-2:]
    for row in usage:
        assert sum(row["avg_routing_prob"]) == pytest.approx(1, abs=1e-4)
        assert sum(row["token_counts"]) == 2 * row["total_tokens"]
        assert row["dropped_tokens"] >= sum(row["token_counts"]) // 2 - 8
    # two segments of (2 high-level, 4 low-level) calls on 2 x 16 tokens
    assert [row["total_tokens"] for row in usage] == [2 * 2 * 32, 2 * 4 * 32]


def test_the_learning_rate_is_lowered_and_says_so(lab: Lab) -> None:
    result = lab.train("lowered", **MOE, warmup_steps=0, lr_scheduler="constant")
    (row,) = of(result.run_dir, "lr_adjustment")
    assert (row["lr_before"], row["lr"]) == (3e-3, pytest.approx(3e-3 * 0.5**0.5))
    assert of(result.run_dir, "train")[0]["lr"] == pytest.approx(row["lr"])
    assert saved_config(result.run_dir, TextTrainConfig).optim.lr == 3e-3
    left = lab.train("left", **MOE, auto_adjust_lr=False, warmup_steps=0, lr_scheduler="constant")
    assert not of(left.run_dir, "lr_adjustment")
    assert of(left.run_dir, "train")[0]["lr"] == 3e-3


def test_balancing_by_a_bias_has_no_loss_and_moves_the_bias(lab: Lab) -> None:
    result = lab.train("run", **MOE, balance="bias", balance_rate=0.5, router_z_coef=0.0, steps=1)
    bundle = load_bundle(result.run_dir, workspace=lab.workspace)
    biases = [router.balance_bias for router in bundle.model.routers.values()]
    assert all(set(bias.abs().tolist()) <= {0.0, 0.5} and bias.any() for bias in biases)
    first = of(result.run_dir, "train")[0]
    assert first["loss"] == pytest.approx(first["ce"] + of_halting(first), rel=1e-5)


def test_a_bundle_with_experts_writes_the_same_text_with_and_without_cache(lab: Lab) -> None:
    result = lab.train("run", **MOE)
    bundle = load_bundle(result.run_dir, workspace=lab.workspace)
    assert bundle.config.feed_forward == "moe"
    assert bundle.model.routers["H.0"].weight.dtype == torch.float32
    half = load_bundle(result.run_dir, workspace=lab.workspace, dtype=torch.bfloat16)
    assert half.model.routers["H.0"].weight.dtype == torch.float32
    assert half.model.experts["H.0"].gate_proj.dtype == torch.bfloat16
    first, again = (generate(bundle, "the cat", max_new_tokens=6, temperature=0.0) for _ in range(2))
    assert first.text == again.text


def test_weights_of_a_dense_model_name_the_flag(lab: Lab) -> None:
    dense = lab.train("dense")
    with pytest.raises(BundleError, match="it has no experts: add --no-moe"):
        lab.train("moe", **MOE, student_init=str(dense.run_dir))


def test_a_run_from_before_there_were_experts_goes_on_without(lab: Lab) -> None:
    stopped = lab.interrupted("old", 3)
    path = stopped.run_dir / "training_args.json"
    content = json.loads(path.read_text())
    del content["parameters"]["moe"]
    path.write_text(json.dumps(content))
    assert lab.resume("old").step == 6


def test_a_puzzle_solver_with_experts(puzzle_lab: PuzzleLab) -> None:
    result = puzzle_lab.train("run", use_moe=True, num_experts=4, halt_max_steps=2)
    usage = of(result.run_dir, "expert_usage")
    assert [(row["step"], row["layer"]) for row in usage] == [(step, "H.0") for step in (1, 3, 6)]
    assert of(result.run_dir, "train")[0]["moe_layers"] == 1
