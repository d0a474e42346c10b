"""AdamATan2 against the rule in float64, with parameters that rest, skipped steps, and the device's path on the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.optim import adam_atan2, conditional
from hrm_engine.optim.adam_atan2 import AdamATan2
from hrm_engine.optim.conditional import stepping
from tests.optim.small_net import assert_equal, copies, net, one_pass, updater_of

SHAPES = ((3, 5), (5,), (2, 2), ())
BETAS = (0.9, 0.95)


class SlowATan2:
    """The published rule, one number at a time."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = [value.double().clone() for value in values]
        self.means = [torch.zeros_like(value) for value in self.values]
        self.squares = [torch.zeros_like(value) for value in self.values]
        self.ages = [0] * len(values)

    def step(self, gradients: list[Tensor | None], *, lr: float, weight_decay: float) -> None:
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            self.ages[index] += 1
            age = self.ages[index]
            flat = zip(
                self.values[index].view(-1),
                self.means[index].view(-1),
                self.squares[index].view(-1),
                gradient.double().reshape(-1),
                strict=True,
            )
            for value, mean, square, g in flat:
                mean.copy_(BETAS[0] * mean + (1 - BETAS[0]) * g)
                square.copy_(BETAS[1] * square + (1 - BETAS[1]) * g * g)
                corrected = float(mean) / (1 - BETAS[0] ** age)
                root = math.sqrt(float(square) / (1 - BETAS[1] ** age))
                value.copy_(value * (1 - lr * weight_decay) - lr * math.atan2(corrected, root))


@pytest.fixture(params=["host", "device"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of skipping, on the CPU."""
    if request.param == "device":
        for module in (conditional, adam_atan2):
            monkeypatch.setattr(module, "host_knows", lambda device: False)
    return str(request.param)


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 10.0**-seed for shape in SHAPES]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_parity_with_float64_where_some_rest_and_some_steps_are_skipped(path: str, as_tensor: bool) -> None:
    parameters = [nn.Parameter(value) for value in drawn(0)]
    slow = SlowATan2([p.detach() for p in parameters])
    optimizer = AdamATan2(parameters, betas=BETAS, weight_decay=0.5)
    for number in range(8):
        lr = 0.1 / (number + 1)
        bad = number in (0, 3)
        gradients: list[Tensor | None] = list(drawn(number % 4))
        gradients[0][0] = 0.0  # type: ignore[index]  # never a gradient: nothing but decay
        if number in (2, 5, 6):
            gradients[number % 3] = None
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient * 4
            if bad and parameter.grad is not None:
                parameter.grad.view(-1)[0] = float("nan")
        before = [p.detach().clone() for p in parameters]
        optimizer.param_groups[0]["lr"] = torch.tensor(lr) if as_tensor else lr
        with stepping(optimizer, grad_scale=torch.tensor(4.0), found_inf=torch.tensor(float(bad))):
            optimizer.step()
        if bad:
            assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
            continue
        slow.step(gradients, lr=lr, weight_decay=0.5)
        for found, wanted in zip(parameters, slow.values, strict=True):
            torch.testing.assert_close(found.detach().double(), wanted, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e15])
def test_the_first_step_is_an_eighth_of_a_turn_whatever_the_size_of_the_gradient(size: float) -> None:
    """m = sqrt(v) after the first step, so the angle is pi / 4; where the square vanishes it is a right angle."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = AdamATan2([parameter], lr=1.0)
    parameter.grad = torch.tensor([size, 0.0])
    optimizer.step()
    wanted = -math.pi / 2 if size == 1e-30 else -math.pi / 4
    assert parameter.tolist() == pytest.approx([wanted, 0.0], rel=1e-4)


def test_restored_state_goes_on_bit_for_bit_and_shares_its_counters(tmp_path: Path) -> None:
    model = net()
    straight = updater_of(model, optimizer="adam_atan2", weight_decay=0.1)
    for number in range(3):
        straight.update(one_pass(model, number), schedule_share=1e-2)
    weights = {name: t.detach().clone() for name, t in straight.weights.tensors().items()}
    save_tensors(tmp_path, "optimizer", straight.state_tensors())  # the moments are views of one piece of memory
    state = load_tensors(tmp_path, "optimizer")
    assert float(state["inner.weight.step"]) == 3
    assert state.keys() >= {"inner.weight.exp_avg", "inner.bias.exp_avg_sq"}
    other = net()
    resumed = updater_of(other, optimizer="adam_atan2", weight_decay=0.1)
    resumed.weights.load(weights)
    resumed.load_state_tensors(state)
    (optimizer,) = resumed.optimizers
    for group in optimizer.param_groups:
        assert len({id(optimizer.state[p]["step"]) for p in group["params"] if p in optimizer.state}) == 1
    for number in range(3, 6):
        straight.update(one_pass(model, number), schedule_share=1e-2)
        resumed.update(one_pass(other, number), schedule_share=1e-2)
    assert_equal(copies(resumed), copies(straight))


def test_decay_on_everything_as_for_puzzles() -> None:
    model = net()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    updater = updater_of(model, optimizer="adam_atan2", weight_decay=0.5, decay_all=True)

    def nothing(backward) -> None:
        backward(sum((p * 0.0).sum() for p in model.parameters()))

    updater.update(nothing, schedule_share=0.1)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), first[name] * 0.95)
