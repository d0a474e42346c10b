"""Any optimizer of pytorch_optimizer that runs on ``backward(); step()`` and can be continued exactly.

A rule draws its random numbers from the number of its updates, so that a resumed run draws the same. Before training,
a rule is tried out on a few small tensors of the types that it will have: three steps, and the third again from the
saved state of the second.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.optim.groups import STACK_DIMS, Group, decay_groups, muon_groups
from hrm_engine.optim.state_tree import as_tensor, from_tensor, put_together, take_apart
from hrm_engine.optim.updater import SCALE_NAMES, AskingUpdater

_SECOND_ORDER = "it needs second derivatives of the loss"
_OWN_BACKWARD = "it updates inside the backward pass and takes the model apart itself"
_CLOSURE = "it reads the loss, or evaluates it again, within its step"
_PROCESSES = "it needs several processes"
_SHAPES = "it is only for parameters of special shapes"

REFUSED = {
    "adahessian": _SECOND_ORDER,
    "sophiah": _SECOND_ORDER,
    "lomo": _OWN_BACKWARD,
    "adalomo": _OWN_BACKWARD,
    "adammini": "it needs the model and the names of its parts",
    "muonclip": "it needs the attention logits of the model",
    "alig": _CLOSURE,
    "bsam": _CLOSURE,
    "lbfgs": _CLOSURE,
    "emofact": _CLOSURE,
    "emolynx": _CLOSURE,
    "emonavi": _CLOSURE,
    "demo": _PROCESSES,
    "distributedmuon": _PROCESSES,
    "asgd": "it sets the learning rate itself",
    "ranger21": "it has a learning-rate schedule of its own",
    "sara": "it trains only the weights that are nearly zero",
    "magma": "it wraps another optimizer",
    "lorarite": _SHAPES,
    "spectralsphere": _SHAPES,
    "spam": "its state holds a scheduler, which cannot be saved",
}
MUON_LIKE = {"adago", "adamuon", "normuon"}
"""Rules that leave what is no hidden matrix to AdamW."""
_LIBRARY_STATE = "library"
_SHAPES_TRIED = ((7, 6), (8, 6), (1, 6), (8,), (1,))


def describe(name: str) -> str:
    """Settings that a rule does not take, and whether it averages the weights."""
    kind, parts = _kind(name), []
    if name in MUON_LIKE:
        parts.append("a Muon: takes --adam-lr")
    elif name not in REFUSED:
        parts += _not_taken(kind)
    if issubclass(kind, _Averaging):
        parts.append("averages the weights itself")
    return ", ".join(parts)


@runtime_checkable
class _Averaging(Protocol):
    """A rule that steps on one set of weights and wants another evaluated."""

    def train(self) -> None:
        """Put the weights to step on in their place."""
        ...

    def eval(self) -> None:
        """Put the weights to evaluate in their place."""
        ...


class LibraryUpdater(AskingUpdater):
    """One optimizer of pytorch_optimizer."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        self.name, self.num_updates = config.optimizer, 0
        kind = _kind(self.name)
        if self.name in MUON_LIKE:
            hidden, rest = muon_groups(self.weights.parameters, config, decay_all=decay_all, stacks=False)
            groups = [{**group, "use_muon": part is hidden} for part in (hidden, rest) for group in part]
            if any(weight.ndim == STACK_DIMS for weight in self.weights.parameters.values()):
                self.messages.append(f"--optimizer {self.name} leaves the weights of experts to AdamW; muon does not")
        else:
            groups = decay_groups(self.weights.parameters, config.lr, config.weight_decay, decay_all=decay_all)
            for setting in _not_taken(kind):
                self.messages.append(f"--optimizer {self.name} takes {setting}")
        _try_out(self.name, config, {(weight.dtype, weight.device) for weight in self.weights.parameters.values()})
        return [_build(self.name, groups, config)]

    @classmethod
    def averages_weights_of(cls, config: OptimConfig) -> bool:
        return issubclass(_kind(config.optimizer), _Averaging)

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        if not bool(finite):
            return
        with _drawing_from(self.num_updates, self.device):
            super()._step(divisor, finite)
        self.num_updates += 1

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        (optimizer,) = self.optimizers
        # before the first update there is no average
        if not isinstance(optimizer, _Averaging) or self.num_updates == 0:
            yield
            return
        weights = [parameter.detach() for parameter in self.weights.parameters.values()]
        kept = [weight.clone() for weight in weights]
        with _updated_ones(optimizer):
            optimizer.eval()
        self.weights.publish()
        try:
            yield
        finally:
            with _updated_ones(optimizer):
                optimizer.train()
            torch._foreach_copy_(weights, kept)  # the library's way back rounds
            self.weights.publish()

    def state_tensors(self) -> dict[str, Tensor]:
        """Tensors by ``parameter.key``, and one of bytes that describes everything else."""
        (optimizer,) = self.optimizers
        tensors, description = take_apart(optimizer, self.weights.parameters)
        scales = {name: getattr(self, name) for name in SCALE_NAMES}
        return {**scales, _LIBRARY_STATE: as_tensor({**description, "num_updates": self.num_updates}), **tensors}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        if _LIBRARY_STATE not in tensors:
            raise CheckpointError(f"the optimizer state is not one of --optimizer {self.name}")
        for name in SCALE_NAMES:
            getattr(self, name).copy_(tensors[name])
        description = from_tensor(tensors[_LIBRARY_STATE])
        self.num_updates = description["num_updates"]
        (optimizer,) = self.optimizers
        put_together(optimizer, self.weights.parameters, description, tensors, self.device)


