"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

The same rule as ``torch.optim.Muon`` with its default settings, which takes single matrices only. Here the experts of a
layer, stacked in one weight (N, A, B), are N matrices; matrices of one shape go through the iteration together; and a
step that must not happen is left out without asking the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from hrm_engine.optim.conditional import ConditionalOptimizer

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7


class Muon(ConditionalOptimizer):
    """For matrices (..., A, B): ``p <- p (1 - lr wd) - lr sqrt(max(1, A / B)) U`` (U: orthogonal Nesterov momentum)."""

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.02, momentum: float = MOMENTUM, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients; parameters without one stay as they are."""
        condition = self._condition()
        if condition is None:
            return
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            self._prepare(gradients, condition)
            lr, momentum = group["lr"], group["momentum"]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            torch._foreach_mul_(buffers, 1 - condition.share(1 - momentum))
            torch._foreach_add_(buffers, gradients, alpha=1 - momentum)
            updates = orthogonal(list(torch._foreach_lerp(gradients, buffers, momentum)))
            scale = condition.share(lr)
            for update in updates:
                update.mul_(scale * math.sqrt(max(1.0, update.shape[-2] / update.shape[-1])))
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - condition.share(lr * group["weight_decay"]))
            torch._foreach_sub_(parameters, updates)


def orthogonal(matrices: list[Tensor]) -> list[Tensor]:
    """Near-orthogonal matrices with the singular vectors of the given ones, (A, B) or stacks (N, A, B) of them.

    Those of one shape are done together.

    Five steps of a quintic Newton-Schulz iteration whose coefficients bring singular values into about 0.7 to 1.2.
    Computed in bf16 on accelerators, as published; in fp32 on the CPU, where that is no slower.
    """
    by_shape: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(index)
    results: list[Tensor] = list(matrices)
    for shape, indices in by_shape.items():
        given = torch.stack([matrices[index] for index in indices])
        batch = given.flatten(0, -3)
        if batch.device.type != "cpu":
            batch = batch.bfloat16()
        elif batch.dtype in (torch.bfloat16, torch.float16):
            batch = batch.float()
        is_tall = shape[-2] > shape[-1]
        wide = batch.mT if is_tall else batch
        wide = _newton_schulz(wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp_min(SMALLEST_NORM))
        done = (wide.mT if is_tall else wide).to(given.dtype).view_as(given)
        for index, result in zip(indices, done.unbind(), strict=True):
            results[index] = result
    return results


def _newton_schulz(x: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
