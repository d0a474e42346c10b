"""Nested state of an optimizer as named tensors and one piece of JSON, and back, type by type.

Optimizers keep numbers, lists, queues, dictionaries with float keys, and small objects of their library beside tensors.
A checkpoint holds tensors alone and nothing that could execute, so the rest becomes text; of objects only classes of
the library are made again, without calling anything of theirs.
"""

from __future__ import annotations

import importlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from hrm_engine.errors import CheckpointError

LIBRARY = "pytorch_optimizer."
# Settings of a parameter group that the configuration makes; everything else in it is state.
_CONFIGURED = {"params", "lr", "base_lr", "weight_decay"}
_SEQUENCES = (list, tuple, deque, torch.Size)
_SEQUENCE_NAMES: dict[str, Callable[[list[Any]], Any]] = {kind.__name__: kind for kind in _SEQUENCES}
Tree = Any


class NotStateError(TypeError):
    """A value of a type that cannot be saved."""


def flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Tree:
    """``value`` as JSON; its tensors go into ``tensors``, under names that begin with ``name``.

    Raises:
        NotStateError: a part is of a type that cannot be saved.
    """
    if isinstance(value, Enum):
        return {"enum": _path_of(type(value)), "value": value.value}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        # files hold rows one after the other; the order in memory decides the last bits of a matrix product
        own_order = not value.is_contiguous() and 0 not in value.stride()
        strides = {"strides": list(value.stride())} if own_order else {}
        return {"tensor": name, "host": value.device.type == "cpu", **strides}
    if type(value) in _SEQUENCES:
        parts = [flatten(part, f"{name}.{index}", tensors) for index, part in enumerate(value)]
        return {type(value).__name__: parts, **({"maxlen": value.maxlen} if isinstance(value, deque) else {})}
    if isinstance(value, dict):
        pairs = [[flatten(key, name, {}), flatten(part, f"{name}.{key}", tensors)] for key, part in value.items()]
        return {"dict": pairs}
    if type(value).__module__.startswith(LIBRARY) and not isinstance(value, torch.optim.Optimizer):
        return {"object": _path_of(type(value)), "fields": flatten(vars(value), name, tensors)}
    raise NotStateError(f"{name} is a {type(value).__module__}.{type(value).__qualname__}")


def rebuild(tree: Tree, tensors: dict[str, Tensor], device: torch.device) -> Any:
    """The value that :func:`flatten` took apart; tensors that were on the model's device go to ``device``.

    Raises:
        CheckpointError: a tensor is missing, or a class is none of the library's.
    """
    if not isinstance(tree, dict):
        return tree
    kind = next(iter(tree))
    content = tree[kind]
    if kind == "tensor":
        if content not in tensors:
            raise CheckpointError(f"the optimizer state has no tensor {content!r}")
        saved = tensors[content].to("cpu" if tree["host"] else device, copy=True)
        if "strides" not in tree:
            return saved
        ordered = torch.empty_strided(saved.shape, tree["strides"], dtype=saved.dtype, device=saved.device)
        return ordered.copy_(saved)
    if kind == "dict":
        return {rebuild(key, tensors, device): rebuild(part, tensors, device) for key, part in content}
    if kind == "enum":
        return _class_at(content)(tree["value"])
    if kind == "object":
        made: Any = object.__new__(_class_at(content))
        made.__dict__.update(rebuild(tree["fields"], tensors, device))
        return made
    parts = [rebuild(part, tensors, device) for part in content]
    return deque(parts, tree["maxlen"]) if kind == "deque" else _SEQUENCE_NAMES[kind](parts)


def take_apart(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of a rule as tensors by ``parameter.key``, and as JSON whatever is no tensor."""
    tensors: dict[str, Tensor] = {}
    state = {name: flatten(optimizer.state[p], name, tensors) for name, p in parameters.items() if p in optimizer.state}
    others = {key: value for key, value in optimizer.state.items() if not isinstance(key, Tensor)}
    return tensors, {
        "state": state,
        "others": flatten(others, "optimizer.state", tensors),
        "groups": [
            _savable(
                {key: value for key, value in group.items() if key not in _CONFIGURED},
                f"optimizer.groups.{index}",
                tensors,
            )
            for index, group in enumerate(optimizer.param_groups)
        ],
        "attributes": _savable(_attributes(optimizer), "optimizer.attributes", tensors),
    }


def put_together(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    description: dict[str, Any],
    tensors: dict[str, Tensor],
    device: torch.device,
) -> None:
    """Restore what :func:`take_apart` gave. Raises CheckpointError where it is of another model."""
    unknown = sorted(description["state"].keys() - parameters.keys())
    if unknown:
        raise CheckpointError(f"the optimizer state has {unknown[0]!r}, which this model does not have")
    optimizer.state.clear()
    for name, tree in description["state"].items():
        optimizer.state[parameters[name]] = rebuild(tree, tensors, device)
    for key, value in rebuild(description["others"], tensors, device).items():
        optimizer.state[key] = value
    for group, trees in zip(optimizer.param_groups, description["groups"], strict=True):
        group.update({key: rebuild(tree, tensors, device) for key, tree in trees.items()})
    for key, tree in description["attributes"].items():
        setattr(optimizer, key, rebuild(tree, tensors, device))


def _attributes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Attributes that an optimizer keeps on itself; those of torch's base class begin with an underscore."""
    known = {"defaults", "state", "param_groups"}
    return {key: value for key, value in vars(optimizer).items() if key not in known and not key.startswith("_")}


def _savable(values: dict[str, Any], name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Values as JSON, without those that cannot be saved (functions, types): building the rule sets these again."""
    trees = {}
    for key, value in values.items():
        own: dict[str, Tensor] = {}
        try:
            trees[key] = flatten(value, f"{name}.{key}", own)
        except NotStateError:
            continue
        tensors |= own
    return trees


def as_tensor(tree: Tree) -> Tensor:
    """JSON as bytes in a tensor."""
    return torch.frombuffer(bytearray(json.dumps(tree).encode()), dtype=torch.uint8)


def from_tensor(tensor: Tensor) -> Tree:
    """Read back what :func:`as_tensor` gave. Raises CheckpointError."""
    try:
        return json.loads(bytes(tensor.cpu().tolist()))
    except ValueError as error:
        raise CheckpointError(f"the description of the optimizer state is damaged: {error}") from error


def _path_of(kind: type) -> str:
    if not kind.__module__.startswith(LIBRARY):
        raise NotStateError(f"{kind.__module__}.{kind.__qualname__} is no class of {LIBRARY.rstrip('.')}")
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_at(path: str) -> type:
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.startswith(LIBRARY) else None
    if not isinstance(kind, type):
        raise CheckpointError(f"the optimizer state names {path!r}, which is no class of {LIBRARY.rstrip('.')}")
    return kind
