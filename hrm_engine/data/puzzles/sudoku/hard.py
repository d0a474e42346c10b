"""The frozen hard set: a stand-in for the published Sudoku-Extreme data, for where nobody has supplied its CSV.

It is made of the puzzles that need the most guesses among a million generated ones without a spare given. Published
hard puzzles come from collections made over years and are harder; measurements on it are not comparable with
results on them, which is why the set calls itself a proxy everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.puzzles.sudoku.generate import candidate_blocks
from hrm_engine.data.random import permutation
from hrm_engine.errors import DataError

NAME = "sudoku-hard-proxy"


@dataclass(frozen=True)
class HardSet:
    """Recipe of a hard set, and the hash that the result must have."""

    size: int
    seed: int
    num_candidates: int
    num_train: int
    num_test: int
    sha256: str


HARD_PROXY = HardSet(
    size=9,
    seed=2025,
    num_candidates=1_000_000,
    num_train=1_000,
    num_test=10_000,
    sha256="2d87a5b95b9f3a751606ef16115176d6c93095474dadd243e3678ee46468b63c",
)


def make_hard_set(
    recipe: HardSet = HARD_PROXY, *, workers: int = 1, progress: Progress | None = None
) -> tuple[Puzzles, Puzzles]:
    """The train and the test puzzles of a hard set, both a fair draw from the hardest; ties go to earlier candidates.

    ``progress`` gets (candidates made, all candidates) after each block.

    Raises:
        DataError: the candidates do not suffice, or the result does not have the recorded hash.
    """
    num_puzzles = recipe.num_train + recipe.num_test
    kept: list[Puzzles] = []
    threshold = num_made = 0
    for block in candidate_blocks(
        recipe.size, blanks=None, seed=recipe.seed, workers=workers, num_candidates=recipe.num_candidates
    ):
        num_made += len(block)
        kept.append(block[np.flatnonzero(block.ratings >= threshold)])
        if sum(map(len, kept)) > 2 * num_puzzles:
            kept = [_hardest(kept, num_puzzles)]
            # What equals the last one is not needed: earlier candidates go first.
            threshold = int(kept[0].ratings[-1]) + 1 if len(kept[0]) == num_puzzles else 0
        if progress is not None:
            progress(num_made, recipe.num_candidates)
    hardest = _hardest(kept, num_puzzles)
    if len(hardest) < num_puzzles:
        raise DataError(f"{recipe.num_candidates:,} candidates do not give {num_puzzles:,} different puzzles")
    order = permutation(recipe.seed, NAME, 0, num_puzzles)
    train, test = hardest[np.sort(order[: recipe.num_train])], hardest[np.sort(order[recipe.num_train :])]
    sha256 = puzzles_hash(train, test)
    if sha256 != recipe.sha256:
        raise DataError(
            f"the {NAME} set made here has the hash {sha256}, and {recipe.sha256} is recorded: this installation does "
            "not compute what was frozen; report it with the versions of 'lab doctor', and do not compare results"
        )
    return train, test


def puzzles_hash(*parts: Puzzles) -> str:
    """SHA-256 over the tokens and ratings of sets of puzzles, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        for array in (part.inputs, part.labels, part.ratings.astype("<i8")):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _hardest(parts: list[Puzzles], count: int) -> Puzzles:
    """The ``count`` hardest different puzzles, hardest first, the earlier ones first among equals."""
    puzzles = Puzzles.joined(parts)
    _, first_seen = np.unique(puzzles.inputs, axis=0, return_index=True)
    different = puzzles[np.sort(first_seen)]
    return different[np.argsort(-different.ratings, kind="stable")[:count]]
