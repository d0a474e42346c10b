"""What the tokens of a board mean: characters, colours, text lines, and whether a solution follows the rules.

Nothing here draws: a caller gets lines of (text, cell number) pieces and styles them as its medium can (terminal,
notebook, page). Boards are rows of tokens, shape (S,), S = height * width, in reading order.

Tokens. Sudoku: 0 padding, 1 blank, digit + 1. Maze: 0 padding, then ``# SGo`` (wall, free, start, goal, path) from 1.
ARC: 0 padding, 1 end of the grid, colour + 2. These are the ones of the reference implementation's datasets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hrm_engine.errors import DataError

Kind = Literal["sudoku", "maze", "arc", "other"]
Tokens = npt.NDArray[np.integer[Any]]
Piece = tuple[str, int | None]

KINDS: tuple[Kind, ...] = get_args(Kind)
PAD, BLANK = 0, 1
WALL, FREE, START, GOAL, PATH = 1, 2, 3, 4, 5
# Height and width of a box.
BOX_SHAPES: dict[int, tuple[int, int]] = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
# Position = token. Characters that cannot be typed into a puzzle stand for padding and the end of a grid.
CHARACTERS: dict[Kind, str] = {"sudoku": "?.123456789", "maze": "?# SGo", "arc": "?|0123456789"}
# The ten colours in which ARC grids are usually shown, and those of the other boards' special cells.
ARC_COLOURS = (
    "#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25",
)  # fmt: skip
_MAZE_COLOURS = {WALL: "#303030", FREE: "#f5f5f5", START: "#2ecc40", GOAL: "#ff4136", PATH: "#0074d9"}


def sudoku_size(num_cells: int) -> int:
    """The size (4, 6 or 9) of a Sudoku of that many cells. Raises DataError for any other number."""
    size = math.isqrt(num_cells)
    if size not in BOX_SHAPES or size * size != num_cells:
        raise DataError(f"a Sudoku has 16, 36 or 81 cells (4x4, 6x6, 9x9), not {num_cells}")
    return size


@cache
def units(size: int) -> npt.NDArray[np.int64]:
    """Cells of every row, column and box of a Sudoku, shape (3 * size, size), rows first; read-only."""
    height, width = BOX_SHAPES[size]
    cells = np.arange(size * size).reshape(size, size)
    boxes = cells.reshape(size // height, height, size // width, width).transpose(0, 2, 1, 3).reshape(size, size)
    found = np.concatenate([cells, cells.T, boxes])
    found.setflags(write=False)
    return found


def cell_text(kind: Kind, token: int) -> str:
    """One token as it is shown: its character, or its number where the kind has none for it."""
    characters = CHARACTERS.get(kind, "")
    return characters[token] if 0 <= token < len(characters) else str(token)


def to_text(kind: Kind, tokens: Tokens) -> str:
    """A row of tokens as one string: a character for each cell, for kind ``other`` numbers with spaces between."""
    return (" " if kind == "other" else "").join(cell_text(kind, int(token)) for token in tokens)


def to_tokens(kind: Kind, text: str) -> npt.NDArray[np.uint8]:
    """The tokens, uint8 (S,), of a string in which every character is one cell; a Sudoku's blank may also be 0.

    Raises:
        DataError: the kind has no characters, or one of the characters does not belong to it (position is named).
    """
    if kind not in CHARACTERS:
        raise DataError(f"boards of kind {kind!r} have no text form: give their tokens")
    meaning = {character: token for token, character in enumerate(CHARACTERS[kind]) if character not in "?|"}
    if kind == "sudoku":
        meaning["0"] = BLANK
    for position, character in enumerate(text, start=1):
        if character not in meaning:
            allowed = "".join(sorted(meaning))
            raise DataError(
                f"character {position} is {character!r}: a {kind} is written with the characters {allowed!r}"
            )
    return np.array([meaning[character] for character in text], dtype=np.uint8)


def parse_sudoku(text: str) -> npt.NDArray[np.uint8]:
    """A typed Sudoku as tokens, uint8 (S,): 16, 36 or 81 cells row by row, ``.`` or ``0`` for a blank.

    White space and the lines of a drawn frame (``|``, ``-``, ``+``) are passed over.

    Raises:
        DataError: wrong number of cells, a character or digit that the size does not have, or a digit that stands
            twice in a row, column or box.
    """
    written = "".join(character for character in text if not character.isspace() and character not in "|-+")
    size = sudoku_size(len(written))
    tokens = to_tokens("sudoku", written)
    if tokens.max() > size + 1:
        position = int(np.argmax(tokens > size + 1))
        raise DataError(f"cell {_place(position, size)} is {written[position]}: a {size}x{size} Sudoku has 1 to {size}")
    clashing = np.flatnonzero(conflicts(tokens))
    if clashing.size:
        position = int(clashing[0])
        raise DataError(
            f"digit {written[position]} in {_place(position, size)} stands twice in its row, column or box: correct it"
        )
    return tokens


def conflicts(tokens: Tokens) -> npt.NDArray[np.bool_]:
    """Which cells of a Sudoku, bool (S,), hold a digit that stands again in their row, column or box."""
    found = np.zeros(len(tokens), dtype=bool)
    for unit in units(sudoku_size(len(tokens))):
        values = np.asarray(tokens)[unit]
        same = (values[:, None] == values[None, :]) & (values > BLANK)
        found[unit[same.sum(axis=1) > 1]] = True
    return found


def is_valid(kind: Kind, inputs: Tokens, prediction: Tokens) -> bool | None:
    """Whether ``prediction`` (S,) solves ``inputs`` (S,); None where no rule can say it (ARC, other).

    Sudoku: givens kept, every row, column and box holds every digit once. Maze: nothing changed but free cells into
    path cells, and these lead from start to goal, neighbour by neighbour, with none left over: within the marked cells
    the shortest way uses all of them. It need not be the shortest way of the maze.
    """
    if kind not in ("sudoku", "maze"):
        return None
    return bool(are_valid(kind, np.asarray(inputs)[None], np.asarray(prediction)[None])[0])


def are_valid(kind: Kind, inputs: Tokens, predictions: Tokens) -> npt.NDArray[np.bool_]:
    """``is_valid`` for many rows, (n, S) and (n, S) to bool (n,). Raises ValueError for kinds without rules."""
    if inputs.shape != predictions.shape or inputs.ndim != 2:
        raise ValueError(f"inputs {inputs.shape} and predictions {predictions.shape} are to have one shape (n, S)")
    if kind == "sudoku":
        size = sudoku_size(inputs.shape[1])
        kept = np.all((inputs <= BLANK) | (inputs == predictions), axis=1)
        grouped = np.sort(predictions[:, units(size)], axis=2)
        solved: npt.NDArray[np.bool_] = kept & np.all(grouped == np.arange(2, size + 2), axis=(1, 2))
        return solved
    if kind == "maze":
        return np.array([_is_way(*pair) for pair in zip(inputs, predictions, strict=True)], dtype=bool)
    raise ValueError(f"boards of kind {kind!r} have no rules that could be checked")


def lines(kind: Kind, tokens: Tokens, height: int, width: int) -> list[list[Piece]]:
    """A board as lines of pieces (text, cell number), with frames around a Sudoku's boxes (cell number None).

    Joined, the texts of a line are the plain form. A cell of mazes and ARC grids is two characters wide, so that it
    looks square; their padding is empty.
    """
    texts = [cell_text(kind, int(token)) for token in tokens]
    if kind == "sudoku" and height == width and height in BOX_SHAPES:
        return _framed(texts, height)
    if kind in ("maze", "arc"):
        shown = {"#": "##", "?": "  "} if kind == "maze" else {"?": "  "}
        texts = [shown.get(text, f"{text} ") for text in texts]
    else:
        wide = max(len(text) for text in texts)
        texts = [f"{text:>{wide}} " for text in texts]
    return [[(texts[cell], cell) for cell in range(row * width, (row + 1) * width)] for row in range(height)]


def extent(boards: Sequence[Tokens], height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that hold more than padding on any of several boards (S,): what is worth showing.

    All of them where every board is padding alone.
    """
    used = np.any([np.asarray(board).reshape(height, width) != PAD for board in boards], axis=0)
    rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, height), slice(0, width)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def colour(kind: Kind, token: int) -> str | None:
    """The colour of a cell as ``#rrggbb`` where colours carry the meaning (ARC, maze); None for padding and others."""
    if kind == "arc":
        return ARC_COLOURS[token - 2] if 2 <= token < 12 else None
    return _MAZE_COLOURS.get(token) if kind == "maze" else None


