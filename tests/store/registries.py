"""An empty registry, and what trainings and attachings leave in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import sha256_file, write_json
from hrm_engine.store.paths import Workspace


@pytest.fixture
def registry(workspace: Path) -> ExpertRegistry:
    return ExpertRegistry(Workspace(workspace))


def add(registry: ExpertRegistry, *names: str, **fields: Any) -> None:
    for name in names:
        registry.add(ExpertCard(expert_id=name, **fields))


def with_weights(registry: ExpertRegistry, name: str) -> Path:
    """An expert as a training leaves it."""
    folder = registry.folder(name)
    folder.mkdir(parents=True)
    (folder / "expert.safetensors").write_bytes(b"weights of " + name.encode())
    write_json(folder / "metadata.json", {"schema_version": 1, "expert_id": name})
    weights = folder / "expert.safetensors"
    add(registry, name, checkpoint_path=registry.place(weights), sha256=sha256_file(weights))
    return folder


def attach(workspace: Path, expert_id: str, bundle: str = "runs/with-expert") -> Path:
    folder = workspace / "artifacts" / bundle
    entry = {"expert_id": expert_id, "module": "H", "layer": 0, "column": 8, "sha256": "0" * 64}
    write_json(folder / "training_args.json", {})
    write_json(folder / "metadata.json", {"schema_version": 1, "experts": [entry]})
    return folder
