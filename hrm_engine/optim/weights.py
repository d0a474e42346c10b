"""The protocol between a model's parameters and the updater.

A step calls, in this order: ``zero_grad``, then the backward passes, ``reduce``, ``norm``, the update rule on
``parameters`` in place, ``publish``. Whether one process holds the parameters or many do, is known to the form behind
the protocol alone: :class:`MasterWeights` is the one of a single process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from hrm_engine.errors import CheckpointError
from hrm_engine.optim.conditional import host_knows


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


class MasterWeights:
    """The form of a single process.

    A model computes in its own dtype (bf16 or fp16 under ``--amp``). Updates that are small against the weight would be
    lost there, so the *masters* are kept in fp32 and the model receives a rounded copy after each update: one cast a
    step, however often a module is called. Gradients are summed in the masters' dtype as soon as a backward pass has
    made them.

    ``parameters`` are the masters, with ``.grad``; the model's own parameters where it computes in their dtype.
    """

    def __init__(self, model: Trainable, dtype: torch.dtype) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._frozen: list[tuple[str, int, Tensor]] = []
        # what a model does not save (biases that goals give to routers) is no part of the state
        saved = model.state_dict().keys()
        self.buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            # what the model itself keeps wider than the masters (routers) is its own master
            if parameter.dtype == torch.promote_types(parameter.dtype, dtype):
                self.parameters[name] = parameter
                continue
            master = nn.Parameter(parameter.detach().to(dtype))
            self.parameters[name] = master
            self._pairs.append((master, parameter))
            parameter.register_post_accumulate_grad_hook(_collector(master))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values by name into masters and buffers; shapes have been checked by the caller."""
        with torch.no_grad():
            for name, tensor in (*self.parameters.items(), *self.buffers.items()):
                tensor.copy_(tensors[name])
        self.publish()

    def tensors(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in (*self.parameters.items(), *self.buffers.items())}

    def freeze(self, name: str, row: int) -> None:
        self._frozen.append((name, row, self.parameters[name].detach()[row].clone()))

    def zero_grad(self) -> None:
        for master in self.parameters.values():
            master.grad = None
        # not model.zero_grad(), which walks through all modules: a millisecond in each step of a small model
        for _, copy in self._pairs:
            copy.grad = None

    def reduce(self) -> None:
        """Take the gradients of frozen rows away, so that they count in no norm; one process has all others."""
        for name, row, _ in self._frozen:
            gradient = self.parameters[name].grad
            if gradient is not None:
                gradient[row] = 0

    def gradients(self) -> list[Tensor]:
        return [master.grad for master in self.parameters.values() if master.grad is not None]

    def norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm(self.gradients()).float()

    def publish(self) -> None:
        """Give the model rounded copies of the masters; frozen rows are first what they were."""
        with torch.no_grad():
            for name, row, value in self._frozen:
                self.parameters[name][row] = value
        if self._pairs:
            masters, copies = zip(*self._pairs, strict=True)
            with torch.no_grad():
                torch._foreach_copy_(list(copies), list(masters))

    @contextmanager
    def replaced(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """As in :class:`Weights`, rounded to the type that the model computes in; its masters stay as they are."""
        copies = {id(master): copy for master, copy in self._pairs}
        own = {name: master for name, master in self.parameters.items() if id(master) not in copies}
        kept = [master.detach().clone() for master in own.values()]
        with torch.no_grad():
            for name, master in self.parameters.items():
                copies.get(id(master), master).copy_(values[name])
        try:
            yield
        finally:
            if own:
                with torch.no_grad():
                    torch._foreach_copy_(list(own.values()), kept)
            self.publish()


def _collector(master: nn.Parameter) -> Callable[[Tensor], None]:
    """Move the gradient of a copy to its master, when a backward pass has made it."""

    def collect(parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        if master.grad is None:
            master.grad = parameter.grad.to(master.dtype)
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return collect


class WeightAverage:
    """Exponential moving average of the weights: it is evaluated and kept, while training goes on with the weights.

    Shadows of the weights, in fp32 at least, on their device: ``s <- decay s + (1 - decay) w`` after each update.

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
