"""Routing of a loaded bundle: experts that are switched off get no token, experts that serve a goal get more.

``logits' = gate(h) + b`` where b is the strength for an attached expert that serves a goal and -inf for one that is
switched off. Nothing of this is saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from hrm_engine.bundles.bundle import AnyBundle
from hrm_engine.errors import ConfigError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.moe import Routing
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace

MAX_STRENGTH = 5.0


@dataclass(frozen=True)
class ExpertUse:
    """Use of one attached expert over some calls."""

    expert_id: str
    layer: str
    is_active: bool
    bias: float
    """Added to its score by a goal."""
    token_share: float | None
    """Share of the tokens of the layer that were sent to it; None where the layer saw none."""
    mean_probability: float | None
    """Mean over these tokens of its probability among all experts of the layer."""


def steer(
    bundle: AnyBundle,
    *,
    goals: Sequence[int] | Literal["active"] | None = None,
    strength: float = 1.0,
    workspace: Workspace | None = None,
) -> list[str]:
    """Set what is added to the scores of routers, in place of what was added before.

    Loading a bundle does this without goals, which masks inactive experts.

    Args:
        goals: numbers of goals, active or not; ``active`` stands for all active ones; None adds nothing.
        strength: 0 to 5, added to the scores of experts that serve one of them. 0 leaves the router as it is.

    Returns:
        Sentences for the user: goals that nothing here serves, experts that the registry does not know.

    Raises:
        ConfigError: strength out of range. RegistryError: no such goal; registry or goals are damaged.
        BundleError: the bundle's list of experts is damaged.
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise ConfigError(f"--goal-bias-strength {strength}: use a value from 0 (off) to {MAX_STRENGTH:g}")
    workspace = workspace or Workspace.find()
    attached = bundle.attached
    ids = {entry.expert_id for entry in attached}
    inactive, messages = _inactive(ids, workspace)
    serving: set[str] = set()
    if goals is not None:
        serving, about_goals = serving_experts(ids, inactive, goals, workspace, bundle.path.name)
        messages += about_goals
    biases = {
        (entry.layer, entry.column): -math.inf
        if entry.expert_id in inactive
        else strength * (entry.expert_id in serving)
        for entry in attached
    }
    bias_routers(bundle.model, biases)
    return messages


def bias_routers(model: RecurrentCore, biases: Mapping[tuple[str, int], float]) -> None:
    """Set what is added to the scores of experts, by layer and column, in place of what was added to these layers.

    -inf switches an expert off.
    """
    experts = model.experts
    for layer in {layer for layer, _ in biases}:
        moe, columns = experts[layer], {column: bias for (name, column), bias in biases.items() if name == layer}
        moe.router.unsteer()
        for column, bias in columns.items():
            moe.router.steering[column] = bias
        # Where fewer are left than a token is sent to, a masked one would be chosen, if only with weight 0.
        left = moe.num_experts - sum(bias == -math.inf for bias in columns.values())
        moe.experts_per_token = min(model.config.experts_per_token, left)


@contextmanager
def watch_experts(bundle: AnyBundle) -> Iterator[list[ExpertUse]]:
    """Count what is sent to attached experts within the block; the list that it yields is filled when it ends."""
    attached = bundle.attached
    experts, sums = bundle.model.experts, dict[str, Tensor]()
    handles, uses = [], list[ExpertUse]()

    def counter(layer: str) -> Any:
        def count(_: nn.Module, given: tuple[Any, ...], out: tuple[Tensor, Routing]) -> None:
            numbers = out[1].assigned.new_tensor([[given[0].shape[:-1].numel(), 0]])
            columns = (out[1].assigned, out[1].probabilities.to(out[1].assigned.dtype))
            numbers = nn.functional.pad(numbers, (0, 0, 0, len(columns[0])))
            numbers[1:, 0], numbers[1:, 1] = columns
            sums[layer] = sums[layer] + numbers if layer in sums else numbers

        return count

    for layer in dict.fromkeys(entry.layer for entry in attached):
        handles.append(experts[layer].register_forward_hook(counter(layer)))
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()
    for entry in attached:
        bias = float(experts[entry.layer].router.steering[entry.column])
        share = probability = None
        if (numbers := sums.get(entry.layer)) is not None:
            share, probability = (numbers[1 + entry.column].double() / float(numbers[0, 0])).tolist()
        is_active = bias != -math.inf
        uses.append(ExpertUse(entry.expert_id, entry.layer, is_active, bias if is_active else 0.0, share, probability))


def _inactive(ids: set[str], workspace: Workspace) -> tuple[set[str], list[str]]:
    """The experts that are switched off, and a sentence if the registry does not say."""
    if not ids:
        return set(), []
    content = ExpertRegistry(workspace).read()
    inactive = {expert_id for expert_id in ids if expert_id in content and not content.get(expert_id).is_active}
    unknown = sorted(expert_id for expert_id in ids if expert_id not in content)
    if not unknown:
        return inactive, []
    subject, has = ("experts", "have no cards") if len(unknown) > 1 else ("expert", "has no card")
    return inactive, [
        f"the attached {subject} {', '.join(unknown)} {has} in {workspace.expert_registry}: tokens are routed there as "
        "if active"
    ]


def serving_experts(
    ids: set[str], inactive: set[str], goals: Sequence[int] | Literal["active"], workspace: Workspace, name: str
) -> tuple[set[str], list[str]]:
    """The attached experts that serve the goals, and sentences on what steers nothing."""
    store = Goals(workspace)
    serving, messages = set[str](), list[str]()
    if goals == "active":
        serving = store.active_experts() & ids
        if not store.list_goals():
            messages.append("no goal is active: nothing is steered")
        elif not serving:
            messages.append(f"no active goal is served by an expert that is attached to {name}: nothing is steered")
    else:
        for goal_id in dict.fromkeys(goals):
            of_goal = store.get_expert(int(goal_id))
            serving.update(ids.intersection(of_goal))
            if ids.isdisjoint(of_goal):
                messages.append(
                    f"goal {goal_id} is served by no expert that is attached to {name}: it steers nothing "
                    f"(its experts: {', '.join(of_goal) or 'none'})"
                )
    for expert_id in sorted(serving & inactive):
        messages.append(f"expert {expert_id} is inactive: it gets no token, whatever goal it serves")
    return serving, messages
