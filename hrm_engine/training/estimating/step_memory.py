"""What lies in memory at the peak of a training step, counted on tensors that have shapes and no content.

The model and its step are the real ones; only the arithmetic is left out (:class:`FakeTensorMode`). So a change in
what a kernel keeps for its backward pass is seen here without a formula of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrm_engine.config import Config
from hrm_engine.config.training import OptimConfig
from hrm_engine.kernels.device import Precision
from hrm_engine.optim.groups import muon_groups
from hrm_engine.optim.weights import MasterWeights
from hrm_engine.training.costs import Costs, DryStep
from hrm_engine.training.task import Task

_BLOCK_8BIT, _SMALLEST_8BIT = 256, 4096


# Measured on Linux with the default trainings of text, dense and with experts: 1.26 GB and 2.31 GB at most, where
# these give 1.23 and 2.39.
_LIBRARIES_BYTES, _WITH_FREED = 350_000_000, 1.25


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors, by what they are; code, libraries and data come to them."""

    weights: int
    """What the model computes with, buffers included."""
    masters: int
    """Copies in the wider type in which they are updated; 0 where the model computes in that type."""
    gradients: int
    optimizer: int | None
    """State of the update rule; None for rules of libraries, of which only a trial tells."""
    average: int
    """Moving average of the weights."""
    carry: int
    """Puzzles: rows and latent states of the slots."""
    activations: int
    """What a micro-batch needs beside all that, at most."""

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(size or 0 for size in astuple(self))

    @property
    def process(self) -> int:
        """About what the process of a training on a CPU takes at most: tensors, freed blocks between them, libraries,
        and the optimizer's state once more where a checkpoint is written."""
        return _LIBRARIES_BYTES + round(_WITH_FREED * self.total) + (self.optimizer or 0)


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations within it make, for as long as they live: ``now`` and at most, ``peak``."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self._take(leaf.untyped_storage())
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def shapes_only(task: type[Task], network: Config, device: torch.device, precision: Precision) -> Iterator[nn.Module]:
    """Within it tensors have shapes and no content; yields the model, in the type it computes in."""
    with torch.device("meta"):
        model = task.build(network).to(precision.compute)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _without_content(model, device)
        yield model


def step_memory(model: nn.Module, dry: DryStep, costs: Costs, optim: OptimConfig, precision: Precision) -> Memory:
    """Bytes at the peak of a step of a micro-batch, the gradients of those before it lying there.

    Args:
        model: as :func:`shapes_only` yields it, within which this is called.
    """
    weights = MasterWeights(model, precision.master)
    own = {id(parameter) for parameter in model.parameters()}
    parameters = list(weights.parameters.values())
    for name, master in weights.parameters.items():
        if costs.has_gradient(name):
            master.grad = torch.empty_like(master)
    with LiveBytes() as counted:
        dry.run(torch.autograd.backward)
    return Memory(
        weights=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        masters=sum(master.nbytes for master in parameters if id(master) not in own),
        gradients=sum(master.grad.nbytes for master in parameters if master.grad is not None),
        optimizer=_optimizer_bytes(weights.parameters, optim),
        average=sum(max(4, m.itemsize) * m.numel() for m in parameters) if optim.ema_decay else 0,
        carry=dry.carry,
        activations=counted.peak,
    )


def _without_content(model: torch.nn.Module, device: torch.device) -> None:
    """Put parameters and buffers of a model on ``meta`` to a device on which nothing is really there."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def _optimizer_bytes(parameters: dict[str, torch.nn.Parameter], config: OptimConfig) -> int | None:
    """State of the built-in rules: moments as wide as the parameters, in 8 bits with a scale for each block."""
    if config.use_8bit_optimizer or config.optimizer == "adamw_8bit":
        return sum(_moments_8bit(tensor) for tensor in parameters.values())
    if config.optimizer in ("adamw", "adam_atan2"):
        return sum(2 * tensor.nbytes for tensor in parameters.values())
    if config.optimizer == "muon":
        hidden, rest = muon_groups(parameters, config, decay_all=True, stacks=True)
        sizes: list[int] = [
            tensor.nbytes * moments
            for groups, moments in ((hidden, 1), (rest, 2))
            for group in groups
            for tensor in group["params"]
        ]
        return sum(sizes)
    return None


def _moments_8bit(tensor: Tensor) -> int:
    if tensor.numel() < _SMALLEST_8BIT:
        return 2 * 4 * tensor.numel()
    return 2 * (tensor.numel() + 4 * -(-tensor.numel() // _BLOCK_8BIT) + 4 * 256)