def _framed(texts: list[str], size: int) -> list[list[Piece]]:
    box_height, box_width = BOX_SHAPES[size]
    rule: list[Piece] = [("+".join(["", *["-" * (2 * box_width + 1)] * (size // box_width), ""]), None)]
    found = [rule]
    for row in range(size):
        line: list[Piece] = []
        for column in range(size):
            line.append(("| " if column % box_width == 0 else " ", None))
            cell = row * size + column
            line.append((texts[cell], cell))
            if column % box_width == box_width - 1:
                line.append((" ", None))
        found.append([*line, ("|", None)])
        if row % box_height == box_height - 1:
            found.append(rule)
    return found


def _is_way(inputs: Tokens, prediction: Tokens) -> bool:
    size = math.isqrt(len(inputs))
    marked = (prediction == PATH) & ((inputs == FREE) | (inputs == PATH))
    rest = ~marked
    as_given = np.where(inputs == PATH, FREE, inputs)  # an input that shows its path is the maze without it
    starts, goals = np.flatnonzero(inputs == START), np.flatnonzero(inputs == GOAL)
    if size * size != len(inputs) or len(starts) != 1 or len(goals) != 1 or np.any(prediction[rest] != as_given[rest]):
        return False
    # Breadth first from the start over marked cells: the goal must be the last cell reached, at the greatest distance.
    open_cells = marked.copy()
    open_cells[goals] = True
    distance = 0
    reached = [int(starts[0])]
    while reached:
        if int(goals[0]) in reached:
            return distance == int(marked.sum()) + 1
        following: list[int] = []
        for cell in reached:
            for neighbour in _neighbours(cell, size):
                if open_cells[neighbour]:
                    open_cells[neighbour] = False
                    following.append(neighbour)
        reached, distance = following, distance + 1
    return False


def _neighbours(cell: int, size: int) -> list[int]:
    row, column = divmod(cell, size)
    found = [cell - size] if row > 0 else []
    found += [cell + size] if row < size - 1 else []
    found += [cell - 1] if column > 0 else []
    return found + ([cell + 1] if column < size - 1 else [])


def _place(cell: int, size: int) -> str:
    return f"row {cell // size + 1}, column {cell % size + 1}"
