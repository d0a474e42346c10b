"""The protocol between a model's parameters and the updater.

A step calls, in this order: ``zero_grad``, then the backward passes, ``reduce``, ``norm``, the update rule on
``parameters`` in place, ``publish``. Whether one process holds the parameters or many do, is known to the form behind
the protocol alone: :class:`~hrm_engine.optim.masters.MasterWeights` is the one of a single process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn


class Trainable(Protocol):
    """The part of a model that weights need; a module of torch has it."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...


class Weights(Protocol):
    """Trained weights of one model: only parameters that require a gradient, and the buffers that are saved.

    A frozen parameter belongs to what the training started from: it is neither copied nor reduced, updated or saved.
    """

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Parameters that the rule updates, by their names in the model; shards of them where they are sharded."""
        ...

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """Saved buffers of the model, by name."""
        ...

    def freeze(self, name: str, row: int) -> None:
        """Keep one row of a parameter as it is, whatever the update rule does to the rest of it."""
        ...

    def zero_grad(self) -> None:
        """Forget all gradients."""
        ...

    def reduce(self) -> None:
        """Turn the gradients of this process into those of the whole step, frozen rows without any.

        The one place where gradients pass between processes: after all backward passes, before the norm.
        """
        ...

    def gradients(self) -> list[Tensor]:
        """Gradients of the parameters that a loss has reached; they may be changed in place."""
        ...

    def norm(self) -> Tensor:
        """Norm of the gradients of all parameters, those that other processes hold included: a scalar in fp32."""
        ...

    def publish(self) -> None:
        """Give the model what the rule has made of the parameters."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, whole and in the type they are updated in, and buffers: what a checkpoint or bundle keeps."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take in the values of what :meth:`tensors` names; further names are ignored."""
        ...

    def replaced(self, values: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Within it the model computes with other values; afterwards everything is what it was, bit for bit.

        Args:
            values: by name, in the form of ``parameters``.
        """
        ...
