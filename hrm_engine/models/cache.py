"""Keys and values that attention does not compute anew.

A position is a different vector in every segment, call and layer, so each (segment, call, layer) has a slot of its own.
A position that stopped thinking early is read by later and deeper ones at its last entry of the same call and layer:
:class:`KeyValueCache` does so in generation, token by token, :class:`HeldKeys` where whole rows are computed at once.

Shapes: B batch, S new positions, T visible positions, N heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.config import CoreConfig


class CacheSlots:
    """The slot of one layer in one call of one segment: keys and values (B, capacity, N, K), views of the cache's."""

    def __init__(self, owner: KeyValueCache, keys: Tensor, values: Tensor, earlier: CacheSlots | None) -> None:
        self._owner, self._keys, self._values, self._earlier = owner, keys, values, earlier

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions (B, S, N, K); returns all that the new queries may see, (B, T, N, K) each.

        With a window only the last ``window - 1`` earlier positions are returned, so that the cost of a token does not
        grow with its position.
        """
        owner = self._owner
        start, end = owner.length, owner.length + k.shape[1]
        if owner.stopped is not None and self._earlier is not None:
            stopped = owner.stopped[..., None, None]
            k = torch.where(stopped, self._earlier._keys[:, start:end], k)
            v = torch.where(stopped, self._earlier._values[:, start:end], v)
        self._keys[:, start:end] = k
        self._values[:, start:end] = v
        first = owner.first_visible
        return self._keys[:, first:end], self._values[:, first:end]


class KeyValueCache:
    """All slots of a generation: ``slots(segment, call)`` gives one a layer. Memory is allocated once."""

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
        self.stopped: Tensor | None = None
        """(B, S) new positions that stopped before the segment that runs; None where none has."""
        layers = [_layers_in_call(config, call) for call in range(config.num_calls)]
        shape = (num_segments, sum(layers), batch, capacity, config.num_heads, config.head_size)
        self._keys = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty(shape, device=device, dtype=dtype)
        self._slots: dict[tuple[int, int], list[CacheSlots]] = {}
        for segment in range(num_segments):
            place = 0
            for call, count in enumerate(layers):
                earlier = self._slots.get((segment - 1, call), [None] * count)
                self._slots[segment, call] = [
                    CacheSlots(self, self._keys[segment, place + i], self._values[segment, place + i], earlier[i])
                    for i in range(count)
                ]
                place += count

    def slots(self, segment: int, call: int) -> list[CacheSlots]:
        """Slots of one module call, one a layer."""
        return self._slots[segment, call]

    @property
    def first_visible(self) -> int:
        """The first position that the next query may see."""
        return max(0, self.length + 1 - self.window) if self.window is not None else 0

    def visible_keys(self, num_queries: int) -> int:
        """Number of key positions that :meth:`CacheSlots.append` will return for so many new positions."""
        return self.length + num_queries - self.first_visible

    def close(self, num_new: int, num_segments: int) -> None:
        """The new positions are complete; segments after ``num_segments``, which none of them ran, copy the last."""
        if num_segments < len(self._keys):
            new = slice(self.length, self.length + num_new)
            for kept in (self._keys, self._values):
                kept[num_segments:, :, :, new] = kept[num_segments - 1, :, :, new]
        self.length += num_new
        self.stopped = None


class HeldSlot:
    """Keys and values (B, S, N, K) of one layer in one call: of the segment before, and of the one that runs."""

    def __init__(self) -> None:
        self.before: tuple[Tensor, Tensor] | None = None
        self.now: tuple[Tensor, Tensor] | None = None
        self.stopped: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of this segment, where a position has stopped those of before, which carry no gradient.

        Doing it again in the same segment (checkpointing) gives the same.
        """
        if self.before is not None and self.stopped is not None:
            stopped = self.stopped[..., None, None]
            k, v = torch.where(stopped, self.before[0], k), torch.where(stopped, self.before[1], v)
        self.now = (k.detach(), v.detach())
        return k, v


class HeldKeys:
    """Keys and values of positions that stopped, for the others, where whole rows are computed at once."""

    def __init__(self, config: CoreConfig) -> None:
        self._slots = [[HeldSlot() for _ in range(_layers_in_call(config, call))] for call in range(config.num_calls)]

    def begin(self, stopped: Tensor | None) -> None:
        """A segment begins, before which the positions of ``stopped`` (B, S) had stopped."""
        for slot in (slot for slots in self._slots for slot in slots):
            slot.before, slot.now, slot.stopped = slot.now, None, stopped

    def slots(self, segment: int, call: int) -> list[HeldSlot]:
        """Slots of one module call, one a layer, the same in every segment."""
        return self._slots[call]


def _layers_in_call(config: CoreConfig, call: int) -> int:
    is_high = call % (config.l_cycles + 1) == config.l_cycles
    return config.h_layers if is_high or config.shared_modules else config.l_layers
