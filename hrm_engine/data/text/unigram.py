"""The simplest language model there is, as a yardstick beside every validation loss."""

from __future__ import annotations

import numpy as np
import torch

from hrm_engine.data.text.packing import IGNORE
from hrm_engine.errors import DataError


def unigram_loss(train_token_counts: np.ndarray, labels: np.ndarray | torch.Tensor) -> float:
    """Mean negative log-likelihood (nats per token) of ``labels`` under token frequencies of the training labels.

    ``train_token_counts`` (V,) counts how often each token id is a training label; one is added to each, so that
    no token is impossible: p(t) = (count(t) + 1) / (sum of counts + V). ``labels`` of any shape; ``IGNORE`` (-100)
    is left out. Raises `DataError` if no label is left or one lies outside the vocabulary.
    """
    flat = np.asarray(labels, dtype=np.int64).reshape(-1)
    flat = flat[flat != IGNORE]
    size = len(train_token_counts)
    if flat.size == 0:
        raise DataError("The held-out text has no label token; give a larger --eval-file.")
    if flat.min() < 0 or flat.max() >= size:
        raise DataError(
            f"Held-out token ids reach from {flat.min()} to {flat.max()}; the vocabulary ends at {size - 1}."
        )
    counts = np.asarray(train_token_counts, dtype=np.float64) + 1.0
    log_probability = np.log(counts) - np.log(counts.sum())
    return float(-log_probability[flat].mean())
