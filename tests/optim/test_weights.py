"""What an updater asks of weights, and what the weights of one process do with parameters that are not trained."""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.config.training import OptimConfig
from hrm_engine.optim.registry import make_updater
from hrm_engine.optim.weights import MasterWeights, WeightAverage
from tests.optim.small_net import net, objective, one_pass


def test_only_parameters_that_require_a_gradient_are_touched() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = net(dtype)
        model.inner.requires_grad_(False)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        weights = MasterWeights(model, torch.float32)
        updater = make_updater(weights, OptimConfig(lr=0.1, weight_decay=0.5), loss_scaling=False, decay_all=True)
        average = WeightAverage(weights, decay=0.5)
        result = updater.update(one_pass(model, 0), schedule_share=1.0)
        average.update(1, result.stepped)
        trained = {name for name in before if not name.startswith("inner.")}
        assert weights.parameters.keys() == trained
        assert weights.tensors().keys() == trained | weights.buffers.keys()
        assert average.state_tensors().keys() == trained
        assert not any(name.startswith("inner.") for name in updater.state_tensors())
        with average.applied():
            pass
        for name, parameter in model.named_parameters():
            # no loss reaches what is unused
            assert torch.equal(parameter, before[name]) == name.startswith(("inner.", "unused."))


class Recorded(MasterWeights):
    """Keeps the order in which an updater calls it, and the gradient that it gives to the norm."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, torch.float32)
        self.calls: list[str] = []

    def zero_grad(self) -> None:
        self.calls.append("zero_grad")
        super().zero_grad()

    def reduce(self) -> None:
        """As if a second process had seen the same rows: the gradients of the step are twice those of this one."""
        self.calls.append("reduce")
        super().reduce()
        torch._foreach_mul_(self.gradients(), 2.0)

    def norm(self) -> Tensor:
        self.calls.append("norm")
        return super().norm()

    def publish(self) -> None:
        self.calls.append("publish")
        super().publish()


def test_gradients_are_reduced_once_a_step_after_all_backward_passes_and_before_the_norm() -> None:
    model, alone = net(), net()
    weights = Recorded(model)
    updater = make_updater(weights, OptimConfig(grad_clip=0.0), loss_scaling=False)
    result = updater.update(
        lambda backward: [backward(objective(model, number)) or weights.calls.append("backward") for number in (0, 1)],
        schedule_share=1.0,
    )
    assert weights.calls == ["zero_grad", "backward", "backward", "reduce", "norm", "publish"]
    plain = make_updater(MasterWeights(alone, torch.float32), OptimConfig(grad_clip=0.0), loss_scaling=False)
    by_one = plain.update(
        lambda backward: [backward(objective(alone, number)) for number in (0, 1)], schedule_share=1.0
    )
    torch.testing.assert_close(result.grad_norm, 2 * by_one.grad_norm)


def test_frozen_rows_are_in_no_norm_and_stay_as_they_are() -> None:
    model = net()
    weights = MasterWeights(model, torch.float32)
    weights.freeze("inner.weight", 1)
    updater = make_updater(weights, OptimConfig(lr=0.1, weight_decay=0.5), loss_scaling=False)
    before = model.inner.weight.detach().clone()
    result = updater.update(one_pass(model, 0), schedule_share=1.0)
    assert torch.equal(model.inner.weight[1], before[1])
    assert not torch.equal(model.inner.weight[0], before[0])
    plain = net()
    objective(plain, 0).backward()
    plain.inner.weight.grad[1] = 0
    torch.testing.assert_close(
        result.grad_norm, torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    )
