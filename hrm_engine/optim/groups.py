"""Which parameters are updated how: weight decay, and what Muon leaves to AdamW.

A pattern that matches no parameter is an error: the setting it carries would do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import ConfigError

Group = dict[str, Any]
# A hundredth of Muon's rate is Adam's in the recipes that use both.
ADAM_SHARE = 0.01
STACK_DIMS = 3
"""Of the weights of a layer's experts, (N, A, B)."""


def decay_groups(parameters: Mapping[str, Tensor], lr: float, decay: float, *, decay_all: bool) -> list[Group]:
    """Decay on matrices; none on embeddings (rows that a batch does not touch must not shrink) and vectors.

    Args:
        decay_all: decay on everything, as HRM was trained on puzzles.

    Raises:
        ConfigError: no parameter is a matrix.
    """
    if decay_all:
        return [_group(parameters, lr, decay)]
    decayed = _matching(parameters, _is_decayed, "matrices, which weight decay is for")
    free = {name: parameter for name, parameter in parameters.items() if name not in decayed}
    groups = [_group(decayed, lr, decay)]
    return [*groups, _group(free, lr, 0.0)] if free else groups


def muon_groups(
    parameters: Mapping[str, Tensor], config: OptimConfig, *, decay_all: bool, stacks: bool
) -> tuple[list[Group], list[Group]]:
    """Groups for Muon (hidden matrices) and for AdamW (embeddings, heads, routers, biases, vectors).

    Args:
        stacks: whether the rule takes the experts of a layer, (N, A, B), as N matrices; else they are AdamW's.

    Raises:
        ConfigError: the model has no hidden matrix.
    """
    dims = (2, STACK_DIMS) if stacks else (2,)
    hidden = _matching(parameters, partial(_is_hidden, dims=dims), "hidden matrices, which Muon is for")
    rest = {name: parameter for name, parameter in parameters.items() if name not in hidden}
    adam_lr = config.lr * ADAM_SHARE if config.adam_lr is None else config.adam_lr
    adam_decay = config.weight_decay if config.adam_weight_decay is None else config.adam_weight_decay
    adam = list[Group]()
    # Heads are matrices; a model whose head is its embedding has none left, which is no mistake of the settings.
    if rest and (decay_all or any(_is_decayed(name, parameter) for name, parameter in rest.items())):
        adam = decay_groups(rest, adam_lr, adam_decay, decay_all=decay_all)
    elif rest:
        adam = [_group(rest, adam_lr, 0.0)]
    return [_group(hidden, config.lr, config.weight_decay)], adam


def _matching(parameters: Mapping[str, Tensor], pattern: Callable[[str, Tensor], bool], what: str) -> dict[str, Tensor]:
    matching = {name: parameter for name, parameter in parameters.items() if pattern(name, parameter)}
    if not matching:
        raise ConfigError(
            f"the model has no {what}: its parameters are {', '.join(sorted(parameters)[:8])}; use another --optimizer"
        )
    return matching


def _is_decayed(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and "embed" not in name


def _is_hidden(name: str, parameter: Tensor, *, dims: Collection[int]) -> bool:
    # A router is a head: its rows are scores of classes, and what it chooses among is no hidden state.
    return parameter.ndim in dims and not any(part in name for part in ("embed", "head", "router"))


def _group(parameters: Mapping[str, Tensor], lr: float, decay: float) -> Group:
    return {"params": list(parameters.values()), "lr": lr, "base_lr": lr, "weight_decay": decay}
