"""The rows of one step of a text training, and how deep each of their positions goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrm_engine.config.text import DepthConfig
from hrm_engine.data.random import stream
from hrm_engine.data.text.packing import IGNORE, Batch
from hrm_engine.inference.text.reading import on_device
from hrm_engine.models.act import TextBatch, TextLosses
from hrm_engine.models.moe import RoutingSums
from hrm_engine.optim.updater import Backward
from hrm_engine.training.task import Measured
from hrm_engine.training.tasks.routing import with_routing


@dataclass(frozen=True)
class StepRows:
    """The rows of one optimizer step, on the host; the counts are of the whole step, whoever trains on its rows."""

    parts: list[Batch]
    """Micro-batches of this process."""
    depths: list[Tensor] | None
    """(B, S) segments that each position runs, of each micro-batch; None where all run all of them."""
    num_tokens: int
    """Label tokens of the whole step."""
    num_segments: int
    """Segments that the step runs."""
    token_segments: int
    """Pairs of a label token and a segment that it runs, of the whole step: the losses are divided by them."""
    grad_calls: int | None = None
    """Module calls of a segment with gradient, where their number is warmed up."""

    @property
    def normaliser(self) -> float:
        """What the sum of a segment's losses is divided by."""
        return max(1, self.token_segments) / self.num_segments

    def batches(self, device: torch.device) -> Iterator[TextBatch]:
        """The micro-batches, each brought to the device when it is its turn."""
        for number, part in enumerate(self.parts):
            yield on_device(part, device, None if self.depths is None else self.depths[number])


def step_rows(parts: list[Batch], *, depth: DepthConfig, num_segments: int, seed: int, position: int) -> StepRows:
    """The rows of a step, given in micro-batches, with the depths that are drawn for them.

    With ``sample_segments`` the step runs 1 to ``num_segments``, each as likely. In a share ``freeze_positions`` of
    the steps some positions stop earlier: for each row a share of them is drawn, for each of these a segment. All is
    drawn from the seed and ``position``, the rows consumed before, whatever the micro-batches are.
    """
    draw = stream(seed, "depths", position)
    num_segments = int(draw.integers(1, num_segments + 1)) if depth.sample_segments else num_segments
    # numpy's: this runs in a thread, where torch would make a second team of threads beside that of the step
    is_label = np.concatenate([part.labels.numpy() != IGNORE for part in parts])
    num_tokens = int(is_label.sum())
    if num_segments == 1 or draw.random() >= depth.freeze_positions:
        return StepRows(parts, None, num_tokens, num_segments, num_tokens * num_segments)
    stops = draw.random(is_label.shape) < draw.random((len(is_label), 1))
    drawn = np.where(stops, draw.integers(1, num_segments, is_label.shape), num_segments)
    depths = torch.from_numpy(drawn).split([len(part.inputs) for part in parts])
    return StepRows(parts, list(depths), num_tokens, num_segments, int(drawn[is_label].sum()))


class TextStep:
    """The next rows of a text training: ``losses`` runs them, ``balance`` balances the experts after an update."""

    def __init__(
        self,
        rows: StepRows,
        num_rows: int,
        losses: Callable[[Backward], TextLosses],
        balance: Callable[[RoutingSums | None, Tensor], None],
    ) -> None:
        self._rows, self._num_rows, self._losses, self._balance = rows, num_rows, losses, balance

    def run(self, backward: Backward) -> Measured:
        """Forward and backward passes of all micro-batches."""
        losses = self._losses(backward)
        self._routing = losses.routing
        token_segments = self._rows.token_segments
        counts = {"num_tokens": self._rows.num_tokens, "token_segments": token_segments, "rows": self._num_rows}
        if self._rows.grad_calls is not None:
            counts["grad_calls"] = self._rows.grad_calls
        loss = losses.ce_by_segment.sum() / max(1, token_segments)
        numbers = torch.cat((losses.ce_by_segment, losses.halt[None]))
        return Measured(with_routing(numbers, losses.routing), loss, counts)

    def commit(self, stepped: Tensor, schedule_share: float) -> None:
        """Balance the experts."""
        self._balance(self._routing, stepped)
