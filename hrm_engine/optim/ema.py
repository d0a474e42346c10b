"""Exponential moving average of the weights: it is evaluated and kept, while training goes on with the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hrm_engine.errors import CheckpointError
from hrm_engine.optim.conditional import host_knows
from hrm_engine.optim.weights import Weights


class WeightAverage:
    """Shadows of the weights, in fp32 at least, on their device: ``s <- decay s + (1 - decay) w`` after each update.

    Buffers of the model are no part of it: they are not trained by gradients.
    """

    def __init__(self, weights: Weights, *, decay: float, start_step: int = 0) -> None:
        self.weights = weights
        self.decay = decay
        self.start_step = start_step
        self._shadows = {
            name: parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for name, parameter in weights.parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int, stepped: Tensor) -> None:
        """Take in the weights after ``step``, the number of the update that made them (1 is the first).

        Before ``start_step`` the shadows are the weights.

        Args:
            stepped: scalar bool on the device; where it is False the update did not happen and nothing changes.
        """
        shadows = list(self._shadows.values())
        weights = [parameter.detach() for parameter in self.weights.parameters.values()]
        if step < self.start_step:
            torch._foreach_copy_(shadows, weights)
            return
        weights = [weight.to(shadow.dtype) for weight, shadow in zip(weights, shadows, strict=True)]
        if host_knows(stepped.device):
            if stepped:
                torch._foreach_lerp_(shadows, weights, 1 - self.decay)
            return
        change = torch._foreach_sub(weights, shadows)
        torch._foreach_mul_(change, stepped * (1 - self.decay))
        torch._foreach_add_(shadows, change)

    def applied(self) -> AbstractContextManager[None]:
        """Within it the model computes with the averaged weights; afterwards with exactly the present ones again."""
        return self.weights.replaced(self._shadows)

    def tensors(self) -> dict[str, Tensor]:
        """Averaged parameters, and the model's buffers, by name: what a bundle keeps."""
        return {**self._shadows, **{name: buffer.detach() for name, buffer in self.weights.buffers.items()}}

    def state_tensors(self) -> dict[str, Tensor]:
        """The shadows by the names of their parameters."""
        return dict(self._shadows)

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_tensors` gave.

        Raises:
            CheckpointError: a shadow is missing, of another shape, or of a parameter that this model does not have.
        """
        differing = [
            name
            for name in sorted(self._shadows.keys() | tensors.keys())
            if name not in tensors or name not in self._shadows or tensors[name].shape != self._shadows[name].shape
        ]
        if differing:
            raise CheckpointError(
                f"the moving average is of another model: {', '.join(differing[:4])} is missing or of another shape"
            )
        for name, shadow in self._shadows.items():
            shadow.copy_(tensors[name])
