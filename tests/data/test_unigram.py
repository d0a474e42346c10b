"""The unigram yardstick, against a computation by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hrm_engine.data.text.packing import IGNORE
from hrm_engine.data.text.unigram import unigram_loss
from hrm_engine.errors import DataError


def test_by_hand() -> None:
    counts = np.array([3, 0, 1])  # smoothed: 4/7, 1/7, 2/7
    labels = torch.tensor([[0, 2, IGNORE], [1, 0, IGNORE]])
    expected = -(2 * math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 4
    assert unigram_loss(counts, labels) == pytest.approx(expected, abs=1e-12)
    assert unigram_loss(counts, labels.numpy()) == pytest.approx(expected, abs=1e-12)


def test_no_counts_is_the_uniform_distribution() -> None:
    assert unigram_loss(np.zeros(8), np.arange(8)) == pytest.approx(math.log(8))


def test_refusals() -> None:
    with pytest.raises(DataError, match="no label token"):
        unigram_loss(np.ones(3), np.array([IGNORE]))
    for wrong in (3, -1):
        with pytest.raises(DataError, match="vocabulary"):
            unigram_loss(np.ones(3), np.array([wrong]))
