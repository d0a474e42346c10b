"""A kind of board: what the tokens of its cells mean, how they are written and coloured, and what its rules can say.

Nothing here draws: a caller gets lines of (text, cell number) pieces and styles them as its medium can (terminal,
notebook, page). Boards are rows of tokens, shape (S,), S = height * width, in reading order; n boards are (n, S).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.symmetries import Numbers, SymmetricViews, Symmetries, Views
from hrm_engine.errors import ConfigError, DataError

Tokens = npt.NDArray[np.integer[Any]]
Piece = tuple[str, int | None]
Region = tuple[slice, slice]

PAD = 0


@dataclass(frozen=True, eq=False)
class Puzzle:
    """One board to be solved: typed, drawn, or a row of a dataset."""

    inputs: npt.NDArray[np.int64]
    """(S,) tokens."""
    solution: npt.NDArray[np.int64] | None = None
    """(S,) tokens; None if it is not known, or if there are several."""
    rating: float | None = None
    """Difficulty. Sudoku: guesses of a search; maze: steps from start to goal."""
    warning: str = ""
    identifier: int | None = None
    """Puzzle identifier; None for the blank one."""
    source: str = "typed"
    """Its origin, in words."""
    counts: npt.NDArray[np.bool_] | None = None
    """(S,) cells on which an answer is judged; None is all of them."""

    def wrong(self, answer: Tokens) -> npt.NDArray[np.bool_] | None:
        """(S,) cells that differ from the solution; None if that is not known."""
        if self.solution is None:
            return None
        differs: npt.NDArray[np.bool_] = self.solution != answer
        return differs if self.counts is None else differs & self.counts

    def is_right(self, board: Board, answer: Tokens) -> bool | None:
        """Whether an answer (S,) is the solution, as its board kind compares them; None if that is not known."""
        return None if self.solution is None else board.is_right(answer, self.solution)


class Board:
    """One kind of board. The defaults are those of numbers without rules; each other kind has its own module."""

    kind = "other"  # its name in files
    title = "board"  # its name in sentences
    flag = ""  # of `lab solve`, for a board given by the user
    characters = ""  # text form: position = token; "?" and "|" (padding, end of a grid) cannot be typed
    also_typed: Mapping[str, int] = MappingProxyType({})  # further characters that can, and their tokens
    hint = ""  # how to write such a board; empty if none can be typed
    cell_names: tuple[str, ...] = ()  # by token, of a board that is painted cell by cell
    blank: int | None = None  # token of a cell to be filled, which is drawn empty
    colours: Mapping[int, str] = MappingProxyType({})  # by token, where colours carry the meaning
    shaded: int | None = None  # token that is drawn as a grey ground
    has_cell_lines = True
    has_rules = False  # rules tell whether an answer is valid
    has_symmetries = False  # a square board has symmetries that keep its meaning
    has_tasks = False  # boards belong to named tasks, which a solver knows by their puzzle identifiers alone
    rating_unit = ""

    def fits(self, vocab_size: int, num_cells: int) -> bool:
        """Whether a dataset of this vocabulary and board size, which does not name its kind, is of this one."""
        return True

    def boxes(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width of the boxes that frames are drawn around; None for a board without."""
        return None

    def cell_text(self, token: int) -> str:
        """One token as text: its character, or its number if it has none."""
        return self.characters[token] if 0 <= token < len(self.characters) else str(token)

    def to_text(self, tokens: Tokens) -> str:
        """A row of tokens as one string: a character for each cell, or numbers with spaces between."""
        return ("" if self.characters else " ").join(self.cell_text(int(token)) for token in tokens)

    def to_tokens(self, text: str) -> npt.NDArray[np.uint8]:
        """Tokens, uint8 (S,), of a string in which every character is one cell.

        Raises:
            DataError: the kind has no characters, or one does not belong to it (its position is named).
        """
        if not self.characters:
            raise DataError(f"boards of kind {self.kind!r} have no text form: give their tokens")
        meaning = {character: token for token, character in enumerate(self.characters) if character not in "?|"}
        meaning.update(self.also_typed)
        for position, character in enumerate(text, start=1):
            if character not in meaning:
                allowed = "".join(sorted(meaning))
                raise DataError(
                    f"character {position} is {character!r}: a {self.kind} is written with the characters {allowed!r}"
                )
        return np.array([meaning[character] for character in text], dtype=np.uint8)

    def read(self, text: str, height: int, width: int) -> Puzzle:
        """A typed board of this size, with its solution if there is exactly one.

        Raises:
            DataError: not a board of that size, against the rules, or without a solution.
        """
        raise DataError(f"boards of kind {self.kind!r} cannot be typed: choose one of the test split")

    def is_valid(self, inputs: Tokens, prediction: Tokens) -> bool | None:
        """Whether ``prediction`` (S,) solves ``inputs`` (S,) by the rules; None for boards without rules."""
        if not self.has_rules:
            return None
        return bool(self.are_valid(np.asarray(inputs)[None], np.asarray(prediction)[None])[0])

    def are_valid(self, inputs: Tokens, predictions: Tokens) -> npt.NDArray[np.bool_]:
        """:meth:`is_valid` of many rows, (n, S) and (n, S) to bool (n,). Raises ValueError for a kind without rules."""
        if inputs.shape != predictions.shape or inputs.ndim != 2:
            raise ValueError(
                f"inputs {inputs.shape} and predictions {predictions.shape} must both have the shape (n, S)"
            )
        return self._are_valid(inputs, predictions)

    def _are_valid(self, inputs: Tokens, predictions: Tokens) -> npt.NDArray[np.bool_]:
        raise ValueError(f"boards of kind {self.kind!r} have no rules that could be checked")

    def is_right(self, answer: Tokens, expected: Tokens) -> bool:
        """Whether an answer (S,) is the expected one (S,)."""
        return np.array_equal(answer, expected)

    def lines(self, tokens: Tokens, height: int, width: int) -> list[list[Piece]]:
        """A board as lines of pieces (text, cell number), with frames around boxes (cell number None).

        Joined, the texts of a line are the plain form. A coloured cell is two characters wide, so that it looks
        square; its padding is empty.
        """
        texts = [self.cell_text(int(token)) for token in tokens]
        if box := self.boxes(height, width):
            return _framed(texts, height, *box)
        if self.colours:
            texts = [{"#": "##", "?": "  "}.get(text, f"{text} ") for text in texts]
        else:
            wide = max(len(text) for text in texts)
            texts = [f"{text:>{wide}} " for text in texts]
        return [[(texts[cell], cell) for cell in range(row * width, (row + 1) * width)] for row in range(height)]

    def check_symmetries(self, height: int, width: int) -> None:
        """Raise ConfigError where fresh symmetries cannot be drawn for boards of this size."""
        if not self.has_symmetries or height != width:
            raise ConfigError(
                f"--symmetries are known for Sudoku and square mazes, not for {self.kind} boards of {height} x "
                f"{width}; leave it out (ARC datasets are augmented when they are built)"
            )

    def symmetries(self, size: int, *, seed: int, row_numbers: Numbers) -> Symmetries:
        """One symmetry of a square board for each row number (n,), a function of it and the seed alone."""
        raise NotImplementedError

    def augment(
        self, inputs: Tokens, labels: Tokens, *, seed: int, row_numbers: Numbers
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Inputs and labels (n, S), each pair under the symmetry of its row number (n,)."""
        drawn = self.symmetries(math.isqrt(inputs.shape[1]), seed=seed, row_numbers=row_numbers)
        return drawn.apply(inputs), drawn.apply(labels)

    def distinct_symmetries(self, size: int, count: int, vocab_size: int) -> Symmetries:
        """The identity and ``count`` - 1 other symmetries, always the same. Raises ConfigError for too many."""
        raise NotImplementedError

    def views(self, height: int, width: int, count: int, vocab_size: int) -> Views | None:
        """``count`` views of a board by its symmetries; None if it has none. Raises ConfigError for too many."""
        if not self.has_symmetries or height != width:
            return None
        return SymmetricViews(self.distinct_symmetries(height, count, vocab_size))

    def task_views(self, names: Sequence[str], identifiers: Numbers, count: int) -> Views:
        """``count`` views of boards of tasks, given by the names of all puzzle identifiers and their own (n,)."""
        raise NotImplementedError


def extent(boards: Sequence[Tokens], height: int, width: int) -> Region:
    """Rows and columns that hold more than padding on any of several boards (S,): what is worth showing.

    All of them if every board is padding alone.
    """
    used = np.any([np.asarray(board).reshape(height, width) != PAD for board in boards], axis=0)
    rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, height), slice(0, width)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _framed(texts: list[str], size: int, box_height: int, box_width: int) -> list[list[Piece]]:
    rule: list[Piece] = [("+".join(["", *["-" * (2 * box_width + 1)] * (size // box_width), ""]), None)]
    framed = [rule]
    for row in range(size):
        line: list[Piece] = []
        for column in range(size):
            line.append(("| " if column % box_width == 0 else " ", None))
            cell = row * size + column
            line.append((texts[cell], cell))
            if column % box_width == box_width - 1:
                line.append((" ", None))
        framed.append([*line, ("|", None)])
        if row % box_height == box_height - 1:
            framed.append(rule)
    return framed
