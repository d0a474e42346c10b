"""The moving average of weights: against a loop in float64, applied and taken back, restored, skipped."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.errors import CheckpointError
from hrm_engine.optim import weights as averages
from hrm_engine.optim.registry import make_updater
from hrm_engine.optim.weights import MasterWeights, WeightAverage
from tests.optim.small_net import Net, OptimConfig, assert_equal, net, objective, one_pass

DTYPES = [torch.float32, torch.bfloat16]


def trained(model: Net, average: WeightAverage, steps: int, *, bad: tuple[int, ...] = ()) -> list[dict]:
    """The weights after each step."""
    updater = make_updater(average.weights, OptimConfig(lr=0.01), loss_scaling=False)
    seen = []
    for number in range(1, steps + 1):
        scale = float("nan") if number in bad else 1.0
        result = updater.update(
            lambda backward, n=number, s=scale: backward(objective(model, n) * s), schedule_share=1.0
        )
        average.update(number, result.stepped)
        seen.append({name: t.detach().double().clone() for name, t in average.weights.tensors().items()})
    return seen


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("start_step", [0, 3])
def test_parity(dtype: torch.dtype, start_step: int, on_device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_device:
        monkeypatch.setattr(averages, "host_knows", lambda device: False)
    model = net(dtype)
    average = WeightAverage(MasterWeights(model, torch.float32), decay=0.8, start_step=start_step)
    shadow = {name: t.detach().double().clone() for name, t in average.weights.tensors().items()}
    for number, weights in enumerate(trained(model, average, 6, bad=(4,)), start=1):
        for name, weight in weights.items():
            if number < start_step:
                shadow[name] = weight
            elif number != 4:
                shadow[name] = 0.8 * shadow[name] + 0.2 * weight
    found = average.tensors()
    assert found.keys() == shadow.keys()
    for name, wanted in shadow.items():
        assert found[name].dtype is torch.float32
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_skipped_step_changes_no_bit(on_device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_device:
        monkeypatch.setattr(averages, "host_knows", lambda device: False)
    model = net()
    average = WeightAverage(MasterWeights(model, torch.float32), decay=0.9)
    trained(model, average, 3)
    before = {name: t.clone() for name, t in average.state_tensors().items()}
    average.update(4, torch.tensor(False))
    assert_equal(average.state_tensors(), before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("master", DTYPES, ids=str)
def test_applied_and_taken_back(dtype: torch.dtype, master: torch.dtype) -> None:
    model = net(dtype)
    masters = MasterWeights(model, master)
    average = WeightAverage(masters, decay=0.5)
    trained(model, average, 3)
    present = {name: p.detach().clone() for name, p in model.named_parameters()}
    kept = {name: t.clone() for name, t in masters.tensors().items()}
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), average.applied():  # noqa: PT012
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, average.tensors()[name].to(dtype)), name
            assert not torch.equal(model.inner.weight, present["inner.weight"])
            raise ZeroDivisionError
        assert_equal({name: p.detach() for name, p in model.named_parameters()}, present)
        assert_equal(masters.tensors(), kept)


def test_restored_shadows_go_on_and_those_of_another_model_are_refused() -> None:
    model = net()
    average = WeightAverage(MasterWeights(model, torch.float32), decay=0.5)
    trained(model, average, 2)
    state = {name: t.clone() for name, t in average.state_tensors().items()}
    other = WeightAverage(MasterWeights(net(), torch.float32), decay=0.5)
    other.load_state_tensors(state)
    assert_equal(other.state_tensors(), state)
    for wrong in ({**state, "outer.weight": torch.zeros(1)}, {**state, "inner.bias": torch.zeros(1)}, {}):
        with pytest.raises(CheckpointError, match="moving average is of another model"):
            other.load_state_tensors(wrong)


def test_buffers_come_from_the_model() -> None:
    model = net()
    model.register_buffer("table", torch.ones(2))
    average = WeightAverage(MasterWeights(model, torch.float32), decay=0.5)
    model.table.fill_(3.0)
    assert average.tensors()["table"].tolist() == [3.0, 3.0]
    assert "table" not in average.state_tensors()
    one_pass(model, 0)(lambda loss: loss.backward())
