"""Smoothing: it depends on steps, not on how many rows were written, and keeps the ends of a curve where they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard.queries.smoothing import smoothed


def wave(steps: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"step": steps, "last": np.sin(steps / 120) + 0.2 * np.sin(steps)})


def test_smoothing_follows_steps_and_not_the_number_of_rows() -> None:
    dense, sparse = wave(np.arange(1000)), wave(np.arange(0, 1000, 10))
    fine = smoothed(dense, 20).to_numpy()[::10]
    coarse = smoothed(sparse, 20).to_numpy()
    assert abs(fine - coarse)[5:].max() < 0.1  # before, a line stands on a handful of rows
    # The same rows, taken as if they were further apart, are smoothed over fewer of them.
    assert abs(smoothed(sparse, 2).to_numpy() - sparse["last"].to_numpy()).max() < 0.05


def test_smoothing_keeps_a_straight_line_to_its_ends() -> None:
    steps = np.array([1, 2, 3, 50, 51, 400])
    line = pd.DataFrame({"step": steps, "last": 9.0 - steps / 50})
    assert list(smoothed(line, 10)) == pytest.approx(list(line["last"]))


def test_smoothing_is_the_weighted_fit_that_it_says() -> None:
    noise = np.random.default_rng(0)
    steps = np.cumsum(noise.integers(1, 20, size=60)).astype(float)
    frame = pd.DataFrame({"step": steps, "last": noise.normal(size=60)})
    found = smoothed(frame, 15)
    for at in (0, 7, 30, 59):
        before = steps[: at + 1] - steps[at]
        weights = np.sqrt(0.5 ** (-before / 15))
        seen = frame["last"][: at + 1]
        expected = np.clip(np.polyfit(before, seen, min(at, 1), w=weights)[-1], seen.min(), seen.max())
        assert found.iloc[at] == pytest.approx(expected)


def test_smoothing_stays_within_what_was_seen() -> None:
    after_a_spike = pd.DataFrame({"step": range(6), "last": [0.001, 0.001, 0.5, 0.001, 0.001, 0.001]})
    assert smoothed(after_a_spike, 2).min() >= 0.001


def test_smoothing_does_not_look_ahead() -> None:
    losses = [9.4, 9.3, 9.2, 80.0, 290.0, 73.0]
    frame = pd.DataFrame({"step": np.arange(1, 7), "last": losses})
    before = smoothed(frame, 5).to_numpy()[:3]
    assert list(before) == pytest.approx(losses[:3])
    assert list(before) == pytest.approx(list(smoothed(frame.iloc[:3], 5)))


def test_smoothing_of_very_few_points() -> None:
    point = pd.DataFrame({"step": [5.0], "last": [2.0]})
    assert list(smoothed(point, 10)) == [2.0]
    assert list(smoothed(point.iloc[:0], 10)) == []
    same_step = pd.DataFrame({"step": [5.0, 5.0], "last": [1.0, 3.0]})
    assert list(smoothed(same_step, 10)) == pytest.approx([1.0, 2.0])
    assert list(smoothed(point, 0)) == [2.0]
