"""Random numbers as a pure function of counters, so that nothing about them has to be saved or replayed.

``stream(seed, name, counter)`` gives the same numbers in every process, after every resume and for every number of
workers. ``name`` separates purposes ("order", "sample-segments", ...), ``counter`` is a row, step or epoch number.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


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
