"""Loss and accuracy of a text model at every depth, and at the depth that it chooses itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hrm_engine.errors import DataError
from hrm_engine.models.act import TextBatch, adaptive_statistics, check_threshold, depth_statistics
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.figures import LARGEST_LOSS


@dataclass(frozen=True)
class Adaptive:
    """Means over the same tokens, each halting by itself."""

    halt_threshold: float
    loss: float
    token_accuracy: float
    mean_depth: float
    """Segments run for a token."""


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
        return math.exp(self.loss) if self.loss < LARGEST_LOSS else math.inf


def evaluate(core: RecurrentCore, batches: Iterable[TextBatch], *, num_segments: int) -> Evaluation:
    """Measure a model on batches of packed rows, at every depth.

    Raises:
        DataError: the batches hold no label at all.
    """
    (losses, accuracies), num_tokens = token_means(
        batches, lambda batch: depth_statistics(core, batch, num_segments=num_segments)
    )
    return Evaluation(losses, accuracies, num_tokens)


def evaluate_adaptive(
    core: RecurrentCore, batches: Iterable[TextBatch], *, num_segments: int, halt_threshold: float
) -> Adaptive:
    """Measure a model where a token goes on while the probability that a further segment pays is above the threshold.

    Raises:
        ConfigError: the threshold is no probability, or the model has no halting head. DataError: there is no label.
    """
    check_threshold(core, halt_threshold)
    ((loss,), (accuracy,), (depth,)), _ = token_means(
        batches,
        lambda batch: adaptive_statistics(core, batch, num_segments=num_segments, halt_threshold=halt_threshold),
    )
    return Adaptive(halt_threshold, loss, accuracy, depth)


def token_means(
    batches: Iterable[TextBatch], statistics: Callable[[TextBatch], tuple[Tensor, ...]]
) -> tuple[list[list[float]], int]:
    """Means over the label tokens of all batches, and the number of these.

    Args:
        statistics: sums over the label tokens of a batch, each (n,) or a scalar, which counts as (1,).

    Raises:
        DataError: the batches hold no label at all.
    """
    sums: list[Tensor] | None = None
    num_tokens = torch.zeros((), dtype=torch.int64)
    for batch in batches:
        added = [numbers.reshape(-1) for numbers in statistics(batch)]
        sums = added if sums is None else [before + now for before, now in zip(sums, added, strict=True)]
        num_tokens = num_tokens.to(batch.labels.device) + (batch.labels >= 0).sum()
    count = int(num_tokens)
    if sums is None or count == 0:
        raise DataError("the held-out text has no token to predict; use a longer --eval-file")
    return [(numbers.cpu().double() / count).tolist() for numbers in sums], count
