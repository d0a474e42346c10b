"""Sudoku as a kind of board."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.board import Board, Puzzle, Tokens
from hrm_engine.data.puzzles.sudoku.rules import BLANK, BOX_SHAPES, conflicts, sudoku_size, units
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.data.puzzles.sudoku.symmetries import draw
from hrm_engine.data.puzzles.symmetries import Numbers, Symmetries
from hrm_engine.errors import ConfigError, DataError

SEVERAL_SOLUTIONS = "this Sudoku has more than one solution: the answer is judged by the rules alone"
_VIEWS_SEED = 0


class Sudoku(Board):
    """Digits in a square of boxes. Valid: givens kept, every row, column and box holds every digit once."""

    kind, title, flag = "sudoku", "Sudoku", "--puzzle"
    characters, also_typed, blank = "?.123456789", MappingProxyType({"0": BLANK}), BLANK
    hint = "Digits, a dot for a blank"
    has_rules = has_symmetries = True

    def fits(self, vocab_size: int, num_cells: int) -> bool:
        return (vocab_size, num_cells) == (11, 81)

    def boxes(self, height: int, width: int) -> tuple[int, int] | None:
        return BOX_SHAPES.get(height) if height == width else None

    def read(self, text: str, height: int, width: int) -> Puzzle:
        """See :func:`parse_sudoku`; the rating is the number of guesses that the search needs."""
        tokens = parse_sudoku(text)
        size = sudoku_size(len(tokens))
        if size != height:
            raise DataError(
                f"this is a {size}x{size} Sudoku of {len(tokens)} cells; the solver takes {height}x{width}, "
                f"{height * width} cells: shorten or complete the text, or choose another solver"
            )
        solved = solve(tokens[None])
        inputs = tokens.astype(np.int64)
        if not solved.num_solutions[0]:
            raise DataError("this Sudoku has no solution, though no two givens clash: correct one of the givens")
        if solved.num_solutions[0] > 1:
            return Puzzle(inputs, warning=SEVERAL_SOLUTIONS)
        return Puzzle(inputs, solved.solutions[0].astype(np.int64), float(solved.guesses[0]))

    def _are_valid(self, inputs: Tokens, predictions: Tokens) -> npt.NDArray[np.bool_]:
        size = sudoku_size(inputs.shape[1])
        kept = np.all((inputs <= BLANK) | (inputs == predictions), axis=1)
        grouped = np.sort(predictions[:, units(size)], axis=2)
        solved: npt.NDArray[np.bool_] = kept & np.all(grouped == np.arange(2, size + 2), axis=(1, 2))
        return solved

    def symmetries(self, size: int, *, seed: int, row_numbers: Numbers) -> Symmetries:
        """All that keep a puzzle a puzzle, see ``symmetries.py``."""
        return draw(size, seed=seed, row_numbers=row_numbers)

    def distinct_symmetries(self, size: int, count: int, vocab_size: int) -> Symmetries:
        """The identity and the first symmetries drawn that differ from all before."""
        drawn = draw(size, seed=_VIEWS_SEED, row_numbers=np.arange(2 * count + 16), name="start-symmetry")
        cells = drawn.cells.copy()
        # tokens that a larger vocabulary has besides stay as they are
        digits = np.tile(np.arange(max(vocab_size, size + 2), dtype=np.uint8), (len(cells), 1))
        assert drawn.digits is not None
        digits[:, : size + 2] = drawn.digits
        cells[0], digits[0] = np.arange(size * size), np.arange(digits.shape[1])
        _, first = np.unique(np.concatenate([cells, digits], axis=1), axis=0, return_index=True)
        if len(first) < count:
            raise ConfigError(
                f"{count} starts, restarts included: only {len(first)} different symmetries were found; ask for fewer "
                "starts, or for starts from noise"
            )
        return Symmetries(cells, digits)[np.sort(first)[:count]]


def parse_sudoku(text: str) -> npt.NDArray[np.uint8]:
    """A typed Sudoku as tokens, uint8 (S,): 16, 36 or 81 cells row by row, ``.`` or ``0`` for a blank.

    White space and the lines of a drawn frame (``|``, ``-``, ``+``) are ignored.

    Raises:
        DataError: wrong number of cells, a character or digit that the size does not have, or a digit that stands
            twice in a row, column or box.
    """
    written = "".join(character for character in text if not character.isspace() and character not in "|-+")
    size = sudoku_size(len(written))
    tokens = Sudoku().to_tokens(written)
    if tokens.max() > size + 1:
        cell = int(np.argmax(tokens > size + 1))
        raise DataError(f"cell {_place(cell, size)} is {written[cell]}: a {size}x{size} Sudoku has 1 to {size}")
    clashing = np.flatnonzero(conflicts(tokens))
    if clashing.size:
        cell = int(clashing[0])
        raise DataError(
            f"digit {written[cell]} in {_place(cell, size)} stands twice in its row, column or box: correct it"
        )
    return tokens


def _place(cell: int, size: int) -> str:
    return f"row {cell // size + 1}, column {cell % size + 1}"