@contextmanager
def _updated_ones(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Leaves parameters that never had a gradient out of the groups: some rules expect an average of each."""
    everything = [group["params"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if optimizer.state.get(parameter)]
    try:
        yield
    finally:
        for group, parameters in zip(optimizer.param_groups, everything, strict=True):
            group["params"] = parameters


def _kind(name: str) -> type[torch.optim.Optimizer]:
    from pytorch_optimizer import load_optimizer

    return load_optimizer(name)


def _settings(kind: type[torch.optim.Optimizer]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind.__init__).parameters)


def _takes_two_betas(kind: type[torch.optim.Optimizer]) -> bool:
    setting = _settings(kind).get("betas")
    return setting is not None and isinstance(setting.default, tuple) and len(setting.default) == 2


def _not_taken(kind: type[torch.optim.Optimizer]) -> list[str]:
    parts = [] if _takes_two_betas(kind) else ["no --beta1 and --beta2"]
    return parts if "weight_decay" in _settings(kind) else [*parts, "no --weight-decay"]


def _build(name: str, groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    kind, betas = _kind(name), (config.beta1, config.beta2)
    settings = _settings(kind)
    chosen: dict[str, object] = {}
    if name in MUON_LIKE:
        chosen["adamw_betas"] = betas
    elif _takes_two_betas(kind):
        chosen["betas"] = betas
    if "weight_decouple" in settings:
        chosen["weight_decouple"] = True
    if "weight_decay" not in settings:
        groups = [{key: value for key, value in group.items() if key != "weight_decay"} for group in groups]
    made: Callable[..., torch.optim.Optimizer] = kind
    optimizer = made(groups, lr=config.lr, **chosen)
    if isinstance(optimizer, _Averaging):
        optimizer.train()
    return optimizer


@contextmanager
def _drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    plain, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(numbers)


def _try_out(name: str, config: OptimConfig, places: set[tuple[torch.dtype, torch.device]]) -> None:
    """Raise ConfigError where the rule does not run on such weights, or does not go on exactly from its state."""
    for dtype, device in places:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem = _trial(name, config, dtype, device)
        except Exception as error:
            # whatever a library raises here, it would raise in the first steps of the training
            problem = f"it fails on {str(dtype).removeprefix('torch.')} weights ({type(error).__name__}: {error})"
        if problem:
            raise ConfigError(f"--optimizer {name} cannot be used: {problem}; 'lab optim list' shows others")


def _trial(name: str, config: OptimConfig, dtype: torch.dtype, device: torch.device) -> str:
    draws = torch.Generator().manual_seed(0)

    def drawn() -> list[Tensor]:
        return [torch.randn(shape, generator=draws).to(device, dtype) for shape in _SHAPES_TRIED]

    def start(values: list[Tensor]) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
        parameters = {str(index): nn.Parameter(value.clone()) for index, value in enumerate(values)}
        group = {"lr": config.lr, "base_lr": config.lr, "weight_decay": config.weight_decay}
        split = [list(parameters.values())[:2], list(parameters.values())[2:]]
        marks = [{"use_muon": True}, {"use_muon": False}] if name in MUON_LIKE else [{}, {}]
        groups = [{**group, "params": part, **mark} for part, mark in zip(split, marks, strict=True)]
        return parameters, _build(name, groups, config)

    def step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
        for parameter, gradient in zip(parameters.values(), gradients[number], strict=True):
            parameter.grad = gradient.clone()
        with _drawing_from(number, device), torch.no_grad():
            optimizer.step()
        changed.extend(group["lr"] != group["base_lr"] for group in optimizer.param_groups)

    changed: list[bool] = []
    first, gradients = drawn(), [drawn() for _ in range(4)]
    straight, optimizer = start(first)
    for number in range(2):
        step(straight, optimizer, number)
    tensors, description = take_apart(optimizer, straight)
    saved = {key: tensor.clone() for key, tensor in tensors.items()}
    resumed, other = start([parameter.detach() for parameter in straight.values()])
    put_together(other, resumed, from_tensor(as_tensor(description)), saved, device)
    step(straight, optimizer, 2)
    step(resumed, other, 2)
    if any(changed):
        return "it sets the learning rate itself"
    if not all(parameter.isfinite().all() for parameter in straight.values()):
        return f"three steps on {str(dtype).removeprefix('torch.')} weights lead to what is not finite"
    if not all(torch.equal(straight[key], resumed[key]) for key in straight):
        return "it does not go on exactly from its saved state"
    if config.lr_scheduler != "constant" and config.lr_min_ratio == 0:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        step(straight, optimizer, 3)
        if not all(parameter.isfinite().all() for parameter in straight.values()):
            return "it does not bear the learning rate of zero that --lr-min-ratio 0 ends with"
    return ""
