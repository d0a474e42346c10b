"""Trainings that start from a bundle with attached experts: frozen ones stay, goals steer, inactive ones rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import ConfigError, RegistryError
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.goals import Goals
from tests.tiny_runs import Lab, rows
from tests.training.expert_runs import train_expert

MOE: dict[str, Any] = {"use_moe": True, "num_experts": 3, "amp": False}


@pytest.fixture
def child(lab: Lab) -> Path:
    """A bundle of three experts in each layer with a fourth one attached to the last high-level one."""
    base = lab.train("base", **MOE, steps=2)
    train_expert(lab, "cats", steps=2, student_init=str(base.run_dir), default_goal="Say more about cats")
    return attach_expert("cats", base.run_dir, workspace=lab.workspace)


def expert_of(run_dir: Path, lab: Lab) -> dict[str, Tensor]:
    moe = load_bundle(run_dir, workspace=lab.workspace).model.experts["H.0"]
    names = ("gate_proj", "up_proj", "down_proj")
    return {**{name: getattr(moe, name)[3] for name in names}, "router": moe.router.weight[3]}


def last_usage(run_dir: Path) -> dict[str, Any]:
    return [row for row in rows(run_dir) if row["event"] == "expert_usage" and row["layer"] == "H.0"][-1]


def test_an_attached_expert_is_trained_with_the_rest(lab: Lab, child: Path) -> None:
    result = lab.train("on", **MOE, student_init=str(child))
    assert load_bundle(result.run_dir, workspace=lab.workspace).config.layer_experts == {"H.0": 4}
    assert [entry.expert_id for entry in attached_experts(result.run_dir)] == ["cats"]
    assert result.run_dir in attached_to("cats", lab.workspace)
    before, after = expert_of(child, lab), expert_of(result.run_dir, lab)
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_frozen_expert_gets_neither_gradient_nor_decay(lab: Lab, child: Path, optimizer: str) -> None:
    ExpertRegistry(lab.workspace).update("cats", is_frozen=True)
    settings = {**MOE, "student_init": str(child), "weight_decay": 0.5, "optimizer": optimizer}
    result = lab.train("on", **settings)
    before, after = expert_of(child, lab), expert_of(result.run_dir, lab)
    assert all(torch.equal(before[name], after[name]) for name in before)
    whole = [
        load_bundle(path, workspace=lab.workspace).model.experts["H.0"].gate_proj for path in (child, result.run_dir)
    ]
    assert not torch.equal(whole[0][:3], whole[1][:3])
    # what the registry says later does not change a run that has begun
    stopped = lab.interrupted("interrupted", 3, **settings)
    ExpertRegistry(lab.workspace).update("cats", is_frozen=False)
    lab.resume("interrupted")
    resumed = expert_of(stopped.run_dir, lab)
    assert all(torch.equal(before[name], resumed[name]) for name in before)


def test_an_inactive_expert_gets_no_token(lab: Lab, child: Path) -> None:
    ExpertRegistry(lab.workspace).update("cats", is_active=False)
    result = lab.train("on", **MOE, student_init=str(child))
    assert last_usage(result.run_dir)["token_counts"][3] == 0


def test_a_goal_sends_more_tokens_to_its_expert(lab: Lab, child: Path) -> None:
    (goal,) = Goals(lab.workspace).list_for_expert("cats")
    shares = []
    for number, strength in enumerate((0.0, 2.0, 5.0)):
        result = lab.train(
            f"on-{number}", **MOE, student_init=str(child), goal=str(goal.id), goal_bias_strength=strength, steps=1
        )
        usage = last_usage(result.run_dir)
        shares.append(usage["token_counts"][3])
        assert usage["bias_rate"] == pytest.approx(
            usage["token_counts"][3] / sum(usage["token_counts"]) if strength else 0
        )
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]
    plain = lab.train("plain", **MOE, student_init=str(child), steps=1)
    losses = [row["loss"] for run in ("on-0", "plain") for row in rows(lab.run_dir(run)) if row["event"] == "train"]
    assert losses[0] == losses[1]
    assert plain.step == 1


def test_goals_that_cannot_steer(lab: Lab, child: Path) -> None:
    with pytest.raises(ConfigError, match="no expert is attached to what this training starts from"):
        lab.train("on", **MOE, goal="1")
    with pytest.raises(RegistryError, match="77"):
        lab.train("on", **MOE, student_init=str(child), goal="77")
    with pytest.raises(ConfigError, match="goal"):
        lab.config(goal="cats")
