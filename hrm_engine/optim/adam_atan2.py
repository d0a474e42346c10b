"""Adam with an arc tangent instead of a division, so that no epsilon is needed (Everett et al. 2024, 2407.05872).

The constants are those of the CUDA package that HRM was trained with (``adam-atan2``): bias-corrected moments inside
the arc tangent, and no factors before it or before the second moment (a = b = 1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from hrm_engine.optim.conditional import Condition, ConditionalOptimizer, host_knows

# Three arrays of them fit a cache; two threads share them (torch gives each at least 32,768).
CACHED_NUMBERS = 2**16


class AdamATan2(ConditionalOptimizer):
    """``p <- p (1 - lr wd) - lr atan2(m / (1 - beta1^t), sqrt(v / (1 - beta2^t)))``, t counted for each parameter.

    Parameters that have been updated equally often share one ``step`` tensor: their bias correction is one number.
    ``lr`` of a group may be a tensor, as a captured step needs it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self._packs: dict[tuple[int, ...], _Pack] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients; parameters without one stay as they are, decay included."""
        condition = self._condition()
        if condition is None:
            return
        for group in self.param_groups:
            for parameters in self._equally_old(group["params"]):
                self._update(group, parameters, condition)

    def share_steps(self) -> None:
        """Let parameters of one age share their counter again, after states have been put in one by one."""
        for group in self.param_groups:
            by_age: dict[float, Tensor] = {}
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    state["step"] = by_age.setdefault(float(state["step"]), state["step"])

    def _equally_old(self, parameters: list[Tensor]) -> list[list[Tensor]]:
        """Parameters with a gradient, in lists that share a counter; those that rest now keep theirs."""
        lists: dict[int, list[Tensor]] = {}
        resting = set()
        new: Tensor | None = None
        for parameter in parameters:
            if parameter.grad is None:
                if rested := self.state.get(parameter):
                    resting.add(id(rested["step"]))
                continue
            state = self.state[parameter]
            if not state:
                if new is None:
                    new = torch.zeros((), device=parameter.device)
                state["step"] = new
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            lists.setdefault(id(state["step"]), []).append(parameter)
        for shared in resting & lists.keys():
            own = self.state[lists[shared][0]]["step"].clone()
            for parameter in lists[shared]:
                self.state[parameter]["step"] = own
        return list(lists.values())

    def _moments(self, parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Both moments of all parameters, each in one piece of memory that their states are views of."""
        key = tuple(map(id, parameters))
        pack = self._packs.get(key)
        if pack is None or any(
            self.state[p]["exp_avg"] is not mean or self.state[p]["exp_avg_sq"] is not square
            for p, mean, square in zip(parameters, pack.means, pack.squares, strict=True)
        ):
            pack = _Pack(parameters, [self.state[p] for p in parameters])
            # other lists with one of these parameters are packed anew when it is their turn
            self._packs = {other: kept for other, kept in self._packs.items() if not set(other) & set(key)}
            self._packs[key] = pack
            for parameter, mean, square in zip(parameters, pack.means, pack.squares, strict=True):
                self.state[parameter] |= {"exp_avg": mean, "exp_avg_sq": square}
        return pack.all_means, pack.all_squares

    def _update(self, group: dict[str, Any], parameters: list[Tensor], condition: Condition) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        step = self.state[parameters[0]]["step"]
        step += condition.share(1.0)
        root_correction = _root_correction(step, beta1, beta2)
        lr_now = condition.share(lr)
        all_gradients = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        self._prepare([all_gradients], condition)
        for mean, square, gradient in zip(*map(_parts, (*self._moments(parameters), all_gradients)), strict=True):
            mean.lerp_(gradient, condition.share(1 - beta1))
            square.mul_(1 - condition.share(1 - beta2)).addcmul_(gradient, gradient, value=1 - beta2)
            # the gradient's place is free now: it takes the corrected root, then the angle
            torch.sqrt(square, out=gradient)
            gradient.mul_(root_correction)
            torch.atan2(mean, gradient, out=gradient)
            if isinstance(lr_now, Tensor):
                gradient.mul_(lr_now)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr_now * group["weight_decay"])
        alpha = 1.0 if isinstance(lr_now, Tensor) else lr_now
        torch._foreach_sub_(parameters, _views(all_gradients, parameters), alpha=alpha)


class _Pack:
    """Moments of several parameters, one after the other in memory: an operation on all of them is one call."""

    def __init__(self, parameters: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        self.all_means = torch.cat([state["exp_avg"].reshape(-1) for state in states])
        self.all_squares = torch.cat([state["exp_avg_sq"].reshape(-1) for state in states])
        self.means = _views(self.all_means, parameters)
        self.squares = _views(self.all_squares, parameters)


def _views(flat: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    pieces = flat.split([parameter.numel() for parameter in parameters])
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, parameters, strict=True)]


def _root_correction(step: Tensor, beta1: float, beta2: float) -> float | Tensor:
    """Factor of sqrt(v) that makes its ratio to m the one of the two corrected moments; the angle knows only that."""
    if host_knows(step.device):
        age = float(step)
        return float((1 - beta1**age) / math.sqrt(1 - beta2**age))
    # before the first step that happens the counter is still 0
    ages = step.clamp_min(1)
    correction: Tensor = (1 - beta1**ages) / (1 - beta2**ages).sqrt()
    return correction


def _parts(flat: Tensor) -> tuple[Tensor, ...]:
    """Parts that a CPU works through while they are in its cache; all at once elsewhere."""
    return flat.split(CACHED_NUMBERS) if host_knows(flat.device) else (flat,)
