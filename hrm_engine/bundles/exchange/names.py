"""Names of weights: ours, and those of the two reference implementations.

Theirs fuse the projections of queries, keys and values, and gate and value of a SwiGLU, into one matrix each; ours keep
them apart. Everything else is renaming. TRM's shared module is called ``L_level`` there and ``H_module`` here.

Shapes: D hidden, N identifiers, W width of the puzzle embedding, L positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hrm_engine.config import CoreConfig

Format = Literal["sapient-hrm", "trm"]
FORMATS: tuple[Format, ...] = get_args(Format)

EMBEDDING = "embed_tokens.embedding_weight"
"""The weight by which a checkpoint is recognised: it is in all of them."""

COMPILED = "_orig_mod."
_PREFIX = re.compile(rf"({re.escape(COMPILED)})?(model\.)?(inner\.)?")

# Their name, our name.
_PLAIN = {
    EMBEDDING: "embed_tokens.weight",
    "embed_pos.embedding_weight": "embed_positions.weight",
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
    "puzzle_emb.weights": "puzzle_embedding.weight",
    "H_init": "z_H_init",
    "L_init": "z_L_init",
}
_MODULES: dict[Format, dict[str, str]] = {
    "sapient-hrm": {"H_level": "H_module", "L_level": "L_module"},
    "trm": {"L_level": "H_module"},
}
# Within a layer: their matrix, and ours that it is made of, one below the other.
_MATRICES = {
    "self_attn.qkv_proj.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "self_attn.o_proj.weight": ("self_attn.o_proj.weight",),
    "mlp_t.gate_up_proj.weight": ("self_attn.mlp.gate_proj.weight", "self_attn.mlp.up_proj.weight"),
    "mlp_t.down_proj.weight": ("self_attn.mlp.down_proj.weight",),
    "mlp.gate_up_proj.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.down_proj.weight": ("mlp.down_proj.weight",),
}
_LAYER = re.compile(r"(\w+)\.layers\.(\d+)\.(.+)")


def prefix_of(names: Mapping[str, Tensor]) -> str | None:
    """Prefix of every name, from the wrappers that the network was saved in; None if it is no such network."""
    embedding = next((name for name in names if name.endswith(EMBEDDING)), None)
    prefix = None if embedding is None else embedding.removesuffix(EMBEDDING)
    return prefix if prefix is not None and _PREFIX.fullmatch(prefix) else None


def to_ours(tensors: Mapping[str, Tensor], kind: Format) -> dict[str, Tensor]:
    """Their tensors, without prefix, under our names; names that are not theirs are left as they are."""
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _LAYER.fullmatch(name)
        if match is None or match[1] not in _MODULES[kind] or match[3] not in _MATRICES:
            ours[_PLAIN.get(name, name)] = tensor
            continue
        parts = _MATRICES[match[3]]
        for part, piece in zip(parts, tensor.chunk(len(parts)), strict=False):
            ours[f"{_MODULES[kind][match[1]]}.layers.{match[2]}.{part}"] = piece.contiguous()
    return ours


def to_theirs(tensors: Mapping[str, Tensor], kind: Format) -> dict[str, Tensor]:
    """Our tensors under their names, without prefix. Undoes :func:`to_ours`."""
    plain = {ours: theirs for theirs, ours in _PLAIN.items()}
    modules = {ours: theirs for theirs, ours in _MODULES[kind].items()}
    first_parts = {parts[0]: (theirs, parts) for theirs, parts in _MATRICES.items()}
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            theirs[plain[name]] = tensor
        elif match[3] in first_parts:
            fused, parts = first_parts[match[3]]
            layer = f"layers.{match[2]}."
            pieces = [tensors[f"{match[1]}.{layer}{part}"] for part in parts]
            theirs[f"{modules[match[1]]}.{layer}{fused}"] = torch.cat(pieces)
    return theirs


def differences(config: CoreConfig, expected: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """One clause for each setting that is none of the values that a format has for it, and for what none has."""
    problems = [
        f"{name} is {getattr(config, name)}, there it is {' or '.join(map(str, values))}"
        for name, values in expected.items()
        if getattr(config, name) not in values
    ]
    if config.feed_forward == "moe" or config.layer_experts:
        problems.append("it has experts, which the format does not know")
    if config.l_cycles == 0:
        problems.append("it has no low-level calls")
    return problems
