"""Experts: routing, capacity, balance and steering, by themselves and inside the recurrence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.models.act import TextBatch, accumulate_gradients, run_segments
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.moe import Dispatch, MoE, balance_loss, move_balance_biases, z_loss
from tests.models.tiny import VOCAB, gradients, tiny_core, whole_rows

EXPERTS: dict[str, Any] = {"feed_forward": "moe", "num_experts": 4, "experts_per_token": 2}


def layer(num_experts: int = 4, k: int = 2, *, width: int = 6, seed: int = 0) -> MoE:
    moe = MoE(width, 5, num_experts, k).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(0, 0.7, generator=generator)
    return moe


def states(batch: int = 3, length: int = 7, *, width: int = 6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def by_hand(moe: MoE, x: Tensor, *, capacity: int | None = None) -> tuple[Tensor, Tensor]:
    """Token by token, in the order of position over all rows: output and dropped assignments by expert."""
    batch, length, _ = x.shape
    y, load = torch.zeros_like(x), [0] * moe.num_experts
    dropped = torch.zeros(moe.num_experts, dtype=torch.float64)
    for place in range(length):
        for row in range(batch):
            token = x[row, place]
            scores = moe.router.weight @ token
            best = scores.argsort(descending=True)[: moe.experts_per_token]
            weights = scores[best].softmax(0)
            for expert, weight in zip(best.tolist(), weights, strict=True):
                if capacity is not None and load[expert] >= capacity:
                    dropped[expert] += 1
                    continue
                load[expert] += 1
                inner = torch.nn.functional.silu(moe.gate_proj[expert] @ token) * (moe.up_proj[expert] @ token)
                y[row, place] += weight * (moe.down_proj[expert] @ inner)
    return y, dropped


@torch.no_grad()
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.25, 4.0])
def test_a_layer_is_what_the_equations_say(factor: float) -> None:
    moe, x = layer(), states()
    capacity = math.ceil(factor * 21 * 2 / 4) if factor else None
    y, routing = moe(x, capacity_factor=factor)
    expected, dropped = by_hand(moe, x, capacity=capacity)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(routing.dropped, dropped)
    assert routing.assigned.sum() == 42
    scores = x.flatten(0, 1) @ moe.router.weight.T
    torch.testing.assert_close(routing.probabilities, scores.softmax(-1).sum(0))
    torch.testing.assert_close(routing.z, scores.logsumexp(-1).square().sum())


@torch.no_grad()
def test_a_token_that_is_dropped_everywhere_adds_nothing() -> None:
    moe, x = layer(2, 1), states(1, 8)
    x[0, 1:] = x[0, 0]  # all want the same expert
    y, routing = moe(x, capacity_factor=0.5)
    assert routing.dropped.sum() == 6
    assert y[0, :2].any()
    assert not y[0, 2:].any()


def test_the_gradient_of_the_balance_loss_by_hand() -> None:
    moe, x = layer(), states(1, 5)
    _, routing = moe(x)
    (found,) = torch.autograd.grad(balance_loss(routing), [moe.router.weight])
    share = routing.assigned / 10
    probabilities = (x[0] @ moe.router.weight.T).softmax(-1).detach()
    expected = torch.zeros_like(moe.router.weight)
    for token, p in zip(x[0], probabilities, strict=True):
        # d softmax_i / d score_j = p_i (delta_ij - p_j)
        by_score = 4 / 5 * p * (share - (share * p).sum())
        expected += by_score[:, None] * token
    torch.testing.assert_close(found, expected.detach())


@torch.no_grad()
def test_the_balance_loss_is_one_where_all_is_even() -> None:
    moe, x = layer(), states(4, 16)
    moe.router.weight.zero_()
    _, routing = moe(x)
    even = routing._replace(assigned=torch.full_like(routing.assigned, 8.0))
    torch.testing.assert_close(balance_loss(even), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(z_loss(routing), torch.tensor(math.log(4) ** 2, dtype=torch.float64))


@torch.no_grad()
def test_the_balancing_bias_follows_the_load_and_changes_no_weight() -> None:
    moe, x = layer(), states(8, 32)
    before = moe(x)[1].assigned
    for _ in range(300):
        routing = moe(x)[1]
        numbers = torch.stack((routing.probabilities, routing.assigned, routing.dropped))
        move_balance_biases({"H.0": moe.router}, {"H.0": numbers}, rate=0.02, stepped=torch.tensor(True))
    after = moe(x)[1].assigned
    assert after.std() < before.std() / 3
    kept = moe.router.balance_bias.clone()
    move_balance_biases({"H.0": moe.router}, {"H.0": numbers}, rate=0.02, stepped=torch.tensor(False))
    assert torch.equal(moe.router.balance_bias, kept)
    # one expert for each token: its weight is 1, whatever the bias
    single = layer(4, 1)
    single.router.balance_bias[2] = 100.0
    expected = layer(4, 1)
    inner = torch.nn.functional.silu(x @ expected.gate_proj[2].T) * (x @ expected.up_proj[2].T)
    torch.testing.assert_close(single(x)[0], inner @ expected.down_proj[2].T)


@torch.no_grad()
def test_steering_of_strength_0_is_the_plain_router_and_more_of_it_draws_more_tokens() -> None:
    moe, x = layer(), states(8, 32)
    plain = moe(x)[0]
    shares = []
    for strength in (0.0, 0.5, 1.0, 2.0, 5.0):
        moe.router.steering.zero_()
        moe.router.steering[1] = strength
        y, routing = moe(x)
        if strength == 0:
            assert torch.equal(y, plain)
        shares.append(float(routing.assigned[1]))
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]


@torch.no_grad()
def test_an_expert_that_is_switched_off_gets_no_token() -> None:
    moe, x = layer(), states()
    moe.router.steering[3] = -math.inf
    y, routing = moe(x)
    assert routing.assigned[3] == 0
    assert torch.isfinite(y).all()
    assert torch.isfinite(routing.z)


def test_the_router_keeps_its_precision() -> None:
    core = tiny_core("hrm-text", dtype=torch.bfloat16, **EXPERTS)
    assert core.experts["H.0"].gate_proj.dtype == torch.bfloat16
    assert core.routers["H.0"].weight.dtype == torch.float32
    assert core.routers["H.0"].balance_bias.dtype == torch.float32
    assert core.double().routers["H.0"].weight.dtype == torch.float64


@torch.no_grad()
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_a_later_token_changes_nothing_before_it_whatever_is_dropped(factor: float) -> None:
    core = tiny_core("hrm-text", **EXPERTS)
    batch = whole_rows(3, 12)

    def logits(of: TextBatch) -> Tensor:
        carries = list(run_segments(core, of, num_segments=2, dispatch=Dispatch(capacity_factor=factor)))
        return torch.stack([core.logits(carry.z_h) for carry in carries])

    before = logits(batch)
    for place in (3, 8, 11):
        later = torch.arange(12) >= place
        other = replace(batch, inputs=torch.where(later, (batch.inputs + 7) % VOCAB, batch.inputs))
        after = logits(other)
        torch.testing.assert_close(after[:, :, :place], before[:, :, :place])
        assert not torch.equal(after[:, :, place:], before[:, :, place:])


def losses(core: RecurrentCore, batch: TextBatch, dispatch: Dispatch, **how: Any) -> dict[str, Tensor]:
    core.zero_grad()
    accumulate_gradients(
        core, batch, num_segments=2, normaliser=36.0, backward=lambda loss: loss.backward(), dispatch=dispatch, **how
    )
    return gradients(core)


def training_dispatch() -> Dispatch:
    generator = torch.Generator().manual_seed(3)
    return Dispatch(capacity_factor=1.0, noise=0.1, generator=generator, balance_coef=0.5, z_coef=0.1)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    core, batch = tiny_core("hrm-text", grad_calls=6, **EXPERTS), whole_rows(3, 12)
    plain = losses(core, batch, training_dispatch())
    again = losses(core, batch, training_dispatch(), checkpointing=True)
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)
    assert all(plain[name].any() for name in plain if "router" in name)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # the compiler's own calls
def test_compiled_layers_give_the_same_gradients() -> None:
    core, batch = tiny_core("hrm-text", grad_calls=6, **EXPERTS), whole_rows(3, 12)
    plain = losses(core, batch, training_dispatch())
    core.compile(backend="aot_eager")
    compiled = losses(core, batch, training_dispatch())
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient)


def test_what_is_recorded_adds_up() -> None:
    core, batch = tiny_core("hrm-text", **EXPERTS), whole_rows(3, 12)
    dispatch = training_dispatch()
    for carry in run_segments(core, batch, num_segments=1, dispatch=dispatch):
        del carry
    loss, sums = dispatch.take(1.0)
    assert list(sums.layers) == ["H.0", "L.0"]
    assert sums.layers["H.0"][1].sum() == 2 * 36 * 2  # calls, tokens, experts of each
    assert sums.layers["L.0"][1].sum() == 4 * 36 * 2
    torch.testing.assert_close(sums.layers["H.0"][0].sum(), torch.tensor(72.0, dtype=torch.float64))
    torch.testing.assert_close(loss, 0.5 * sums.balance + 0.1 * sums.z)
    assert loss.requires_grad
    assert dispatch.calls == []
    assert len((sums + sums).flat()) == 2 + 2 * 3 * 4
