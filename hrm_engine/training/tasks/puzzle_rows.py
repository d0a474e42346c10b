"""Fresh puzzles for the slots: a ring of rows on the device that is filled ahead of the slots that will take them.

Which row comes when is known (:mod:`hrm_engine.data.puzzles.order`); how many the slots take in a step is known only on
the device. So the ring holds more rows than the slots can take until the host looks at the counter again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.data.puzzles.order import PuzzleOrder
from hrm_engine.data.puzzles.row_arrays import RowArrays
from hrm_engine.models.slots import Rows

READ_AHEAD_STEPS = 24
"""Steps that the ring lasts even if every slot takes a fresh row in each; more than the journal leaves unread."""
RING_BYTES = 1 << 26


class RowQueue:
    """A ring of rows; row number r of the run stands at ``r % capacity``."""

    def __init__(
        self, dataset: PuzzleDataset, *, num_slots: int, seed: int, symmetries: bool, device: torch.device
    ) -> None:
        self.order = PuzzleOrder(dataset, seed=seed)
        self.num_slots = num_slots
        self._seed, self._symmetries, self._board = seed, symmetries, dataset.about.board
        self._arrays = RowArrays(dataset)
        cells = dataset.info.seq_len
        self.capacity = max(READ_AHEAD_STEPS * num_slots, min(4096, RING_BYTES // (2 * cells)))
        dtype = torch.uint8 if dataset.info.vocab_size <= 256 else torch.int32
        shape = (self.capacity, cells)
        self.ring = Rows(
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(self.capacity, dtype=torch.int32, device=device),
        )
        self._filled = 0

    def lasts(self, num_pending: int) -> bool:
        """Whether the ring can hold enough for one step more, ``num_pending`` steps after the counter was read."""
        return (num_pending + 1) * self.num_slots <= self.capacity

    def fill(self, taken: int, num_pending: int) -> None:
        """Have rows for one step more, where ``taken`` were taken up to ``num_pending`` steps ago.

        In large blocks, because preparing few rows costs nearly as much as preparing many.
        """
        if taken + (num_pending + 1) * self.num_slots <= self._filled:
            return
        count = taken + self.capacity - self._filled
        self.order.forget_before(taken)
        inputs, labels, identifiers = self._arrays.take(self.order.rows(self._filled, count))
        if self._symmetries:
            numbers = np.arange(self._filled, self._filled + count)
            inputs, labels = self._board.augment(inputs, labels, seed=self._seed, row_numbers=numbers)
        self._write(self.ring.inputs, inputs)
        self._write(self.ring.labels, labels)
        self._write(self.ring.identifiers, identifiers)
        self._filled += count

    def restart(self, taken: int, epoch: int, epoch_start: int) -> None:
        """Begin again with row number ``taken``, which belongs to ``epoch``."""
        self.order.seek(epoch, epoch_start)
        self._filled = taken

    def _write(self, target: Tensor, source: npt.NDArray[np.integer]) -> None:
        first = self._filled % self.capacity
        values = torch.from_numpy(np.ascontiguousarray(source)).to(target.dtype)
        if target.is_cuda:
            values = values.pin_memory()
        before_the_end = min(len(values), self.capacity - first)
        target[first : first + before_the_end].copy_(values[:before_the_end], non_blocking=True)
        target[: len(values) - before_the_end].copy_(values[before_the_end:], non_blocking=True)
