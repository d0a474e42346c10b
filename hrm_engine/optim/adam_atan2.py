"""Adam with an arc tangent instead of a division, so that no epsilon is needed (Everett et al. 2024, 2407.05872).

The constants are those of the CUDA package that HRM was trained with (``adam-atan2``): bias-corrected moments inside
the arc tangent, and no factors before it or before the second moment (a = b = 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hrm_engine.optim.conditional import Condition, ConditionalOptimizer, host_knows

# Five arrays of them are a megabyte or less.
CACHED_NUMBERS = 50_000


class AdamATan2(ConditionalOptimizer):
    """``p <- p (1 - lr wd) - lr atan2(m / (1 - beta1^t), sqrt(v / (1 - beta2^t)))``, t counted for each parameter.

    Parameters that have been updated equally often share one ``step`` tensor: their bias correction is one number.
    ``lr`` of a group may be a tensor, as a captured step needs it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients; parameters without one stay as they are, decay included."""
        for group in self.param_groups:
            for parameters in self._equally_old(group["params"]):
                prepared = self._gradients(parameters)
                if prepared is None:
                    return
                gradients, condition = prepared
                step = self.state[parameters[0]]["step"]
                step += condition.share(1.0)
                correction = _bias_correction(step, *group["betas"])
                for part in _parts(parameters):
                    self._update(group, parameters[part], gradients[part], condition, correction)

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

    def _update(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        condition: Condition,
        correction: float | Tensor,
    ) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        means = [self.state[parameter]["exp_avg"] for parameter in parameters]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        torch._foreach_mul_(means, 1 - condition.share(1 - beta1))
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, 1 - condition.share(1 - beta2))
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)

        # The root is never negative, so the arc tangent of the quotient is the one of the two numbers. Where the
        # square has vanished, the smallest number in its place gives zero or a right angle, as it must be.
        roots = torch._foreach_sqrt(squares)
        torch._foreach_clamp_min_(roots, torch.finfo(roots[0].dtype).tiny)
        angles = torch._foreach_div(means, roots)
        torch._foreach_mul_(angles, correction)
        torch._foreach_atan_(angles)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - condition.share(lr * group["weight_decay"]))
        torch._foreach_mul_(angles, condition.share(lr))
        torch._foreach_sub_(parameters, angles)


def _bias_correction(step: Tensor, beta1: float, beta2: float) -> float | Tensor:
    """What turns the quotient of the plain moments into the one of the corrected moments."""
    if host_knows(step.device):
        age = float(step)
        return math.sqrt(1 - beta2**age) / (1 - beta1**age)
    # before the first step that happens the counter is still 0
    ages = step.clamp_min(1)
    correction: Tensor = (1 - beta2**ages).sqrt() / (1 - beta1**ages)
    return correction


def _parts(parameters: list[Tensor]) -> list[slice]:
    """Parts that a CPU works through while they are in its cache; all at once elsewhere."""
    if not host_knows(parameters[0].device):
        return [slice(None)]
    starts, size = [0], 0
    for index, parameter in enumerate(parameters):
        if size and size + parameter.numel() > CACHED_NUMBERS:
            starts.append(index)
            size = 0
        size += parameter.numel()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(parameters)], strict=True)]
