"""Solve puzzles, with more thought where it helps: depth, several starts, and restarts until a verifier agrees.

A batch is B slots. A slot thinks about one start of one puzzle until that start halts by itself, then takes the next
one that is waiting, so easy puzzles do not wait for hard ones. The host decides between segments which slots take what;
it reads B tokens rows and some numbers a segment, little beside the segment itself, and shapes stay the same until
nothing waits any more.

The answers do not depend on B or on other puzzles: a start's first states and symmetry follow from its
number, and the first of several starts to halt is the one with the fewest segments of its own, whenever it began.

Shapes: N puzzles, K starts, B slots, C cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.config.keywords import takes
from hrm_engine.config.solving import EffortConfig
from hrm_engine.data.puzzles.symmetries import Numbers, Views
from hrm_engine.errors import ConfigError
from hrm_engine.inference.puzzles.starts import Attempts, board_views, chosen_starts
from hrm_engine.inference.puzzles.thinking import Boards, FirstStates, Thinker, check_boards, check_identifiers
from hrm_engine.models.core import Carry
from hrm_engine.models.flops import flops_per_segment

# Positions in a batch: enough to keep the device busy, few enough for the attention of 900-cell boards.
CPU_POSITIONS, OTHER_POSITIONS = 1 << 14, 1 << 17


@dataclass(frozen=True, eq=False)
class Solutions:
    """Answers, and their cost."""

    answers: npt.NDArray[np.int64]
    """(N, C) tokens."""
    start: npt.NDArray[np.int64]
    """(N,) number of the start that gave the answer."""
    depth: npt.NDArray[np.int64]
    """(N,) segments of that start."""
    segments: npt.NDArray[np.int64]
    """(N,) segments of all starts of a puzzle together, restarts aside."""
    halted: npt.NDArray[np.bool_]
    """(N,) whether the start that answered stopped by itself."""
    confidence: npt.NDArray[np.float64]
    """(N,) its halting probability at the end."""
    is_valid: npt.NDArray[np.bool_] | None
    """(N,) whether the answers follow the rules; None for boards without rules (ARC, other)."""
    solved_by_verifier: npt.NDArray[np.bool_]
    """(N,) whether the answer came from a restart, after the verifier had refused the one before: not the model's
    own achievement, to be reported apart."""
    restarts: npt.NDArray[np.int64]
    """(N,) restarts made."""
    restart_segments: npt.NDArray[np.int64]
    """(N,) segments of the restarts."""
    wall_segments: int
    """Segments of whole batches, one after another."""
    flops: float
    """Matrix products of all segments, restarts included, in FLOPs (:mod:`hrm_engine.models.flops`)."""


@takes(EffortConfig)
@torch.no_grad()
def solve(
    bundle: PuzzleBundle,
    inputs: Boards,
    *,
    identifiers: Boards | None = None,
    halting: bool = True,
    batch_size: int | None = None,
    settings: EffortConfig,
) -> Solutions:
    """Solve puzzles (N, C).

    Of ARC tasks the symmetries are their augmentations. With ``first_to_halt`` the other starts are dropped once they
    have thought as long as the one that has halted; otherwise each goes on until it halts by itself. The first of many
    starts to halt is often one that is wrongly sure: a high ``halt_confidence`` (0.9) costs some segments and keeps
    those out.

    Args:
        identifiers: puzzle identifiers (N,); by default the blank one, which ARC solvers do not have.
        halting: without it every start thinks all ``segments``.
        batch_size: B; by default what suits board and device.

    Raises:
        DataError: boards that the solver cannot take.
        ConfigError: a number out of range; starts that this kind of board does not have; ``until_valid`` for boards
            without rules; ``first_to_halt`` without halting, where there are several starts.
    """
    boards = check_boards(bundle, np.asarray(inputs))
    numbers = check_identifiers(bundle, identifiers, len(boards))
    starts, choose, until_valid = settings.starts, settings.choose, settings.until_valid
    _check_effort(bundle, settings, halting, batch_size)
    pool = _Pool(
        bundle,
        board_views(bundle, numbers, settings.starts_from, starts + until_valid),
        num_segments=settings.segments or bundle.config.halt_max_steps,
        halting=halting,
        halt_confidence=settings.halt_confidence,
        drawn=settings.starts_from == "noise",
        batch_size=batch_size,
    )
    attempts = pool.run(boards, numbers, range(starts), race=choose == "first_to_halt" and halting)
    start = chosen_starts(attempts, choose)
    rows = np.arange(len(boards))
    answers = attempts.answers[rows, start]
    depth, halted = attempts.segments[rows, start], attempts.halted[rows, start]
    confidence = attempts.confidence[rows, start]
    board = bundle.card.board
    is_valid = board.are_valid(boards, answers) if board.has_rules else None
    solved = np.zeros(len(boards), dtype=bool)
    restarts, restart_segments = np.zeros((2, len(boards)), dtype=np.int64)
    for number in range(starts, starts + until_valid):
        assert is_valid is not None
        open_rows = np.flatnonzero(~is_valid)
        if not open_rows.size:
            break
        again = pool.run(boards[open_rows], numbers[open_rows], [number], race=False)
        restarts[open_rows] += 1
        restart_segments[open_rows] += again.segments[:, 0]
        right = board.are_valid(boards[open_rows], again.answers[:, 0])
        mended = open_rows[right]
        answers[mended], start[mended], solved[mended], is_valid[mended] = again.answers[right, 0], number, True, True
        depth[mended], halted[mended] = again.segments[right, 0], again.halted[right, 0]
        confidence[mended] = again.confidence[right, 0]
    spent = attempts.segments.sum(1)
    return Solutions(
        answers,
        start,
        depth,
        spent,
        halted,
        confidence,
        is_valid,
        solved,
        restarts,
        restart_segments,
        pool.wall_segments,
        float(flops_per_segment(bundle.config)) * float(spent.sum() + restart_segments.sum()),
    )


@dataclass(eq=False)
class _Slots:
    """B slots: job p * K + k is start k of puzzle p, -1 none."""

    job: Numbers
    tokens: Boards
    identifiers: Numbers
    x: torch.Tensor | None = None
    carry: Carry | None = None

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        return self.job >= 0


class _Pool:
    """Thinks about many starts of many puzzles in few slots."""

    def __init__(
        self,
        bundle: PuzzleBundle,
        views: Views,
        *,
        num_segments: int,
        halting: bool,
        halt_confidence: float,
        drawn: bool,
        batch_size: int | None,
    ) -> None:
        self.thinker, self.views = Thinker(bundle.model), views
        self.num_segments, self.halting, self.drawn = num_segments, halting, drawn
        self.halt_confidence = halt_confidence
        positions = CPU_POSITIONS if self.thinker.device.type == "cpu" else OTHER_POSITIONS
        self.batch_size = batch_size or max(1, positions // (bundle.config.max_seq_len * bundle.config.num_latents))
        self.wall_segments = 0

    def run(self, boards: Boards, identifiers: Numbers, numbers: Sequence[int], *, race: bool) -> Attempts:
        """Think about every start (``numbers``) of every puzzle until it ends.

        Args:
            race: a start ends also when it has thought as long as another start of its puzzle that has halted.
        """
        count, num_starts = len(boards), len(numbers)
        start_numbers = np.asarray(numbers, dtype=np.int64)
        first_states = FirstStates(self.thinker.core, numbers, drawn=self.drawn)
        attempts = Attempts.none(count, num_starts, boards.shape[1])
        limit = np.full(count, self.num_segments)  # of each puzzle; a race shortens it
        num_jobs, taken = count * num_starts, 0
        size = min(self.batch_size, num_jobs)
        slots = _Slots(
            np.full(size, -1), np.zeros((size, boards.shape[1]), boards.dtype), np.zeros(size, dtype=np.int64)
        )
        while True:
            free = np.flatnonzero(~slots.live)[: num_jobs - taken]
            if free.size:
                slots.job[free] = np.arange(taken, taken + free.size)
                taken += free.size
                puzzle, start = np.divmod(slots.job[free], num_starts)
                slots.tokens[free], slots.identifiers[free] = self.views.look(
                    boards[puzzle], identifiers[puzzle], start_numbers[start]
                )
                self._begin(slots, free, first_states, num_starts)
            live = slots.live
            if not live.any():
                return attempts
            if taken == num_jobs and 2 * live.sum() <= len(live):
                slots = self._shrunk(slots)
                live = slots.live
            assert slots.carry is not None
            assert slots.x is not None
            slots.carry, thought = self.thinker.think(slots.carry, slots.x)
            self.wall_segments += 1
            puzzle, start = np.divmod(slots.job.clip(0), num_starts)
            attempts.segments[puzzle[live], start[live]] += 1
            spent = attempts.segments[puzzle, start]
            confidence = torch.sigmoid(thought.q[:, 0].double()).cpu().numpy()
            sure = thought.wants_to_halt.cpu().numpy() & (confidence >= self.halt_confidence)
            halted = live & sure & self.halting
            if race:
                np.minimum.at(limit, puzzle[halted], spent[halted])
            ended = live & (halted | (spent >= limit[puzzle]))
            if ended.any():
                at = (puzzle[ended], start[ended])
                predictions = thought.logits.argmax(-1).cpu().numpy()[ended]
                attempts.answers[at] = self.views.undo(predictions, identifiers[at[0]], start_numbers[at[1]])
                attempts.halted[at] = halted[ended]
                attempts.confidence[at] = confidence[ended]
                attempts.residual[at] = thought.residual.double().cpu().numpy()[ended]
                slots.job[ended] = -1

    def _begin(self, slots: _Slots, fresh: Numbers, first_states: FirstStates, num_starts: int) -> None:
        """Input and first states for the fresh slots; the others keep theirs."""
        slots.x = self.thinker.embed(self._on_device(slots.tokens), self._on_device(slots.identifiers))
        first = first_states(slots.x, self._on_device(slots.job.clip(0) % num_starts))
        if slots.carry is None:
            slots.carry = first
            return
        is_fresh = np.zeros(len(slots.job), dtype=bool)
        is_fresh[fresh] = True
        mask = self._on_device(is_fresh.repeat(self.thinker.latents)).view(-1, 1, 1)
        slots.carry = Carry(
            torch.where(mask, first.z_h, slots.carry.z_h), torch.where(mask, first.z_l, slots.carry.z_l)
        )

    def _shrunk(self, slots: _Slots) -> _Slots:
        """The live slots alone: at the end nothing is waiting for the others."""
        assert slots.carry is not None
        assert slots.x is not None
        kept = np.flatnonzero(slots.live)
        latents = self.thinker.latents
        rows = self._on_device((kept[:, None] * latents + np.arange(latents)).reshape(-1))
        carry = Carry(slots.carry.z_h[rows], slots.carry.z_l[rows])
        return _Slots(slots.job[kept], slots.tokens[kept], slots.identifiers[kept], slots.x[rows], carry)

    def _on_device(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.thinker.device)


def _check_effort(bundle: PuzzleBundle, settings: EffortConfig, halting: bool, batch_size: int | None) -> None:
    if settings.choose == "first_to_halt" and not halting and settings.starts > 1:
        raise ConfigError("first_to_halt chooses by halting: without it use majority, lowest_residual or q_weighted")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size {batch_size}: at least 1")
    if settings.until_valid and not bundle.card.board.has_rules:
        raise ConfigError(f"--until-valid needs rules to check an answer by, and {bundle.card.puzzle} boards have none")
