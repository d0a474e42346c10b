"""The order of rows is a function of counters, and random streams are too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.random import permutation, stream
from hrm_engine.data.text.order import RowOrder
from hrm_engine.errors import DataError


@given(st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
@settings(deadline=None)
def test_each_epoch_is_a_permutation(num_rows: int, seed: int, epoch: int) -> None:
    order = RowOrder(num_rows, seed=seed, linear=False)
    assert sorted(order.indices(epoch * num_rows, num_rows).tolist()) == list(range(num_rows))


@given(
    st.integers(1, 30),
    st.booleans(),
    st.integers(0, 70),
    st.lists(st.integers(0, 25), max_size=8),
)
@settings(deadline=None)
def test_any_split_of_the_same_stretch_agrees(num_rows: int, linear: bool, offset: int, counts: list[int]) -> None:
    order = RowOrder(num_rows, seed=3, linear=linear, start_offset=offset)
    whole = order.indices(0, sum(counts)).tolist()
    joined, position = [], 0
    for count in counts:
        # A fresh object, as after a resume, and with nothing before it in a cache.
        joined += RowOrder(num_rows, seed=3, linear=linear, start_offset=offset).indices(position, count).tolist()
        position += count
    assert joined == whole


def test_linear_order_starts_at_the_offset_and_wraps() -> None:
    order = RowOrder(5, seed=0, start_offset=3)
    assert order.indices(0, 8).tolist() == [3, 4, 0, 1, 2, 3, 4, 0]
    assert [order.epoch(position) for position in (0, 1, 2, 6, 7)] == [0, 0, 1, 1, 2]
    assert order.indices(2, 0).tolist() == []


def test_epochs_and_seeds_differ() -> None:
    order = RowOrder(100, seed=1, linear=False)
    first, second = order.indices(0, 100).tolist(), order.indices(100, 100).tolist()
    assert first != second
    assert RowOrder(100, seed=2, linear=False).indices(0, 100).tolist() != first
    assert order.indices(0, 100).tolist() == first


def test_an_offset_moves_along_the_same_sequence() -> None:
    plain = RowOrder(10, seed=5, linear=False).indices(0, 40).tolist()
    assert RowOrder(10, seed=5, linear=False, start_offset=7).indices(0, 33).tolist() == plain[7:]


def test_refusals() -> None:
    with pytest.raises(DataError, match="0 rows"):
        RowOrder(0, seed=0)
    with pytest.raises(DataError, match="--dataset-start-offset"):
        RowOrder(3, seed=0, start_offset=-1)
    with pytest.raises(ValueError, match="negative"):
        RowOrder(3, seed=0).indices(-1, 2)


class TestStreams:
    def test_the_same_counters_give_the_same_numbers(self) -> None:
        assert stream(1, "halting", 7).random(5).tolist() == stream(1, "halting", 7).random(5).tolist()

    def test_each_part_of_the_key_matters(self) -> None:
        keys = [(1, "a", 2), (1, "a", 3), (1, "b", 2), (2, "a", 2), (12, "", 3), (1, "2", 3), (-1, "a", 2)]
        assert len({float(stream(*key).random()) for key in keys}) == len(keys)

    def test_the_bits_are_pinned(self) -> None:
        # A changed key or generator would silently reorder the data of every resumed run.
        assert permutation(0, "order", 0, 8).tolist() == [6, 0, 7, 5, 1, 4, 3, 2]
        assert permutation(0, "order", 0, 8).dtype == np.int64

    def test_a_permutation_has_no_favourites(self) -> None:
        places = np.array([permutation(0, "order", epoch, 4)[0] for epoch in range(2000)])
        assert np.bincount(places, minlength=4).min() > 420  # 500 expected, standard deviation 19
