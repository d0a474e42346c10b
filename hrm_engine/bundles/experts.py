"""Attach experts to bundles and detach them again: always into a new bundle, the parent stays as it is.

An attached expert is one more expert of a layer: its weights stand behind the layer's own, and the router has one more
column. In a layer that was dense, the layer's own network becomes the first expert, with a column of zeros, so that a
token goes to both and the expert's column weighs them.

Shapes: N experts of a layer, D hidden, I inner width.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.child import Parent, load_parent, write_child
from hrm_engine.bundles.listing import descends_from
from hrm_engine.bundles.weights import check_types, expert_shapes, load_file
from hrm_engine.config import CoreConfig
from hrm_engine.config.base import validated
from hrm_engine.errors import BundleError, ConfigError, RegistryError
from hrm_engine.store.attached import Attached, own_columns
from hrm_engine.store.expert_cards import Facts, shown
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.experts import EXPERT_METADATA_FILE, ExpertRegistry
from hrm_engine.store.files import read_json, sha256_file, storing
from hrm_engine.store.paths import Workspace

EXPERTS_OF_DENSE = 2
"""Experts of a token in a model that had none: a layer's own network and the attached one."""
EXPERT_TENSORS = ("gate_proj", "up_proj", "down_proj", "router")
_WEIGHTS = EXPERT_TENSORS[:3]


def attach_expert(
    expert_id: str,
    bundle: str | Path,
    *,
    layer: str | None = None,
    name: str | None = None,
    allow_other_base: bool = False,
    workspace: Workspace | None = None,
) -> Path:
    """Write a child of ``bundle`` in which an expert of the registry is one more expert of a layer.

    Args:
        layer: such as ``H.1``; by default the one that the expert was trained in, else the last high-level one.
        name: of the child, which lies beside its parent; by default ``<parent>-<expert id>``, or the next free number.
        allow_other_base: attach it also to a bundle that neither is the one it was trained on nor was made of that.

    Raises:
        RegistryError: no such expert, it has no weights, or they are not what its card says.
        BundleError: no such bundle, damaged, sizes that do not fit, or the expert is attached to that layer already.
        ConfigError: no such layer, another base than the expert's, or a name that is taken or not allowed.
        StorageError, LockedError: as they say.
    """
    workspace = workspace or Workspace.find()
    registry = ExpertRegistry(workspace)
    expert, sha256, trained_in = _load_expert(registry, expert_id)
    trained_on = registry.get(expert_id).training_config
    parent = load_parent(bundle, workspace)
    names = parent.config.layer_names
    if layer is None:
        layer = trained_in if trained_in in names else f"H.{parent.config.h_layers - 1}"
    if layer not in names:
        raise ConfigError(f"{parent.path.name} has no layer {layer!r}: use one of {', '.join(names)}")
    if any((entry.expert_id, entry.layer) == (expert_id, layer) for entry in parent.attached):
        raise BundleError(f"expert {expert_id!r} is attached to layer {layer} of {parent.path.name} already")
    tensors, config = _with_expert(parent, layer, expert, expert_id)
    if not allow_other_base:
        _check_base(expert_id, trained_on, parent)
    column = config.experts_in(layer) - 1
    entry = Attached(expert_id, layer.partition(".")[0], layer, column, sha256)

    def still_there(content: RegistryContent) -> None:
        if content.get(expert_id).sha256 != sha256:
            raise RegistryError(f"expert {expert_id!r} was trained further just now: attach it again")

    return write_child(
        parent, config, tensors, [*parent.attached, entry], f"-{expert_id}", name, workspace, still_there
    )


def detach_expert(
    expert_id: str,
    bundle: str | Path,
    *,
    layer: str | None = None,
    name: str | None = None,
    workspace: Workspace | None = None,
) -> Path:
    """Write a child of ``bundle`` without an expert that is attached to it.

    A layer that had become routable by it is dense again, with the weights that it had.

    Args:
        layer: needed where the expert is attached to several.
        name: of the child; by default ``<parent>-without-<expert id>``, or the next free number.

    Raises:
        BundleError: no such bundle, damaged, or the expert is not attached to it (to that layer).
        ConfigError: it is attached to several layers and none is named; or a name that is taken or not allowed.
    """
    workspace = workspace or Workspace.find()
    parent = load_parent(bundle, workspace)
    entries = [entry for entry in parent.attached if entry.expert_id == expert_id and layer in (None, entry.layer)]
    if not entries:
        names = ", ".join(f"{entry.expert_id} ({entry.layer})" for entry in parent.attached)
        where = f"layer {layer} of {parent.path.name}" if layer else parent.path.name
        raise BundleError(f"expert {expert_id!r} is not attached to {where}. Attached: {names or 'none'}")
    if len(entries) > 1:
        raise ConfigError(
            f"expert {expert_id!r} is attached to several layers of {parent.path.name}: name one with --layer "
            f"({', '.join(entry.layer for entry in entries)})"
        )
    [gone] = entries
    tensors, config = _without_column(parent, gone.layer, gone.column)
    kept = [  # columns behind the one that goes away move up
        replace(entry, column=entry.column - (entry.layer == gone.layer and entry.column > gone.column))
        for entry in parent.attached
        if entry is not gone
    ]
    return write_child(parent, config, tensors, kept, f"-without-{expert_id}", name, workspace)


