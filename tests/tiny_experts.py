"""Experts with random weights, as a training leaves them: file, metadata, card."""

from __future__ import annotations

import safetensors.torch
import torch

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import EXPERT_METADATA_FILE, WEIGHTS_FILE, ExpertRegistry
from hrm_engine.store.files import sha256_file, write_bytes, write_json
from hrm_engine.store.manifest import file_entries
from hrm_engine.store.paths import Workspace


def make_expert(
    workspace: Workspace,
    expert_id: str,
    *,
    width: int = 64,
    inner: int,
    layer: str | None = None,
    seed: int = 0,
    column: float = 0.02,
) -> ExpertCard:
    """Write ``artifacts/experts/<id>`` and add the card; ``column`` scales the router's column."""
    registry = ExpertRegistry(workspace)
    folder = registry.folder(expert_id)
    generator = torch.Generator().manual_seed(seed)
    shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner), "router": (width,)}
    scales = {"router": column}
    tensors = {
        name: torch.randn(shape, generator=generator) * scales.get(name, shape[-1] ** -0.5)
        for name, shape in shapes.items()
    }
    write_bytes(folder / WEIGHTS_FILE, safetensors.torch.save(tensors))
    metadata = {
        "schema_version": 1,
        "kind": "expert",
        "expert_id": expert_id,
        "layer": layer,
        "hidden_size": width,
        "intermediate_size": inner,
        "files": file_entries(folder, [WEIGHTS_FILE]),
    }
    write_json(folder / EXPERT_METADATA_FILE, metadata)
    card = ExpertCard(
        expert_id=expert_id,
        checkpoint_path=registry.place(folder / WEIGHTS_FILE),
        sha256=sha256_file(folder / WEIGHTS_FILE),
        training_config={"hidden_size": width, "intermediate_size": inner},
    )
    return registry.add(card)
