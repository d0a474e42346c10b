"""fp16: gradients are scaled before rounding and unscaled after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hrm_engine.optim import updater as rules
from tests.optim.small_net import Backward, Net, assert_equal, net, objective, one_pass, updater_of


def test_scaled_gradients_are_the_unscaled_ones() -> None:
    """Powers of two: where nothing overflows or vanishes the update is the same bit for bit."""
    scaled_model, plain_model = net(), net()
    scaled, plain = updater_of(scaled_model, loss_scaling=True), updater_of(plain_model)
    for number in range(4):
        a = scaled.update(one_pass(scaled_model, number), schedule_share=1e-2)
        b = plain.update(one_pass(plain_model, number), schedule_share=1e-2)
        assert a.grad_norm.item() == pytest.approx(b.grad_norm.item(), rel=1e-6)
    for (name, x), y in zip(scaled_model.named_parameters(), plain_model.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7, msg=lambda t, n=name: f"{n}: {t}")


def test_gradients_too_small_for_fp16_arrive() -> None:
    scaled_model, plain_model = net(torch.float16), net(torch.float16)
    scaled, plain = updater_of(scaled_model, loss_scaling=True), updater_of(plain_model)

    def tiny(model: Net) -> Callable[[Backward], None]:
        return lambda backward: backward(objective(model, 0) * 1e-9)

    with_scale = scaled.update(tiny(scaled_model), schedule_share=1e-2)
    without = plain.update(tiny(plain_model), schedule_share=1e-2)
    exact = net()
    (objective(exact, 0) * 1e-9).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in exact.parameters() if p.grad is not None])
    assert with_scale.grad_norm.item() == pytest.approx(norm.item(), rel=0.02)
    assert without.grad_norm.item() == 0


def test_an_overflow_halves_the_scale_and_skips() -> None:
    model = net(torch.float16)
    updater = updater_of(model, loss_scaling=True)
    first = updater.loss_scale.item()
    before = {name: t.detach().clone() for name, t in updater.weights.tensors().items()}
    result = updater.update(lambda backward: backward(objective(model, 0) * 100), schedule_share=1e-2)
    assert not bool(result.stepped)
    assert updater.loss_scale.item() == first / 2
    assert_equal({name: t.detach().clone() for name, t in updater.weights.tensors().items()}, before)
    steps = 0
    while not bool(updater.update(lambda backward: backward(objective(model, 0) * 100), schedule_share=1e-2).stepped):
        steps += 1
        assert steps < 20
    assert updater.loss_scale.item() == first / 2 ** (steps + 1)


def test_a_long_time_without_overflow_doubles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "GROWTH_INTERVAL", 3)
    model = net(torch.float16)
    updater = updater_of(model, loss_scaling=True)
    updater.loss_scale.fill_(8.0)
    scales = []
    for number in range(7):
        updater.update(one_pass(model, number % 2), schedule_share=1e-4)
        scales.append(updater.loss_scale.item())
    assert scales == [8, 8, 16, 16, 16, 32, 32]
    updater.update(lambda backward: backward(objective(model, 0) * float("inf")), schedule_share=1e-4)
    scales = [updater.loss_scale.item()]
    for number in range(3):  # the count begins again
        updater.update(one_pass(model, number % 2), schedule_share=1e-4)
        scales.append(updater.loss_scale.item())
    assert scales == [16, 16, 16, 32]


def test_without_it_the_scale_is_1() -> None:
    model = net()
    updater = updater_of(model)
    updater.update(lambda backward: backward(objective(model, 0) * float("nan")), schedule_share=1e-4)
    assert updater.loss_scale.item() == 1
