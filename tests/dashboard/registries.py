"""Registries of experts and goals to look at, made with the store's own functions."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.dashboard.run_folders import append_timed, eval_fields, train_fields, write_run

HOSTILE = "<img src=x onerror='document.title=1'> **b** :red[c]"


def add_expert(workspace: Workspace, expert_id: str, **fields: Any) -> ExpertCard:
    """A card in the registry."""
    return ExpertRegistry(workspace).add(ExpertCard(expert_id=expert_id, **fields))


def write_registry(workspace: Workspace) -> Goals:
    """Five experts in a tree and beside it, one of them frozen, one inactive; two goals, the second one inactive."""
    add_expert(workspace, "docs", name="Python documentation", category="code", total_activations=1000)
    add_expert(workspace, "typing", name="Types", category="code", parent_expert_id="docs")
    add_expert(workspace, "generics", name="Type variables", category="code", parent_expert_id="typing")
    add_expert(workspace, "poems", name="Poems", category="literature", description="Short ones, by hand.")
    add_expert(workspace, "notes")
    goals = Goals(workspace)
    goals.registry.update("poems", is_frozen=True)
    goals.registry.update("typing", is_active=False)
    goals.add("Explain errors", expert_id="docs")
    goals.add("Write in plain words", expert_id="docs")
    goals.set_active(2, False)
    return goals


def attach(workspace: Workspace, expert_id: str, name: str = "brain") -> Path:
    """A run whose bundle says that an expert stands in it."""
    run = write_run(workspace.root, name, last=5)
    entry = {"expert_id": expert_id, "module": "H", "layer": 0, "column": 8, "sha256": "0" * 64}
    write_json(run / "metadata.json", {"schema_version": 1, "kind": "actv1", "files": {}, "experts": [entry]})
    return run


def train_expert(workspace: Workspace, expert_id: str, *, last: int = 100) -> Path:
    """What a training of an expert leaves in its folder: rows of training, and evaluations with and without it."""
    folder = workspace.experts / expert_id
    folder.mkdir(parents=True)
    noise = random.Random(last)
    rows: list[tuple[str, int, dict[str, Any]]] = [("train", step, train_fields(step, noise)) for step in range(last)]
    rows += [("eval", step, {**eval_fields(step), "loss_without": 8.0}) for step in range(0, last, 25)]
    append_timed(folder / "metrics.jsonl", sorted(rows, key=lambda row: row[1]), datetime.now(UTC) - timedelta(hours=1))
    return folder


def on_disk(workspace: Workspace, expert_id: str) -> dict[str, Any]:
    """The card as it stands in the file."""
    content = json.loads(workspace.expert_registry.read_text(encoding="utf-8"))
    found: dict[str, Any] = next(card for card in content["experts"] if card["expert_id"] == expert_id)
    return found
