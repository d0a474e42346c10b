"""How much arithmetic thinking costs, from the configuration alone.

Matrix products only, 2 FLOPs for each multiplication with its addition; norms, rotations and activations are left out.
"""

from __future__ import annotations

from hrm_engine.config import CoreConfig
from hrm_engine.config.core import inner_width
from hrm_engine.models.layers import SEQUENCE_EXPANSION


def flops_per_layer(config: CoreConfig) -> int:
    """FLOPs of one layer for one row of ``max_seq_len`` positions, attention of all positions to all."""
    length, width = config.max_seq_len, config.hidden_size
    if config.mixer == "sequence_mlp":
        mixer = 3 * 2 * width * length * inner_width(length, SEQUENCE_EXPANSION)
    else:
        projections = 5 if config.attention_gate else 4
        mixer = projections * 2 * length * width * width + 2 * 2 * length * length * width
    return mixer + 3 * 2 * length * width * config.intermediate_size


def flops_per_segment(config: CoreConfig) -> int:
    """FLOPs of one forward segment of one row with its logits and Q values, all its latents counted."""
    low_layers = config.h_layers if config.shared_modules else config.l_layers
    layers = config.h_cycles * (config.l_cycles * low_layers + config.h_layers)
    cells = config.max_seq_len - config.prefix_tokens
    q_values = {"token": 0, "q_halt": 1, "q_halt_continue": 2}[config.halting]
    heads = 2 * config.hidden_size * (cells * config.vocab_size + q_values)
    return config.num_latents * (layers * flops_per_layer(config) + heads)
