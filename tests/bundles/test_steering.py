"""Routing of bundles with attached experts: goals draw tokens, inactive experts get none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.steering import steer, watch_experts
from hrm_engine.errors import ConfigError, RegistryError
from hrm_engine.inference import generate
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from tests.bundles.brains import TOKENS, both_kinds, load, logits
from tests.tiny_runs import Lab


def usage(bundle: Bundle, **how: Any) -> tuple[float, float]:
    """Share of the tokens and mean probability of the first attached expert, steered so."""
    steer(bundle, **how)
    with watch_experts(bundle) as found:
        logits(bundle)
    assert found[0].token_share is not None
    assert found[0].mean_probability is not None
    return found[0].token_share, found[0].mean_probability


@both_kinds
def test_goals_draw_tokens(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child = attach_expert("poems", "base", workspace=lab.workspace)
    bundle, goals = load(lab, child), Goals(lab.workspace)
    goal = goals.add("Rhyme", expert_id="poems")
    plain = logits(bundle)
    how: dict[str, Any] = {"goals": [goal.id], "workspace": lab.workspace}
    assert steer(bundle, strength=0, **how) == []
    assert torch.equal(logits(bundle), plain)
    found = [usage(bundle, strength=strength, **how) for strength in (0, 0.02, 0.1, 0.5, 1, 2, 5)]
    shares, probabilities = zip(*found, strict=True)
    assert list(shares) == sorted(shares)
    assert list(probabilities) == sorted(set(probabilities))
    if use_moe:  # a layer that was dense sends every token to both
        assert shares[0] < shares[3] <= shares[-1]
        assert shares[-1] == 1
    assert usage(bundle, goals="active", workspace=lab.workspace) == found[4]
    steer(bundle, workspace=lab.workspace)
    assert torch.equal(logits(bundle), plain)


def test_goals_that_steer_nothing(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    bundle, goals = load(lab, attach_expert("poems", "base", workspace=lab.workspace)), Goals(lab.workspace)
    where: dict[str, Any] = {"workspace": lab.workspace}
    plain = logits(bundle)
    assert steer(bundle, goals="active", **where) == ["no goal is active: nothing is steered"]
    other = goals.add("Explain", expert_id="prose")
    assert steer(bundle, goals="active", **where) == [
        "no active goal is served by an expert that is attached to base-poems: nothing is steered"
    ]
    assert steer(bundle, goals=[other.id], **where) == [
        "goal 1 is served by no expert that is attached to base-poems: it steers nothing (its experts: prose)"
    ]
    assert torch.equal(logits(bundle), plain)
    with pytest.raises(RegistryError, match="7"):
        steer(bundle, goals=[7], **where)
    for strength in (-0.1, 5.1, float("nan")):
        with pytest.raises(ConfigError, match="--goal-bias-strength"):
            steer(bundle, goals=[other.id], strength=strength, **where)
    goals.link_expert(other.id, "poems")
    goals.set_active(other.id, False)
    assert steer(bundle, goals=[other.id], **where) == []  # named goals need not be active
    assert not torch.equal(logits(bundle), plain)
    assert steer(load(lab, "base"), goals=[other.id], **where) == [
        "goal 1 is served by no expert that is attached to base: it steers nothing (its experts: poems, prose)"
    ]


@both_kinds
def test_an_inactive_expert_gets_no_token(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child, registry = attach_expert("poems", "base", workspace=lab.workspace), ExpertRegistry(lab.workspace)
    goal = Goals(lab.workspace).add("Rhyme", expert_id="poems")
    registry.update("poems", is_active=False)
    bundle = load(lab, child)
    assert torch.equal(logits(bundle), logits(load(lab, "base")))
    told = steer(bundle, goals=[goal.id], strength=5, workspace=lab.workspace)
    assert told == ["expert poems is inactive: it gets no token, whatever goal it serves"]
    with watch_experts(bundle) as found:
        logits(bundle)
        generate(bundle, "the cat", max_new_tokens=3)
    assert [(use.is_active, use.token_share, use.mean_probability) for use in found] == [(False, 0, 0)]
    registry.update("poems", is_active=True)
    assert usage(bundle, workspace=lab.workspace)[1] > 0
    assert torch.equal(logits(bundle), logits(load(lab, child)))


def test_without_a_registry_the_expert_is_routable_and_that_is_said(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    expected = logits(load(lab, child))
    registry = lab.workspace.expert_registry
    registry.rename(registry.with_name("kept"))
    bundle = load(lab, child)
    [told] = bundle.messages
    assert "expert poems has no card in" in told
    assert torch.equal(logits(bundle), expected)
    registry.write_text("{")
    with pytest.raises(RegistryError, match="not valid JSON"):
        load(lab, child)
    load(lab, "base")  # nothing is asked of the registry where no expert is attached


@both_kinds
def test_generation_with_and_without_cache_agree(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child = attach_expert("poems", "base", layer="L.0", workspace=lab.workspace)
    bundle = load(lab, attach_expert("prose", child, name="both", workspace=lab.workspace))
    goal = Goals(lab.workspace).add("Rhyme", expert_id="poems")
    steer(bundle, goals=[goal.id], workspace=lab.workspace)
    decoder = Decoder(bundle.model, num_segments=2, batch=4)
    step_by_step = torch.stack([decoder.feed(TOKENS[:, place : place + 1]) for place in range(TOKENS.shape[1])], 1)
    torch.testing.assert_close(step_by_step, logits(bundle), atol=1e-4, rtol=1e-4)
