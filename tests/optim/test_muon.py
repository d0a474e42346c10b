"""Muon against torch's, its groups, and steps that must not happen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hrm_engine.errors import ConfigError
from hrm_engine.optim import conditional
from hrm_engine.optim.conditional import stepping
from hrm_engine.optim.muon import Muon, orthogonal
from tests.models.tiny import tiny_core
from tests.optim.small_net import assert_equal, copies, net, one_pass, updater_of

SHAPES = ((6, 4), (4, 6), (6, 4), (5, 5), (24, 3))


def test_orthogonal_matrices_have_singular_values_near_1() -> None:
    draws = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=draws, dtype=torch.float64) for shape in SHAPES]
    for matrix, result in zip(matrices, orthogonal(matrices), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inner = left.T @ result @ right.T
        torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-9, rtol=0)
        assert inner.diagonal().min() > 0.5
        assert inner.diagonal().max() < 1.3
    assert torch.equal(orthogonal([torch.zeros(2, 3)])[0], torch.zeros(2, 3))


def test_stacked_experts_are_as_many_matrices() -> None:
    draws = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=draws) for shape in ((3, 6, 4), (3, 4, 6), (2, 6, 4), (6, 4))]
    stacked = [nn.Parameter(value.clone()) for value in values]
    apart = [nn.Parameter(matrix.clone()) for value in values for matrix in value.view(-1, *value.shape[-2:])]
    together, one_by_one = Muon(stacked, lr=0.1, weight_decay=0.3), Muon(apart, lr=0.1, weight_decay=0.3)
    for _ in range(3):
        for parameter in stacked:
            parameter.grad = torch.randn(parameter.shape, generator=draws)
        stacked[0].grad[1] = 0  # an expert that no token was sent to
        matrices = [matrix for p in stacked for matrix in p.grad.view(-1, *p.shape[-2:])]
        for parameter, gradient in zip(apart, matrices, strict=True):
            parameter.grad = gradient.clone()
        together.step()
        one_by_one.step()
    found = [matrix for p in stacked for matrix in p.detach().view(-1, *p.shape[-2:])]
    for matrix, alone in zip(found, apart, strict=True):
        torch.testing.assert_close(matrix, alone.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], values[0][1] * (1 - 0.1 * 0.3) ** 3)


@pytest.mark.parametrize("optimizer", ["muon", "normuon"])
def test_experts_are_hidden_matrices_and_routers_are_heads(optimizer: str) -> None:
    """The library's own rules take (N, A, B) as N rows of A * B numbers, so there experts are AdamW's."""
    core = tiny_core(feed_forward="moe", num_experts=3, experts_per_token=2).float()
    updater = updater_of(core, optimizer=optimizer, lr=0.02, weight_decay=0.1)
    hidden = {id(p) for group in updater.groups if group["base_lr"] == 0.02 for p in group["params"]}
    found = {name: id(parameter) in hidden for name, parameter in core.named_parameters() if ".mlp." in name}
    assert set(found) == {
        f"{module}_module.layers.0.mlp.{part}"
        for module in "HL"
        for part in ("gate_proj", "up_proj", "down_proj", "router.weight")
    }
    experts = {name for name in found if name.endswith("_proj")}
    assert {name for name in found if found[name]} == (experts if optimizer == "muon" else set())
    assert ["experts to AdamW" in message for message in updater.messages] == ([True] if optimizer == "normuon" else [])


def test_it_is_torchs_rule() -> None:
    """torch computes the iteration in bf16, so to its three digits."""
    draws = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=draws) for shape in SHAPES]
    ours, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
    mine, library = Muon(ours, lr=0.1, weight_decay=0.3), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=draws)
            b.grad = a.grad.clone()
        mine.step()
        library.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.02)
        torch.testing.assert_close(mine.state[a]["momentum_buffer"], library.state[b]["momentum_buffer"])


@pytest.mark.parametrize("on_device", [False, True])
def test_a_step_that_must_not_happen_changes_nothing(on_device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_device:
        monkeypatch.setattr(conditional, "host_knows", lambda device: False)
    draws = torch.Generator().manual_seed(0)
    skipping, plain = ([nn.Parameter(torch.ones(3, 4))] for _ in range(2))
    first, second = Muon(skipping, lr=0.1, weight_decay=0.5), Muon(plain, lr=0.1, weight_decay=0.5)
    for number in range(4):
        gradient = torch.randn((3, 4), generator=draws)
        skipping[0].grad, plain[0].grad = gradient * 2, gradient.clone()
        bad = number in (0, 2)
        if bad:
            skipping[0].grad[0, 0] = float("inf")
        else:
            second.step()
        with stepping(first, grad_scale=torch.tensor(2.0), found_inf=torch.tensor(float(bad))):
            first.step()
    torch.testing.assert_close(skipping[0], plain[0], rtol=1e-6, atol=1e-7)
    assert skipping[0].isfinite().all()


def test_groups_rates_and_decay() -> None:
    core = tiny_core("hrm", pos_encodings="learned").float()
    updater = updater_of(core, optimizer="muon", lr=0.02, weight_decay=0.005, adam_weight_decay=1.0)
    names = {id(parameter): name for name, parameter in core.named_parameters()}
    for optimizer, lr, decay in zip(updater.optimizers, (0.02, 2e-4), (0.005, 1.0), strict=True):
        for group in optimizer.param_groups:
            assert group["base_lr"] == pytest.approx(lr)
            for parameter in group["params"]:
                name = names.pop(id(parameter))
                hidden = parameter.ndim == 2 and "embed" not in name and "head" not in name
                assert hidden == isinstance(optimizer, Muon), name
                free = "embed" in name or parameter.ndim < 2
                assert group["weight_decay"] == (0.0 if free else decay), name
    assert not names
    everything = updater_of(core, optimizer="muon", adam_lr=1e-4, weight_decay=0.005, decay_all=True)
    assert [group["weight_decay"] for group in everything.groups] == [0.005, 0.005]
    assert [group["base_lr"] for group in everything.groups] == [1.0, 1e-4]


def test_the_factor_is_for_both_parts_and_the_state_goes_on() -> None:
    model = net()
    straight = updater_of(model, optimizer="muon", lr=0.02, adam_lr=1e-3)
    for number in range(2):
        straight.update(one_pass(model, number), schedule_share=0.5)
    assert {group["lr"] for group in straight.groups} == {0.01, 5e-4}
    state = copies(straight)
    assert "inner.weight.momentum_buffer" in state
    assert "embed_tokens.weight.exp_avg" in state
    other = net()
    resumed = updater_of(other, optimizer="muon", lr=0.02, adam_lr=1e-3)
    resumed.weights.load({name: state[name] for name in resumed.weights.tensors()})
    resumed.load_state_tensors({name: t for name, t in state.items() if name not in resumed.weights.tensors()})
    for updater, owner in ((straight, model), (resumed, other)):
        updater.update(one_pass(owner, 2), schedule_share=1.0)
    assert_equal(copies(resumed), copies(straight))


def test_patterns_that_match_nothing_are_errors() -> None:
    with pytest.raises(ConfigError, match="hidden matrices.*weight"):
        updater_of(nn.ModuleDict({"embed": nn.Embedding(3, 2)}), optimizer="muon")
    with pytest.raises(ConfigError, match="matrices, which weight decay is for"):
        updater_of(nn.LayerNorm(3))
    with pytest.raises(ConfigError, match="--adam-lr is for rules"):
        updater_of(net(), adam_lr=1e-3)
    with pytest.raises(ConfigError, match="--adam-weight-decay is for rules"):
        updater_of(net(), optimizer="adam_atan2", adam_weight_decay=0.5)
