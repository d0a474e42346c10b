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
from hrm_engine.errors import CheckpointError, MissingExtraError, OutOfMemoryError
from hrm_engine.kernels.device import is_out_of_memory
from hrm_engine.optim.masters import MasterWeights

T = TypeVar("T")
Backward = Callable[[Tensor], None]

FIRST_SCALE, LARGEST_SCALE, GROWTH_INTERVAL = 2.0**16, 2.0**24, 2000
BETAS, EPS = (0.9, 0.95), 1e-8


@dataclass(frozen=True)
class UpdateResult(Generic[T]):
    """What ``loss_fn`` returned, and two device tensors: the gradient norm before clipping, whether it stepped."""

    value: T
    grad_norm: Tensor
    stepped: Tensor


class Updater(ABC):
    """One update rule over the master weights, with everything it needs to continue exactly."""

    def __init__(self, masters: MasterWeights, config: OptimConfig, *, loss_scaling: bool) -> None:
        self.masters = masters
        self.grad_clip = config.grad_clip
        device = next(iter(masters.by_name.values())).device
        self.loss_scale = torch.full((), FIRST_SCALE if loss_scaling else 1.0, device=device)
        self.good_steps = torch.zeros((), device=device)
        self.loss_scaling = loss_scaling
        self.optimizer = self._make(_groups(masters, config), config)

    @abstractmethod
    def _make(self, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
        """Build the library's optimizer over parameter groups."""

    @abstractmethod
    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        """Apply the gradients divided by ``divisor``, or nothing where ``finite`` is False."""

    def update(self, loss_fn: Callable[[Backward], T], *, lr: float) -> UpdateResult[T]:
        """One optimizer step with learning rate ``lr``; skipped as a whole if any gradient is not finite."""
        self.masters.zero_grad()
        value = loss_fn(self._backward)
        gradients = [m.grad for m in self.masters.by_name.values() if m.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).float() / self.loss_scale
        finite = torch.isfinite(norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
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
        self.masters.publish()
        return UpdateResult(value, norm, finite)

    def state_tensors(self) -> dict[str, Tensor]:
        """Optimizer state by ``parameter.key``; plain numbers as scalar tensors."""
        state: dict[str, Tensor] = {"loss_scale": self.loss_scale, "good_steps": self.good_steps}
        for name, master in self.masters.by_name.items():
            for key, value in self.optimizer.state.get(master, {}).items():
                state[f"{name}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return state

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_tensors` gave.

        Raises:
            CheckpointError: state for parameters that this model does not have.
        """
        self.loss_scale.copy_(tensors["loss_scale"])
        self.good_steps.copy_(tensors["good_steps"])
        names = sorted(self.masters.by_name, key=len, reverse=True)
        for full_name, tensor in tensors.items():
            if full_name in {"loss_scale", "good_steps"}:
                continue
            name = next((name for name in names if full_name.startswith(name + ".")), None)
            if name is None:
                raise CheckpointError(f"the optimizer state has {full_name!r}, which this model does not have")
            master = self.masters.by_name[name]
            self.optimizer.state[master][full_name[len(name) + 1 :]] = self._restored(tensor, master.device)

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


class AdamW(Updater):
    """Torch's fused AdamW; clipping and skipping happen inside its kernel, without asking the host."""

    def _make(self, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, eps=EPS, fused=True)

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        with _attributes(self.optimizer, grad_scale=divisor, found_inf=(~finite).float()):
            self.optimizer.step()


class AdamW8bit(Updater):
    """bitsandbytes' AdamW with state in blocks of 8-bit numbers (Dettmers et al. 2022, arXiv 2110.02861)."""

    def _make(self, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import AdamW8bit as Library
        except ImportError as error:
            raise MissingExtraError("--use-8bit-optimizer needs bitsandbytes: pip install bitsandbytes") from error
        return Library(groups, lr=config.lr, betas=BETAS, eps=EPS)

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        # the library takes no device-side condition, so this rule does ask the host once a step
        if not bool(finite):
            return
        gradients = [m.grad for m in self.masters.by_name.values() if m.grad is not None]
        torch._foreach_div_(gradients, divisor)
        self.optimizer.step()

    def _restored(self, tensor: Tensor, device: torch.device) -> Any:
        return int(tensor) if tensor.ndim == 0 and not tensor.is_floating_point() else tensor.to(device)


def make_updater(masters: MasterWeights, config: OptimConfig, *, loss_scaling: bool) -> Updater:
    """The updater that a configuration names.

    Raises:
        MissingExtraError: the optional package it needs is not installed.
    """
    rules: dict[str, type[Updater]] = {"adamw": AdamW8bit if config.use_8bit_optimizer else AdamW}
    return rules[config.optimizer](masters, config, loss_scaling=loss_scaling)


def _groups(masters: MasterWeights, config: OptimConfig) -> list[dict[str, Any]]:
    """Decay on matrices; none on embeddings (rows that a batch does not touch must not shrink) and vectors."""
    decayed, free = [], []
    for name, master in masters.by_name.items():
        (decayed if master.ndim > 1 and "embed" not in name else free).append(master)
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


@contextmanager
def _attributes(target: Any, **values: Any) -> Iterator[None]:
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in values:
            delattr(target, name)
