"""How much arithmetic thinking costs, from the configuration alone.

Matrix products only, 2 FLOPs for each multiplication with its addition; norms, rotations and activations are left out.
"""

from __future__ import annotations

from hrm_engine.config import CoreConfig
from hrm_engine.config.core import inner_width
from hrm_engine.models.layers import SEQUENCE_EXPANSION


def flops_per_layer(config: CoreConfig) -> int:
    """FLOPs of one layer for one row of ``max_seq_len`` positions, in attention of the pairs that may see each other.

    Of experts, those that a token is sent to are counted. Windows and ends of documents are not.
    """
    length, width, heads = config.max_seq_len, config.hidden_size, config.num_heads * config.head_size
    if config.mixer == "sequence_mlp":
        mixer = 3 * 2 * width * length * inner_width(length, SEQUENCE_EXPANSION)
    else:
        projections = 5 if config.attention_gate else 4
        pairs = length * (length + 1) // 2 if config.causal else length * length
        mixer = projections * 2 * length * width * heads + 2 * 2 * pairs * heads
    routed = config.feed_forward == "moe"
    inner = config.intermediate_size * (config.experts_per_token if routed else 1)
    router = 2 * length * width * config.num_experts
    return mixer + router + 3 * 2 * length * width * inner


def training_flops(config: CoreConfig, *, rows: int, num_segments: int) -> int:
    """FLOPs of one optimizer step of a text model on full rows: the forward pass of ``num_segments`` segments, twice
    that again for the calls that carry gradient, and the head three times in each segment.
    """
    low_layers = config.h_layers if config.shared_modules else config.l_layers
    calls = ([low_layers] * config.l_cycles + [config.h_layers]) * config.h_cycles
    passes = sum(calls) + 2 * sum(calls[-config.grad_calls :])
    head = 3 * 2 * config.hidden_size * config.max_seq_len * config.vocab_size
    return rows * num_segments * (passes * flops_per_layer(config) + head)


def flops_per_segment(config: CoreConfig) -> int:
    """FLOPs of one forward segment of one row with its logits and Q values, all its latents counted."""
    low_layers = config.h_layers if config.shared_modules else config.l_layers
    layers = config.h_cycles * (config.l_cycles * low_layers + config.h_layers)
    cells = config.max_seq_len - config.prefix_tokens
    q_values = {"token": 0, "q_halt": 1, "q_halt_continue": 2}[config.halting]
    heads = 2 * config.hidden_size * (cells * config.vocab_size + q_values)
    return config.num_latents * (layers * flops_per_layer(config) + heads)
