"""Experts that are attached to what a training starts from: frozen, switched off, or favoured by goals.

What the registry and the goals say is looked up once, when a run begins, and kept in its state: a run that is resumed
goes on as it began, whatever has happened to them since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from hrm_engine.bundles.core_config import attached_experts, read_core_config
from hrm_engine.bundles.steering import serving_experts
from hrm_engine.config import CoreConfig
from hrm_engine.config.moe import MoEConfig
from hrm_engine.errors import ConfigError
from hrm_engine.starting.student import student_bundle
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.paths import Workspace

Entry = dict[str, Any]
"""An :class:`Attached` as JSON, with ``is_frozen``, ``is_active`` and ``bias``, which goals add to its score."""


def with_attached(core: CoreConfig, source: Path | None, workspace: Workspace) -> CoreConfig:
    """The settings of a new network with the layers that attached experts have made wider in what it starts from."""
    folder = student_bundle(source, workspace)
    if folder is None:
        return core
    before = read_core_config(folder)
    if not before.layer_experts:
        return core
    content = core.model_dump()
    content |= {"layer_experts": before.layer_experts, "experts_per_token": before.experts_per_token}
    return CoreConfig.model_validate(content)


def look_up(source: Path | None, moe: MoEConfig, workspace: Workspace) -> tuple[list[Entry], list[str]]:
    """The experts attached to what a training starts from as they are now, and sentences for the user.

    Raises:
        ConfigError: ``--goal`` where no expert is attached.
        RegistryError: no such goal; the registry or the goals are damaged.
    """
    folder = student_bundle(source, workspace)
    attached = [] if folder is None else attached_experts(folder)
    if moe.goal is None and not attached:
        return [], []
    if not attached:
        raise ConfigError(
            f"--goal {moe.goal}: no expert is attached to what this training starts from, so no goal can steer it; "
            "start from a bundle of `lab experts attach` with --student-init"
        )
    cards = {card.expert_id: card for card in ExpertRegistry(workspace).cards()}
    ids = {entry.expert_id for entry in attached}
    inactive = {expert_id for expert_id in ids if expert_id in cards and not cards[expert_id].is_active}
    serving, messages = set[str](), list[str]()
    if moe.goal is not None:
        goals: Sequence[int] | Literal["active"] = "active"
        if moe.goal != "active":
            goals = [int(number) for number in moe.goal.split(",")]
        serving, messages = serving_experts(ids, inactive, goals, workspace, str(source))
    entries = []
    for entry in attached:
        card, is_active = cards.get(entry.expert_id), entry.expert_id not in inactive
        bias = moe.goal_bias_strength if is_active and entry.expert_id in serving else 0.0
        is_frozen = card is not None and card.is_frozen
        entries.append({**asdict(entry), "is_frozen": is_frozen, "is_active": is_active, "bias": bias})
    messages += [f"expert {e['expert_id']} is frozen: it is not trained" for e in entries if e["is_frozen"]]
    messages += [f"expert {e['expert_id']} is inactive: no token is sent to it" for e in entries if not e["is_active"]]
    return entries, messages