def _check_base(expert_id: str, trained_on: Facts, parent: Parent) -> None:
    """Raise ConfigError where an expert was trained on another base; one whose card names none is taken."""
    sha256 = trained_on.get("base_sha256")
    if isinstance(sha256, str) and not descends_from(parent.path, sha256):
        raise ConfigError(
            f"expert {expert_id!r} was trained on {shown(trained_on.get('base'))} as it was then; {parent.path.name} "
            "neither is that base nor was made of it, and an expert works on the states of its base alone. Train it on "
            "this one with --student-init, or attach it all the same with --allow-other-base"
        )


def _load_expert(registry: ExpertRegistry, expert_id: str) -> tuple[dict[str, Tensor], str, str | None]:
    """Tensors of an expert, their hash, and the layer that it was trained in where its metadata names one."""
    card = registry.get(expert_id)
    path = registry.weights(expert_id)
    with storing(path, doing="read"):
        sha256 = sha256_file(path)
    if sha256 != card.sha256:
        raise RegistryError(
            f"{path} is not what was saved: its sha256 is not the one in the registry. Train expert {expert_id!r} "
            "again, or put back the file"
        )
    tensors = load_file(path, error=RegistryError)
    if set(tensors) != set(EXPERT_TENSORS):
        raise RegistryError(
            f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}; an expert is {', '.join(EXPERT_TENSORS)}"
        )
    if problems := check_types(tensors, where=path):
        raise RegistryError("; ".join(problems))
    metadata = path.with_name(EXPERT_METADATA_FILE)
    layer = read_json(metadata, RegistryError).get("layer") if metadata.is_file() else None
    return tensors, sha256, layer if isinstance(layer, str) else None


def _with_expert(
    parent: Parent, layer: str, expert: dict[str, Tensor], expert_id: str
) -> tuple[dict[str, Tensor], CoreConfig]:
    config, tensors = parent.config, dict(parent.tensors)
    width, inner = config.hidden_size, config.intermediate_size
    if config.activation != "swiglu":
        raise BundleError(
            f"{parent.path.name} has feed-forward layers of kind {config.activation}, and experts are SwiGLUs: they do "
            "not fit"
        )
    shapes = expert_shapes(width, inner)
    own_shapes = {part: tuple(expert[part].shape) for part in shapes}
    if own_shapes != shapes:
        part = next(part for part in shapes if own_shapes[part] != shapes[part])
        raise BundleError(
            f"expert {expert_id!r} does not fit {parent.path.name}: {part} has shape {own_shapes[part]}, needed is "
            f"{shapes[part]} (hidden size {width}, intermediate size {inner})"
        )
    at, count = _prefix(layer), config.experts_in(layer)
    if not count:
        for part in _WEIGHTS:
            tensors[f"{at}.{part}"] = tensors.pop(f"{at}.{part}.weight")[None]
        tensors[f"{at}.router.weight"] = torch.zeros(1, width)
        tensors[f"{at}.router.balance_bias"] = torch.zeros(1)
    for part in _WEIGHTS:
        own = tensors[f"{at}.{part}"]
        tensors[f"{at}.{part}"] = torch.cat((own, expert[part].to(own.dtype)[None]))
    router, bias = tensors[f"{at}.router.weight"], tensors[f"{at}.router.balance_bias"]
    tensors[f"{at}.router.weight"] = torch.cat((router, expert["router"].to(router.dtype)[None]))
    tensors[f"{at}.router.balance_bias"] = torch.cat((bias, bias.new_zeros(1)))
    if not all(tensors[f"{at}.{part}"][-1].isfinite().all() for part in (*_WEIGHTS, "router.weight")):
        raise BundleError(f"expert {expert_id!r} has weights that are not finite: train it again")
    layers = {**config.layer_experts, layer: max(1, count) + 1}
    return tensors, _changed(
        config, layer_experts=layers, experts_per_token=config.experts_per_token or EXPERTS_OF_DENSE
    )


def _without_column(parent: Parent, layer: str, column: int) -> tuple[dict[str, Tensor], CoreConfig]:
    config, tensors = parent.config, dict(parent.tensors)
    at, left = _prefix(layer), config.experts_in(layer) - 1
    for part in (*_WEIGHTS, "router.weight", "router.balance_bias"):
        own = tensors[f"{at}.{part}"]
        tensors[f"{at}.{part}"] = torch.cat((own[:column], own[column + 1 :]))
    layers = {**config.layer_experts, layer: left}
    if left == own_columns(config):
        del layers[layer]
        if config.feed_forward == "dense":
            for part in _WEIGHTS:
                tensors[f"{at}.{part}.weight"] = tensors.pop(f"{at}.{part}")[0]
            del tensors[f"{at}.router.weight"], tensors[f"{at}.router.balance_bias"]
    is_routed = config.feed_forward == "moe" or layers
    return tensors, _changed(
        config, layer_experts=layers, experts_per_token=config.experts_per_token if is_routed else 0
    )


def _changed(config: CoreConfig, **changes: Any) -> CoreConfig:
    return validated(CoreConfig, {**config.model_dump(), **changes}, BundleError, "the experts do not fit")


def _prefix(layer: str) -> str:
    """Prefix of a layer's weights: ``H.1`` is ``H_module.layers.1.mlp``."""
    module, _, number = layer.partition(".")
    return f"{module}_module.layers.{number}.mlp"
