"""A text model with its cache: what is fed stays, and only new tokens are computed.

Shapes: B batch, S new tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.models.cache import KeyValueCache
from hrm_engine.models.core import Carry, RecurrentCore


class Decoder:
    """A model with its cache: feeds tokens (B, S) and gives the logits of the last one, (B, V)."""

    def __init__(self, core: RecurrentCore, *, num_segments: int, batch: int = 1, capacity: int | None = None) -> None:
        weight = core.lm_head.weight
        self.core = core
        self.num_segments = num_segments
        self.cache = KeyValueCache(
            core.config,
            num_segments=num_segments,
            batch=batch,
            capacity=capacity or core.config.max_seq_len,
            device=weight.device,
            dtype=weight.dtype,
        )

    @torch.inference_mode()
    def feed(self, tokens: Tensor) -> Tensor:
        """Append tokens (B, S) to the context; logits (B, V) of what follows the last of them."""
        core, cache = self.core, self.cache
        positions = torch.arange(cache.length, cache.length + tokens.shape[1], device=tokens.device)[None]
        # what is fed first is the prompt
        prefix = torch.ones_like(tokens, dtype=torch.bool) if core.config.prefix_lm and not cache.length else None
        context = core.context(positions, cache=cache, prefix=prefix)
        x = core.embed(tokens, positions)
        carry: Carry = core.initial_carry(x)
        for index in range(self.num_segments):
            carry = core.segment(carry, x, context, cache=cache, index=index)
        cache.length += tokens.shape[1]
        return core.logits(carry.z_h[:, -1])
