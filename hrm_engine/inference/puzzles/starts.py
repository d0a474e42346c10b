"""Several starts of one puzzle: the view of each, and the choice of the one that answers.

Shapes: N boards, K starts each, C cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.config.solving import Choose, StartsFrom
from hrm_engine.data.puzzles.symmetries import Numbers, Views
from hrm_engine.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Attempts:
    """The outcome of every start."""

    answers: npt.NDArray[np.int64]
    """(N, K, C) tokens, symmetries undone."""
    segments: npt.NDArray[np.int64]
    """(N, K) segments spent."""
    halted: npt.NDArray[np.bool_]
    """(N, K) whether it stopped by itself; else it was dropped, or came to the last segment."""
    confidence: npt.NDArray[np.float64]
    """(N, K) halting probability at its end."""
    residual: npt.NDArray[np.float64]
    """(N, K) norm of the last change of its states, relative to theirs."""

    @classmethod
    def none(cls, count: int, starts: int, cells: int) -> Attempts:
        """Attempts that have not begun."""
        shape = (count, starts)
        integers, numbers = np.zeros((*shape, cells), dtype=np.int64), np.zeros(shape)
        return cls(integers, integers[..., 0].copy(), numbers.astype(bool), numbers, np.full(shape, np.inf))


def board_views(bundle: PuzzleBundle, identifiers: Numbers, starts_from: StartsFrom, num_starts: int) -> Views:
    """Views of ``num_starts`` starts of boards with these identifiers (N,); the first is the board as it is.

    Which view a later start has depends on its number alone.

    Raises:
        ConfigError: symmetries of a board kind that has none, or more views than there are.
    """
    if num_starts == 1 or starts_from == "noise":
        return Views()
    card = bundle.card
    if card.board.has_tasks and card.identifiers is not None:
        return card.board.task_views(card.identifiers, identifiers, num_starts)
    views = card.board.views(card.height, card.width, num_starts, card.vocab_size)
    if views is None:
        raise ConfigError(
            f"starts from symmetries are known for Sudoku, square mazes and ARC tasks with names, not for the "
            f"{card.puzzle} boards of {bundle.path.name}: use --starts-from noise"
        )
    return views


def chosen_starts(attempts: Attempts, choose: Choose) -> npt.NDArray[np.int64]:
    """The start (N,) that answers each board.

    ``first_to_halt``: the one that stopped by itself after the fewest segments; where none did, the surest.
    ``majority``: one of the most frequent whole board. ``q_weighted``: the same, each vote weighing its halting
    probability. ``lowest_residual``: the one whose states changed least in its last segment. Ties go to the surest,
    then to the lower number.
    """
    least = np.broadcast_to(np.arange(attempts.segments.shape[1]), attempts.segments.shape)
    keys: tuple[npt.NDArray[np.float64], ...]
    surest = -attempts.confidence
    if choose == "first_to_halt":
        keys = (surest, np.where(attempts.halted, attempts.segments, np.inf))
    elif choose == "lowest_residual":
        keys = (surest, attempts.residual)
    else:
        votes, weights = _votes(attempts)
        keys = (surest, -weights) if choose == "q_weighted" else (surest, -weights, -votes)
    # the last key decides first
    return np.lexsort((least, *keys), axis=-1)[:, 0].astype(np.int64)


def _votes(attempts: Attempts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For each start (N, K): how many starts came to the same board, and their halting probabilities added up."""
    count, starts, cells = attempts.answers.shape
    _, boards = np.unique(attempts.answers.reshape(count * starts, cells), axis=0, return_inverse=True)
    boards = boards.reshape(count, starts)
    same = boards[:, :, None] == boards[:, None, :]
    return same.sum(2).astype(np.float64), (same * attempts.confidence[:, None, :]).sum(2)
