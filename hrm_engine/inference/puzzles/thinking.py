"""One segment after another about a batch of boards: shared by solving, tracing and evaluation.

Shapes: B boards, K latents each, S positions, C cells, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_engine.bundles.bundle import PuzzleBundle, checked
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.models.core import Carry, RecurrentCore
from hrm_engine.models.slots import embed_rows, repeat_latents, wants_to_halt

Boards = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Thought:
    """The outcome of a segment. Of several latents it is that of the surest one."""

    logits: Tensor
    """(B, C, V)."""
    q: Tensor
    """(B, 1 or 2) values of halting and, with Q-learning, of going on."""
    wants_to_halt: Tensor
    """(B,) bool."""
    residual: Tensor
    """(B,) norm of the change of both states in this segment, relative to their norm; small where it has settled."""
    places: Tensor
    """(B,) which rows of the carry the surest latents are."""


class Thinker:
    """A solver that thinks one segment at a time about boards given as tokens."""

    def __init__(self, core: RecurrentCore) -> None:
        self.core = core
        self.device = core.lm_head.weight.device
        self.latents = core.config.num_latents
        self.context = core.context(torch.arange(core.config.max_seq_len, device=self.device)[None])

    def embed(self, boards: Tensor, identifiers: Tensor) -> Tensor:
        """Input x (B * K, S, D) of boards (B, C) and their puzzle identifiers (B,)."""
        puzzle = None
        if self.core.puzzle_embedding is not None:
            puzzle = self.core.puzzle_embedding(identifiers.to(self.device).long())
        return repeat_latents(embed_rows(self.core, boards.to(self.device).long(), puzzle), self.latents)

    def think(self, carry: Carry, x: Tensor) -> tuple[Carry, Thought]:
        """One segment: the new carry, and its outcome."""
        new = self.core.segment(carry, x, self.context)
        q = self.core.q_values(new.z_h)
        boards = len(x) // self.latents
        places = q[:, 0].view(boards, self.latents).argmax(1) + torch.arange(boards, device=x.device) * self.latents
        change, size = torch.zeros(boards, device=x.device), torch.zeros(boards, device=x.device)
        for before, after in ((carry.z_h, new.z_h), (carry.z_l, new.z_l)):
            one, other = after[places].float(), before[places].float()
            change += (one - other).square().sum((1, 2))
            size += one.square().sum((1, 2))
        residual = (change / size.clamp_min(1e-30)).sqrt()
        q = q[places]
        return new, Thought(self.core.logits(new.z_h[places]), q, wants_to_halt(q), residual, places)


class FirstStates:
    """The states that each start begins with.

    Start 0 is the model's own beginning. The others, where ``drawn``, begin with normal noise of standard deviation 1
    (2605.21488), and so does start 0 of a model trained with noise. It depends on the number of the start alone, not on
    the device, nor on which boards are solved together.
    """

    def __init__(self, core: RecurrentCore, numbers: Sequence[int], *, drawn: bool) -> None:
        self._core, self._numbers = core, list(numbers)
        self._z_h = self._table("z_h", core.config.initial_z_h == "noise", drawn)
        self._z_l = self._table("z_l", core.config.initial_z_l == "noise", drawn)

    def __call__(self, x: Tensor, places: Tensor) -> Carry:
        """The first carry of x (B * K, S, D), whose boards begin as the starts at ``places`` (B,) of ``numbers``."""
        own = self._core.initial_carry(x)
        z_h, z_l = own.z_h, own.z_l
        if self._z_h is not None:
            z_h = self._z_h[places].flatten(0, 1).to(x.dtype)
        if self._z_l is not None:
            z_l = self._z_l[places].flatten(0, 1).to(x.dtype)
        if 0 in self._numbers and (self._z_h is not None or self._z_l is not None):
            config = self._core.config
            is_first = repeat_latents(places == self._numbers.index(0), config.num_latents).view(-1, 1, 1)
            z_h = z_h if config.initial_z_h == "noise" else torch.where(is_first, own.z_h, z_h)
            z_l = z_l if config.initial_z_l == "noise" else torch.where(is_first, own.z_l, z_l)
        return Carry(z_h, z_l)

    def _table(self, name: str, is_noise: bool, drawn: bool) -> Tensor | None:
        """States (starts, K, S, D) in fp32; None where every start begins as the model itself does."""
        if not (is_noise or drawn):
            return None
        config = self._core.config
        shape = (config.num_latents, config.max_seq_len, config.hidden_size)
        rows = []
        for number in self._numbers:
            generator = torch.Generator().manual_seed(2 * number + (name == "z_l"))
            rows.append(torch.randn(shape, generator=generator))
        return torch.stack(rows).to(self._core.lm_head.weight.device)


def check_segments(bundle: PuzzleBundle, segments: int | None) -> int:
    """Segments to think: by default as many as the model was trained for. Raises ConfigError beyond 1 to 64."""
    if segments is None:
        return bundle.config.halt_max_steps
    if not 1 <= segments <= MAX_SEGMENTS:
        raise ConfigError(f"--segments {segments}: 1 to {MAX_SEGMENTS} are possible")
    return segments


def check_boards(bundle: PuzzleBundle, boards: Boards) -> Boards:
    """Boards (N, C) that this solver can take. Raises DataError for another number of cells or an unknown token."""
    card = checked(bundle, PuzzleBundle).card
    num_cells = card.height * card.width
    if boards.ndim != 2 or boards.shape[1] != num_cells:
        raise DataError(
            f"{bundle.path.name} solves boards of {card.height} x {card.width}, {num_cells} cells; given were "
            f"{boards.shape[-1] if boards.ndim else 0}"
        )
    if boards.size and not 0 <= boards.min() <= boards.max() < card.vocab_size:
        raise DataError(
            f"{bundle.path.name} knows the tokens 0 to {card.vocab_size - 1}; given were {boards.min()} to "
            f"{boards.max()}"
        )
    return boards


def check_identifiers(bundle: PuzzleBundle, identifiers: Boards | None, count: int) -> npt.NDArray[np.int64]:
    """Puzzle identifiers (N,), by default the blank one.

    Raises:
        ConfigError: none for an ARC solver, which knows a task by nothing else, or one that the model has not.
    """
    card, config = bundle.card, bundle.config
    if identifiers is None:
        if card.board.has_tasks:
            raise ConfigError(
                f"{bundle.path.name} tells ARC tasks apart by their identifier: say which of its tasks this is"
            )
        return np.full(count, card.blank_identifier_id, dtype=np.int64)
    numbers = np.asarray(identifiers, dtype=np.int64)
    if numbers.shape != (count,):
        raise ConfigError(f"{count} boards and identifiers of shape {numbers.shape}: each board needs one")
    if config.prefix_tokens and numbers.size and not 0 <= numbers.min() <= numbers.max() < config.num_identifiers:
        raise ConfigError(
            f"{bundle.path.name} knows the puzzle identifiers 0 to {config.num_identifiers - 1}; given were "
            f"{numbers.min()} to {numbers.max()}"
        )
    return numbers
