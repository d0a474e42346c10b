"""Keys and values of earlier positions, for generation token by token.

A position is a different vector in every segment, cycle and layer, so each (segment, call, layer) has a slot of its
own. Memory is allocated once for the whole context; appending is a copy into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hrm_engine.config import CoreConfig


@dataclass
class CacheSlots:
    """The slot of one layer in one call of one segment: keys and values (B, capacity, N, K)."""

    keys: Tensor
    values: Tensor
    window: int | None
    length: int = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions (B, S, N, K); returns all that the new queries may see, (B, T, N, K) each.

        With a window only the last ``window - 1`` earlier positions are returned, so that the cost of a token does not
        grow with its position.
        """
        end = self.length + k.shape[1]
        self.keys[:, self.length : end] = k
        self.values[:, self.length : end] = v
        first = max(0, self.length + 1 - self.window) if self.window is not None else 0
        self.length = end
        return self.keys[:, first:end], self.values[:, first:end]


class KeyValueCache:
    """All slots of a generation: ``slots(segment, call)`` gives one a layer."""

    def __init__(
        self,
        config: CoreConfig,
        *,
        num_segments: int,
        batch: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.window = config.window_size
        self.length = 0
        self._slots: dict[tuple[int, int], list[CacheSlots]] = {}
        shape = (batch, capacity, config.num_heads, config.head_size)
        for segment in range(num_segments):
            for call in range(config.num_calls):
                is_high = call % (config.l_cycles + 1) == config.l_cycles
                layers = config.h_layers if is_high or config.shared_modules else config.l_layers
                self._slots[segment, call] = [
                    CacheSlots(
                        torch.empty(shape, device=device, dtype=dtype),
                        torch.empty(shape, device=device, dtype=dtype),
                        config.window_size,
                    )
                    for _ in range(layers)
                ]

    def slots(self, segment: int, call: int) -> list[CacheSlots]:
        """Slots of one module call, one a layer."""
        return self._slots[segment, call]

    def visible_keys(self, num_queries: int) -> int:
        """How many key positions :meth:`CacheSlots.append` will return for so many new positions."""
        first = max(0, self.length + 1 - self.window) if self.window is not None else 0
        return self.length + num_queries - first
