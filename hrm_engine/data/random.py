"""Random numbers as a pure function of counters, so that nothing about them has to be saved or replayed.

``stream(seed, name, counter)`` gives the same numbers in every process, after every resume and for every number of
workers. ``name`` separates purposes ("order", "sample-segments", ...), ``counter`` is a row, step or epoch number.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

_WORD = (1 << 64) - 1


def _key(seed: int, name: str, counter: int) -> int:
    # JSON keeps the three parts apart: (1, "a2", 3) and (12, "a", 3) must not share a key.
    words = json.dumps([int(seed), name, int(counter)]).encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:16], "little")


def stream(seed: int, name: str, counter: int) -> np.random.Generator:
    """A numpy generator (Philox, 128-bit key) that depends on nothing but its three arguments."""
    return np.random.Generator(np.random.Philox(key=_key(seed, name, counter)))


def permutation(seed: int, name: str, counter: int, size: int) -> np.ndarray:
    """A permutation of ``range(size)`` as int64, keyed by the three arguments.

    Made by sorting raw Philox bits: numpy promises those bits for ever, but not what ``Generator.permutation`` makes
    of them, and a resumed run must visit the same rows under the next numpy as well.
    """
    bits = np.random.Philox(key=_key(seed, name, counter)).random_raw(size)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)


def row_words(seed: int, name: str, rows: npt.NDArray[Any], num_words: int) -> npt.NDArray[np.uint64]:
    """``num_words`` random 64-bit words for each of the numbered ``rows``: uint64 (n, num_words).

    For many small draws at once, where a generator for each row would cost more than what is done with the numbers.
    Word j of row r is SplitMix64 (Steele, Lea and Flood 2014) keyed by seed and name, at place r * num_words + j.
    """
    first = np.asarray(rows).astype(np.int64)[:, None] * num_words
    place: npt.NDArray[np.uint64] = (first + np.arange(1, num_words + 1)).astype(np.uint64)
    word: npt.NDArray[np.uint64] = np.uint64(_key(seed, name, 0) & _WORD) + place * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return word
