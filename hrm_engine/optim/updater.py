"""Optimizers own the update: ``updater.update(loss_fn)``.

``loss_fn(backward)`` runs forward passes and calls ``backward(loss)`` as often as it likes; the updater decides what a
backward pass is (scaled, with graph, fused), clips, skips what is not finite, and steps. Closures, second-order and
fused-backward optimizers therefore need no loop of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import CheckpointError, OutOfMemoryError
from hrm_engine.kernels.device import is_out_of_memory
from hrm_engine.optim.conditional import stepping
from hrm_engine.optim.weights import Weights

T = TypeVar("T")
Backward = Callable[[Tensor], None]

FIRST_SCALE, LARGEST_SCALE, GROWTH_INTERVAL = 2.0**16, 2.0**24, 2000
SCALE_NAMES = ("loss_scale", "good_steps")


@dataclass(frozen=True)
class UpdateResult(Generic[T]):
    """Result of one update; the two tensors are on the device, and of the whole step."""

    value: T
    """Result of ``loss_fn``: numbers of this process."""
    grad_norm: Tensor
    """Norm of the gradients before clipping."""
    stepped: Tensor
    """Whether it was finite, so that the update was made."""


class Updater(ABC):
    """One update rule over the weights: updates, shows what to evaluate, and keeps all state that it continues from.

    Every parameter group has its own peak learning rate (``base_lr``). ``messages`` are sentences for the user.
    """

    def __init__(self, weights: Weights, config: OptimConfig, *, loss_scaling: bool, decay_all: bool) -> None:
        self.weights = weights
        self.grad_clip = config.grad_clip
        self.device = next(iter(weights.parameters.values())).device
        self.loss_scale = torch.full((), FIRST_SCALE if loss_scaling else 1.0, device=self.device)
        self.good_steps = torch.zeros((), device=self.device)
        self.loss_scaling = loss_scaling
        self.messages: list[str] = []
        self.optimizers = self._make(config, decay_all)

    @abstractmethod
    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        """Build the optimizers, whose groups cover each parameter once."""

    @abstractmethod
    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        """Apply the gradients divided by ``divisor``, or nothing where ``finite`` is False."""

    @classmethod
    def averages_weights_of(cls, config: OptimConfig) -> bool:
        """Whether the rule keeps an average of the weights itself, which :meth:`evaluating` shows."""
        return False

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def update(self, loss_fn: Callable[[Backward], T], *, schedule_share: float) -> UpdateResult[T]:
        """One optimizer step; skipped as a whole if any gradient is not finite.

        Args:
            schedule_share: value of the schedule, 0 to 1: the share of each group's peak learning rate.
        """
        self.weights.zero_grad()
        value = loss_fn(self._backward)
        self.weights.reduce()
        norm = self.weights.norm() / self.loss_scale
        finite = torch.isfinite(norm)
        for group in self.groups:
            group["lr"] = group["base_lr"] * schedule_share
        divisor = self.loss_scale
        if self.grad_clip:
            divisor = divisor * (norm / self.grad_clip).clamp_min(1.0)
        with torch.no_grad():
            try:
                self._step(divisor, finite)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Some weights may be updated already, so a smaller micro-batch must not repeat the step.
                raise OutOfMemoryError(
                    "memory ran out in the optimizer's update; use --use-8bit-optimizer or a smaller model"
                ) from error
            self._adapt_scale(finite)
        self.weights.publish()
        return UpdateResult(value, norm, finite)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it weights and model are those that the rule wants evaluated and kept; no others for most rules.

        Rules that step on one set of weights and answer for another (schedule-free ones) exchange them here.
        Afterwards the weights are what they were, bit for bit. No update and no checkpoint within it.
        """
        yield

    def state_tensors(self) -> dict[str, Tensor]:
        """Optimizer state by ``parameter.key``; plain numbers as scalar tensors."""
        state: dict[str, Tensor] = {name: getattr(self, name) for name in SCALE_NAMES}
        for name, optimizer in self._owners():
            for key, value in optimizer.state.get(self.weights.parameters[name], {}).items():
                state[f"{name}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return state

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_tensors` gave.

        Raises:
            CheckpointError: state for parameters that this model does not have, or of another rule.
        """
        for name in SCALE_NAMES:
            getattr(self, name).copy_(tensors[name])
        owners = dict(self._owners())
        names = sorted(owners, key=len, reverse=True)
        for full_name, tensor in tensors.items():
            if full_name in SCALE_NAMES:
                continue
            name = next((name for name in names if full_name.startswith(name + ".")), "")
            if not name:
                raise CheckpointError(f"the optimizer state has {full_name!r}, which this model does not have")
            parameter = self.weights.parameters[name]
            owners[name].state[parameter][full_name[len(name) + 1 :]] = self._restored(tensor, parameter.device)

    def _owners(self) -> list[tuple[str, torch.optim.Optimizer]]:
        """Each parameter's name and the optimizer that has it, in the order of the model."""
        owner = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        return [(name, owner[id(parameter)]) for name, parameter in self.weights.parameters.items()]

    def _restored(self, tensor: Tensor, device: torch.device) -> Any:
        return tensor.to(device)

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss * self.loss_scale if self.loss_scaling else loss)

    def _adapt_scale(self, finite: Tensor) -> None:
        # fp16 gradients: halve the scale when one overflowed, double it after a long time without
        if not self.loss_scaling:
            return
        self.good_steps.copy_(torch.where(finite, self.good_steps + 1, 0.0))
        grow = self.good_steps >= GROWTH_INTERVAL
        factor = torch.where(finite, torch.where(grow, 2.0, 1.0), 0.5)
        self.loss_scale.mul_(factor).clamp_(1.0, LARGEST_SCALE)
        self.good_steps.copy_(torch.where(grow, 0.0, self.good_steps))


class DeviceUpdater(Updater):
    """Rules that clip and skip on the device, without asking the host."""

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        found_inf = (~finite).float()
        for optimizer in self.optimizers:
            with stepping(optimizer, grad_scale=divisor, found_inf=found_inf):
                optimizer.step()


class AskingUpdater(Updater):
    """Rules of libraries, which take no condition from the device: the host waits for it once a step."""

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        if not bool(finite):
            return
        torch._foreach_div_(self.weights.gradients(), divisor)
        for optimizer in self.optimizers:
            optimizer.step()
