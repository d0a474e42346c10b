"""Random words by row number: the published generator, one stream for each seed and name."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.data.random import row_words

MASK = (1 << 64) - 1


def splitmix64(state: int) -> tuple[int, int]:
    """One step of SplitMix64 in plain integers: the next state and the word."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return state, word ^ (word >> 31)


def test_the_slow_generator_is_the_published_one() -> None:
    state, first = splitmix64(0)
    assert (first, splitmix64(state)[1]) == (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)


@given(st.integers(-5, 2**70), st.text(max_size=5), st.integers(1, 4), st.integers(1, 50))
def test_words_are_those_of_the_slow_generator(seed: int, name: str, num_words: int, num_rows: int) -> None:
    state = int.from_bytes(hashlib.sha256(json.dumps([seed, name, 0]).encode()).digest()[:8], "little")
    expected = []
    for _ in range(num_rows * num_words):
        state, word = splitmix64(state)
        expected.append(word)
    words = row_words(seed, name, np.arange(num_rows), num_words)
    assert words.ravel().tolist() == expected
    np.testing.assert_array_equal(row_words(seed, name, np.array([num_rows - 1]), num_words), words[-1:])


def test_words_are_even_and_differ() -> None:
    words = row_words(5, "name", np.arange(1000), 3)
    assert len(np.unique(words)) == 3000
    assert abs(np.unpackbits(words.view(np.uint8)).mean() - 0.5) < 0.01
    assert not np.isin(row_words(5, "other", np.arange(1000), 3), words).any()
