"""Augmentations of ARC tasks: a symmetry of the square and a permutation of the colours 1 to 9, the same for every grid
of the task, and the exact way back.

Identifiers carry both as in the reference implementation: ``00d62c1b_t3_0571836294`` is task 00d62c1b, symmetry 3, then
in place i the colour that colour i became. Colour 0 is the background and stays. A bare task name is the task itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.arc.grids import NUM_COLOURS, Grid
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral, undo_dihedral
from hrm_engine.data.random import stream

# Draws for each augmentation, before a task of few distinct ones is left with fewer.
_TRIES = 5
# "|||" stands between the parts in datasets of the TRM implementation.
_IDENTIFIER = re.compile(r"(?P<task>.+)(?P<gap>_|\|\|\|)t(?P<dihedral>[0-7])(?P=gap)(?P<colours>0[1-9]{9})", re.DOTALL)


@dataclass(frozen=True)
class Augmentation:
    """A symmetry number (``dihedral.py``) and, as ten digits, what each colour becomes."""

    dihedral: int = 0
    colours: str = "0123456789"

    @cached_property
    def table(self) -> npt.NDArray[np.uint8]:
        """New colour of each colour, uint8 (10,)."""
        return np.frombuffer(self.colours.encode(), dtype=np.uint8) - np.uint8(ord("0"))

    @cached_property
    def inverse_table(self) -> npt.NDArray[np.uint8]:
        """Old colour of each colour, uint8 (10,)."""
        return np.argsort(self.table).astype(np.uint8)

    def apply(self, grid: Grid) -> Grid:
        """The augmented grid, uint8: (h, w), or (w, h) after a quarter turn or a reflection at a diagonal."""
        return dihedral(self.table[grid], self.dihedral)

    def undo(self, grid: Grid) -> Grid:
        """The exact inverse of ``apply``."""
        return undo_dihedral(self.inverse_table[grid], self.dihedral)

    def identifier(self, task: str) -> str:
        """The name of ``task`` under this augmentation."""
        return task if self == IDENTITY else f"{task}_t{self.dihedral}_{self.colours}"


IDENTITY = Augmentation()


def parse_identifier(text: str) -> tuple[str, Augmentation]:
    """The task name and the augmentation that an identifier carries; the identity for a bare name."""
    match = _IDENTIFIER.fullmatch(text)
    if match is None or len(set(match["colours"])) != NUM_COLOURS:
        return text, IDENTITY
    return match["task"], Augmentation(int(match["dihedral"]), match["colours"])


def draw_augmentations(
    pairs: Sequence[tuple[Grid, Grid | None]], *, task: str, num_aug: int, seed: int
) -> list[Augmentation]:
    """The identity and up to ``num_aug`` augmentations under which the pairs differ from all others.

    They depend on the task's name and grids and on the seed alone. Fewer come for tasks whose grids are so symmetric
    or so poor in colours that there are no more (after five draws for each).
    """
    drawn = [IDENTITY]
    seen = {_digest(pairs, [IDENTITY])[0]}
    bits = stream(seed, f"arc/augmentations/{task}", 0).bit_generator
    for _ in range(_TRIES if num_aug else 0):
        raw = np.asarray(bits.random_raw(num_aug * NUM_COLOURS), dtype=np.uint64).reshape(num_aug, NUM_COLOURS)
        # The high bits of one number for the symmetry; the order of the nine others is the permutation of the colours.
        symmetries = (raw[:, 0] >> np.uint64(61)).astype(np.int64)
        colours = np.argsort(raw[:, 1:], axis=1, kind="stable") + 1
        candidates = [
            Augmentation(int(symmetry), "0" + "".join(map(str, order)))
            for symmetry, order in zip(symmetries, colours.tolist(), strict=True)
        ]
        for candidate, key in zip(candidates, _digest(pairs, candidates), strict=True):
            if key not in seen:
                seen.add(key)
                drawn.append(candidate)
                if len(drawn) > num_aug:
                    return drawn
    return drawn


def augmented(grid: Grid, augmentations: Sequence[Augmentation]) -> list[tuple[npt.NDArray[np.int64], Grid]]:
    """A grid under many augmentations at once, by their symmetry: (positions (n,), grids (n, h, w)) for each in use."""
    tables = np.stack([augmentation.table for augmentation in augmentations])
    symmetries = np.array([augmentation.dihedral for augmentation in augmentations])
    groups = []
    for number in range(NUM_DIHEDRAL):
        positions = np.flatnonzero(symmetries == number)
        if positions.size:
            groups.append((positions, tables[positions][:, dihedral(grid, number)]))
    return groups


def _digest(pairs: Sequence[tuple[Grid, Grid | None]], augmentations: Sequence[Augmentation]) -> list[bytes]:
    """One key for each augmentation; equal if and only if it makes the same pairs, in whatever order."""
    keys: list[list[bytes]] = [[] for _ in augmentations]
    for pair in pairs:
        parts: list[list[bytes]] = [[] for _ in augmentations]
        for grid in pair:
            if grid is not None:
                for positions, grids in augmented(grid, augmentations):
                    shape = bytes(grids.shape[1:])
                    for position, content in zip(positions.tolist(), grids, strict=True):
                        parts[position] += (shape, content.tobytes())
        for position, part in enumerate(parts):
            keys[position].append(hashlib.blake2b(b"".join(part), digest_size=16).digest())
    return [hashlib.blake2b(b"".join(sorted(key)), digest_size=16).digest() for key in keys]
