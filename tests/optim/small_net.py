"""A network of one embedding and two layers, and how the tests of the updaters step it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hrm_engine.config.text import OptimConfig
from hrm_engine.optim.registry import make_updater
from hrm_engine.optim.updater import Updater
from hrm_engine.optim.weights import MasterWeights

Backward = Callable[[Tensor], None]


class Net(nn.Module):
    """An embedding, a matrix large enough for 8-bit state, a vector, and a layer that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(7, 64)
        self.inner = nn.Linear(64, 80)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.tanh(self.inner(self.embed_tokens(tokens)))


def net(dtype: torch.dtype = torch.float32) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().to(dtype)


def objective(model: nn.Module, number: int) -> Tensor:
    tokens = torch.tensor([number % 5, (number + 1) % 5, 3])
    return ((model(tokens).float() - 0.3) ** 2).sum() * (1 + number)


def updater_of(
    model: nn.Module,
    *,
    master: torch.dtype = torch.float32,
    loss_scaling: bool = False,
    decay_all: bool = False,
    **optim: object,
) -> Updater:
    """With a peak learning rate of 1 unless another is given, so that ``schedule_share`` is the learning rate."""
    config = OptimConfig.model_validate({"lr": 1.0, **optim})
    return make_updater(MasterWeights(model, master), config, loss_scaling=loss_scaling, decay_all=decay_all)


def one_pass(model: nn.Module, number: int) -> Callable[[Backward], None]:
    return lambda backward: backward(objective(model, number))


def copies(updater: Updater) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in {**updater.weights.tensors(), **updater.state_tensors()}.items()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name
