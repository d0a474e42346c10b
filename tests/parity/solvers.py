"""Tiny solvers of every kind of network."""

from __future__ import annotations

from typing import Any

import torch

from hrm_engine.config import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.models.core import RecurrentCore

CELLS, VOCAB, IDENTIFIERS, SLOTS, QUEUE = 6, 5, 3, 4, 40
NETWORKS: dict[str, dict[str, Any]] = {
    "hrm": {"arch": "hrm", "h_layers": 1, "l_layers": 2},
    "hrm-learned-no-embedding": {"arch": "hrm", "pos_encodings": "learned", "puzzle_tokens": 0, "l_cycles": 1},
    "hrm-no-positions": {"arch": "hrm", "pos_encodings": "none", "puzzle_tokens": 2, "h_cycles": 1, "l_cycles": 3},
    "hrm-all-gradients": {"arch": "hrm", "grad_calls": "full", "q_continue": False, "num_heads": 1},
    "hrm-three-gradients": {"arch": "hrm", "grad_calls": 3, "attention_gate": True},
    "hrm-two-latents": {"arch": "hrm", "num_latents": 2, "initial_state": "random"},
    "hrm-damped-from-zero": {"arch": "hrm", "damping": 0.9, "initial_state": "zero"},
    "trm": {"arch": "trm", "puzzle_tokens": 16, "h_layers": 2},
    "trm-three-latents": {"arch": "trm", "puzzle_tokens": 1, "num_latents": 3, "h_cycles": 2},
    "trm-q-learning": {"arch": "trm", "puzzle_tokens": 0, "q_continue": True, "pos_encodings": "learned"},
    "trm-mlp": {"arch": "trm-mlp", "puzzle_tokens": 2, "h_layers": 2},
    "trm-mlp-learned-damped": {"arch": "trm-mlp", "puzzle_tokens": 0, "pos_encodings": "learned", "damping": 0.95},
    "trm-fast": {"arch": "trm-fast", "puzzle_tokens": 2, "h_cycles": 3},
    "trm-fast-four-latents": {"arch": "trm-fast", "puzzle_tokens": 0, "num_latents": 4},
    "transformer": {"arch": "transformer", "h_layers": 2, "halt_max_steps": 1},
    "transformer-thinking": {"arch": "transformer", "pos_encodings": "learned", "q_continue": True},
}


def make_core(seed: int = 2, **chosen: Any) -> RecurrentCore:
    """A solver of width 16 whose heads are not at their first values, in float64."""
    depth = {"h_layers": 1, "l_layers": 1, "h_cycles": 2, "l_cycles": 2, "halt_max_steps": 3}
    if chosen["arch"] == "transformer":
        depth |= {"h_cycles": 1, "l_cycles": 0}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_heads": 2}
    network = PuzzleNetworkConfig.model_validate({**sizes, **depth, **chosen})
    config = resolve_puzzle_core(network, vocab_size=VOCAB, seq_len=CELLS, num_identifiers=IDENTIFIERS)
    core = RecurrentCore(config)
    core.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    assert core.q_head is not None
    with torch.no_grad():
        core.q_head.weight.normal_(0, 0.4, generator=generator)
        core.q_head.bias.normal_(0, 0.4, generator=generator)
        for name, parameter in core.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(2)
    core = core.double()
    if core.puzzle_embedding is not None:  # in fp32 it would stay
        table = core.puzzle_embedding.weight
        core.puzzle_embedding.weight = torch.randn(table.shape, generator=generator).double()
    return core
