"""A text model with its cache: fed tokens stay, and only new ones are computed.

Shapes: B batch, S new tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.models.act import halts
from hrm_engine.models.cache import KeyValueCache
from hrm_engine.models.core import Carry, RecurrentCore


class Decoder:
    """Feeds tokens (B, S) to a model and gives the logits of the next token, (B, V).

    Args:
        num_segments: depth at which a position is read, at most.
        capacity: positions to have room for; by default the context that the model was trained with.
        halt_threshold: a position goes on while the probability that another segment is worth it is above this; by
            default every one goes to ``num_segments``.
    """

    depths: Tensor
    """(B, S) segments that each position of the last feed has run."""

    def __init__(
        self,
        core: RecurrentCore,
        *,
        num_segments: int,
        batch: int = 1,
        capacity: int | None = None,
        halt_threshold: float | None = None,
    ) -> None:
        weight = core.lm_head.weight
        self.core = core
        self.num_segments = num_segments
        self.halt_threshold = halt_threshold
        self._padding: Tensor | None = None
        self.cache = KeyValueCache(
            core.config,
            num_segments=num_segments,
            batch=batch,
            capacity=capacity or core.config.max_seq_len,
            device=weight.device,
            dtype=weight.dtype,
        )

    @torch.inference_mode()
    def feed(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Append tokens (B, S) to the context; logits (B, V) of the next token.

        Args:
            padding: (B,) number of padding tokens at the left of each row; with the first tokens only.
        """
        core, cache = self.core, self.cache
        if padding is not None:
            if cache.length:
                raise ValueError("padding comes with the first tokens")
            self._padding = padding[:, None]
        end = cache.length + tokens.shape[1]
        places = torch.arange(end, device=tokens.device)[None]
        positions, documents = places[:, cache.length :], None
        is_padding = torch.zeros_like(tokens, dtype=torch.bool)
        if self._padding is not None:
            is_padding = positions < self._padding
            # a row that is finished may be fed beyond its context while others go on
            positions = (positions - self._padding).clamp(0, core.config.max_seq_len - 1)
            documents = (places >= self._padding).long()[:, cache.first_visible :]
        # the first feed is the prompt
        prefix = torch.ones_like(tokens, dtype=torch.bool) if core.config.prefix_lm and not cache.length else None
        context = core.context(positions, documents=documents, cache=cache, prefix=prefix)
        x = core.embed(tokens, positions)
        carry: Carry = core.initial_carry(x)
        self.depths = torch.zeros_like(tokens)
        for index in range(self.num_segments):
            if index and self.halt_threshold is not None:
                cache.stopped = halts(core, carry.z_h, self.halt_threshold, cache.stopped) | is_padding
                if cache.stopped.all():
                    break
            new = core.segment(carry, x, context, cache=cache, index=index)
            carry = new.but_stopped(carry, cache.stopped)
            self.depths += 1 if cache.stopped is None else ~cache.stopped
            num_run = index + 1
        cache.close(tokens.shape[1], num_run)
        return core.logits(carry.z_h[:, -1])
