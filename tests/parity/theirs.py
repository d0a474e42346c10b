"""The `hrm_text` model of transformers beside ours, with the same weights."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.hrm_text.configuration_hrm_text import HrmTextConfig
from transformers.models.hrm_text.modeling_hrm_text import HrmTextForCausalLM, HrmTextRMSNorm, HrmTextRotaryEmbedding

from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import tiny_core

CONFIGURATIONS = [
    {"hidden_size": 32, "num_heads": 2, "layers": 1, "h_cycles": 1, "l_cycles": 1, "scale": 32**0.5},
    {"hidden_size": 64, "num_heads": 4, "layers": 2, "h_cycles": 2, "l_cycles": 2, "scale": 8.0},
    {"hidden_size": 48, "num_heads": 3, "layers": 3, "h_cycles": 1, "l_cycles": 4, "scale": 50.0},
    {"hidden_size": 32, "num_heads": 1, "layers": 1, "h_cycles": 3, "l_cycles": 2, "scale": 1.0},
]


def both(sizes: dict[str, float], dtype: torch.dtype, **changes: Any) -> tuple[RecurrentCore, HrmTextForCausalLM]:
    """Ours and theirs with the same weights; what ours has beyond theirs is the halting head alone."""
    layers, scale = int(sizes["layers"]), sizes["scale"]
    ours = tiny_core(
        "hrm-text",
        dtype=dtype,
        h_layers=layers,
        l_layers=layers,
        embedding_scale=scale,
        grad_calls=int(sizes["h_cycles"] * (sizes["l_cycles"] + 1)),
        **{name: int(sizes[name]) for name in ("hidden_size", "num_heads", "h_cycles", "l_cycles")},
        **changes,
    ).eval()
    config = HrmTextConfig(
        vocab_size=ours.config.vocab_size,
        hidden_size=ours.config.hidden_size,
        intermediate_size=ours.config.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=ours.config.num_heads,
        head_dim=ours.config.head_size,
        max_position_embeddings=ours.config.max_seq_len,
        H_cycles=ours.config.h_cycles,
        L_cycles=ours.config.l_cycles,
        embedding_scale=scale,
        L_bp_cycles=[ours.config.l_cycles] * ours.config.h_cycles,  # gradient through every call
        rms_norm_eps=ours.config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.config.rope_theta},
        prefix_lm=ours.config.prefix_lm,
    )
    theirs = HrmTextForCausalLM(config).to(dtype).eval()
    renamed = {
        name if name.startswith("lm_head") else f"model.{name}": tensor
        for name, tensor in ours.state_dict().items()
        if not name.startswith("halt_head") and name != "z_H_init"
    }
    result = theirs.load_state_dict(renamed, strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    return ours, theirs


def compute_in_float64(model: nn.Module) -> None:
    """The library casts to fp32 in its norm and its rotary tables, whatever the model's type; here it may not."""

    def norm(self: HrmTextRMSNorm, x: Tensor) -> Tensor:
        return self._norm(x)

    def tables(self: HrmTextRotaryEmbedding, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        size = self.config.head_dim
        base = self.config.rope_parameters["rope_theta"]
        inverse = 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.cat((position_ids[..., None] * inverse,) * 2, -1)
        return angles.cos(), angles.sin()

    for part in model.modules():
        if isinstance(part, HrmTextRMSNorm):
            part.forward = MethodType(norm, part)
        elif isinstance(part, HrmTextRotaryEmbedding):
            part.forward = MethodType(tables, part)
