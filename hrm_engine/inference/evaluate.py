"""Loss and accuracy of a text model at every depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from hrm_engine.errors import DataError
from hrm_engine.models.act import TextBatch, depth_statistics
from hrm_engine.models.core import RecurrentCore


@dataclass(frozen=True)
class Evaluation:
    """Token-weighted means over the same tokens at every depth; the first entry is after one segment."""

    loss_by_segment: list[float]
    token_accuracy_by_segment: list[float]
    num_tokens: int

    @property
    def loss(self) -> float:
        """Nats per token at the deepest segment."""
        return self.loss_by_segment[-1]

    @property
    def token_accuracy(self) -> float:
        """Share of tokens that are the most likely ones at the deepest segment."""
        return self.token_accuracy_by_segment[-1]

    @property
    def perplexity(self) -> float:
        """``exp(loss)``."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(core: RecurrentCore, batches: Iterable[TextBatch], *, num_segments: int) -> Evaluation:
    """Measure a model on batches of packed rows.

    Raises:
        DataError: the batches hold no label at all.
    """
    return token_means(batches, lambda batch: depth_statistics(core, batch, num_segments=num_segments))


def token_means(
    batches: Iterable[TextBatch], statistics: Callable[[TextBatch], tuple[torch.Tensor, torch.Tensor]]
) -> Evaluation:
    """Means over the label tokens of all batches.

    Args:
        statistics: sums of token losses and of right tokens of a batch at each depth, (N,) each.

    Raises:
        DataError: the batches hold no label at all.
    """
    losses = correct = None
    num_tokens = torch.zeros((), dtype=torch.int64)
    for batch in batches:
        batch_losses, batch_correct = statistics(batch)
        losses = batch_losses if losses is None else losses + batch_losses
        correct = batch_correct if correct is None else correct + batch_correct
        num_tokens = num_tokens.to(batch.labels.device) + (batch.labels >= 0).sum()
    count = int(num_tokens)
    if losses is None or correct is None or count == 0:
        raise DataError("the held-out text has no token to predict; use a longer --eval-file")
    return Evaluation((losses.cpu().double() / count).tolist(), (correct.cpu().double() / count).tolist(), count)
