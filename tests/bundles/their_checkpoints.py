"""Checkpoints as the reference implementations leave them, and a solver of ours of the same size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.bundles.exchange.importing import ImportReport, import_checkpoint
from hrm_engine.bundles.exchange.names import Format
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.config import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.config.exchange import ImportConfig, SizesConfig
from hrm_engine.config.kinds import PUZZLE
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.paths import Workspace

WIDTH, INNER, HEADS, VOCAB, CELLS, NAMES = 16, 256, 2, 6, 9, 5
SIZES = SizesConfig(seq_len=CELLS, num_heads=HEADS, puzzle_tokens=None)
ARCH: dict[str, dict[str, Any]] = {
    "sapient-hrm": {
        "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
        **{"H_cycles": 1, "L_cycles": 3, "num_heads": HEADS, "halt_max_steps": 5, "pos_encodings": "rope"},
    },
    "trm": {
        "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        **{"H_cycles": 2, "L_cycles": 2, "num_heads": HEADS, "halt_max_steps": 4, "pos_encodings": "rope"},
        **{"puzzle_emb_len": 3, "mlp_t": False, "no_ACT_continue": True},
    },
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace, which is also the one of the command line."""
    for folder in ("artifacts", "training_data"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HRM_LAB_ROOT", str(tmp_path))
    return Workspace(tmp_path)


def their_tensors(kind: str, *, positions: int = 0, mlp_t: bool = False, embedding: int = WIDTH) -> dict[str, Tensor]:
    """Weights with the names and shapes of a reference implementation, two layers a module, states in bf16.

    Args:
        positions: rows of the learned positions, or length of the rows that ``mlp_t`` mixes.
        embedding: width of the puzzle embedding, 0 for none.
    """
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    tensors = {
        "embed_tokens.embedding_weight": draw(VOCAB, WIDTH),
        "lm_head.weight": draw(VOCAB, WIDTH),
        "q_head.weight": draw(2, WIDTH),
        "q_head.bias": draw(2),
        "H_init": draw(WIDTH).bfloat16(),
        "L_init": draw(WIDTH).bfloat16(),
    }
    if embedding:
        tensors["puzzle_emb.weights"] = draw(NAMES, embedding)
    if positions and not mlp_t:
        tensors["embed_pos.embedding_weight"] = draw(positions, WIDTH)
    for level in ("H_level", "L_level") if kind == "sapient-hrm" else ("L_level",):
        for number in range(2):
            layer = f"{level}.layers.{number}."
            if mlp_t:
                tensors[layer + "mlp_t.gate_up_proj.weight"] = draw(512, positions)
                tensors[layer + "mlp_t.down_proj.weight"] = draw(positions, 256)
            else:
                tensors[layer + "self_attn.qkv_proj.weight"] = draw(3 * WIDTH, WIDTH)
                tensors[layer + "self_attn.o_proj.weight"] = draw(WIDTH, WIDTH)
            tensors[layer + "mlp.gate_up_proj.weight"] = draw(2 * INNER, WIDTH)
            tensors[layer + "mlp.down_proj.weight"] = draw(WIDTH, INNER)
    return tensors


def save(path: Path, tensors: dict[str, Tensor], prefix: str = "_orig_mod.model.inner.") -> Path:
    """The file as their training leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({prefix + name: tensor for name, tensor in tensors.items()}, path)
    return path


def own_bundle(workspace: Workspace, name: str = "own", **chosen: Any) -> Path:
    """A solver of ours with its first weights."""
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS, "h_layers": 1, "l_layers": 1, "intermediate_size": INNER}
    network = PuzzleNetworkConfig.model_validate({**sizes, "halt_max_steps": 3, **chosen})
    config = resolve_puzzle_core(network, vocab_size=VOCAB, seq_len=CELLS, num_identifiers=NAMES)
    core = RecurrentCore(config)
    core.initialise(3)
    card = PuzzleCard(puzzle="other", height=3, width=3, vocab_size=VOCAB, pad_id=0, ignore_label_id=0)
    folder = workspace.runs / name
    folder.mkdir(parents=True)
    files = write_model(folder, PUZZLE.name, config, core.state_dict(), card)
    seal_bundle(folder, PUZZLE.name, files, {"step": 1})
    return folder


def import_as(kind: Format, path: Path, workspace: Workspace, **settings: Any) -> ImportReport:
    """Import a checkpoint of this format with such settings."""
    chosen = ImportConfig(format=kind, **settings)
    return import_checkpoint(path, kind, workspace=workspace, settings=chosen)
