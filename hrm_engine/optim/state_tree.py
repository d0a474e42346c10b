"""Nested optimizer state as named tensors and one piece of JSON, and back, type by type.

Optimizers keep numbers, lists, queues, dictionaries with float keys, and small objects of their library beside tensors.
A checkpoint holds tensors alone and nothing that could execute, so the rest becomes text; of objects only classes of
the library are made again, without calling anything of theirs.
"""

from __future__ import annotations

import importlib
import json
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from hrm_engine.errors import CheckpointError

LIBRARY = "pytorch_optimizer."
_SEQUENCES = (list, tuple, deque, torch.Size)
_SEQUENCE_NAMES: dict[str, Callable[[list[Any]], Any]] = {kind.__name__: kind for kind in _SEQUENCES}
Tree = Any


class NotStateError(TypeError):
    """A value of a type that cannot be saved."""


def flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Tree:
    """What JSON can hold of ``value``; its tensors are put into ``tensors`` under names that begin with ``name``.

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
    """The value that :func:`flatten` took apart; tensors that were on the model's device are put on ``device``.

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
    found = getattr(importlib.import_module(module), name, None) if module.startswith(LIBRARY) else None
    if not isinstance(found, type):
        raise CheckpointError(f"the optimizer state names {path!r}, which is no class of {LIBRARY.rstrip('.')}")
    return found
