"""Steps that happen only where the gradients are finite, without the host waiting to learn whether they are.

The rules of this package take two tensors as torch's fused ones do: ``grad_scale``, by which gradients are divided, and
``found_inf``, which is 1 where nothing may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


def host_knows(device: torch.device) -> bool:
    """Whether reading a tensor of this device waits for nothing."""
    return device.type == "cpu"


@dataclass(frozen=True)
class Condition:
    """``finite`` is 1 where the step happens and 0 where it must not; None: it happens."""

    finite: Tensor | None

    def share(self, value: float | Tensor) -> float | Tensor:
        """``value`` where the step happens, else 0."""
        return value if self.finite is None else value * self.finite


class ConditionalOptimizer(torch.optim.Optimizer):
    """Base of rules whose step depends on device tensors alone, so that it can be captured in a CUDA graph."""

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def _condition(self) -> Condition | None:
        """Condition of the next step; None if the host knows already that nothing may change."""
        if self.found_inf is None:
            return Condition(None)
        if host_knows(self.found_inf.device):
            return None if self.found_inf else Condition(None)
        return Condition(1 - self.found_inf)

    def _prepare(self, gradients: list[Tensor], condition: Condition) -> None:
        """Divide the gradients in place, and make them zero where the step must not happen."""
        scale = self.grad_scale
        if scale is not None and not (host_knows(scale.device) and float(scale) == 1.0):
            torch._foreach_div_(gradients, scale)
        if condition.finite is not None:
            # nothing else turns what is not a number into one
            bad = condition.finite == 0
            for gradient in gradients:
                gradient.masked_fill_(bad, 0.0)


@contextmanager
def stepping(
    optimizer: torch.optim.Optimizer, *, grad_scale: Tensor | None, found_inf: Tensor | None
) -> Iterator[None]:
    """Set the two tensors for one step of this optimizer, or of torch's fused ones."""
    optimizer.grad_scale, optimizer.found_inf = grad_scale, found_inf  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
