"""ARC grids and their rows of tokens.

A grid is uint8 (h, w), 1 to 30 cells a side, of colours 0 to 9. A row is the 30 x 30 board, uint8 (900,): colour + 2
where the grid lies, 1 (end) along its right and lower border as far as the board reaches, 0 elsewhere.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.errors import DataError

Grid = npt.NDArray[np.uint8]

PAD, END, FIRST_COLOUR = 0, 1, 2
NUM_COLOURS = 10
VOCAB_SIZE = FIRST_COLOUR + NUM_COLOURS
SIDE = 30
NUM_CELLS = SIDE * SIDE


def parse_grid(value: Any, place: str) -> Grid:
    """A grid from JSON, a list of rows of numbers. Raises DataError that begins with ``place`` and names the cell."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise DataError(f"{place}: a grid is a list of rows, and a row a list of colours 0 to 9")
    height, width = len(value), len(value[0])
    if height > SIDE or width > SIDE:
        raise DataError(f"{place}: a grid of {height} x {width} is too large, at most {SIDE} x {SIDE} are possible")
    for number, row in enumerate(value, start=1):
        if len(row) != width:
            raise DataError(f"{place}, row {number}: {len(row)} cells, but row 1 has {width}")
    cells = list(chain.from_iterable(value))
    if set(map(type, cells)) != {int} or min(cells) < 0 or max(cells) >= NUM_COLOURS:
        position = next(at for at, cell in enumerate(cells) if type(cell) is not int or not 0 <= cell < NUM_COLOURS)
        row, column = divmod(position, width)
        raise DataError(f"{place}, row {row + 1}, column {column + 1}: {cells[position]!r} is not a colour 0 to 9")
    return np.array(cells, dtype=np.uint8).reshape(height, width)


def encode(grid: Grid, row: int = 0, column: int = 0) -> npt.NDArray[np.uint8]:
    """The tokens (900,) of a grid whose upper left corner lies at (row, column); it must fit on the board."""
    return encode_many(grid[None] + np.uint8(FIRST_COLOUR), np.array([row]), np.array([column])).reshape(NUM_CELLS)


def encode_many(
    tokens: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """The boards (n, 900) of colour tokens (n, h, w) with their upper left corners at ``rows``, ``columns`` (n,)."""
    num, height, width = tokens.shape
    # The grid with its border; the corner between both borders stays padding. On a board with one cell more each way
    # the border always fits, and what does not belong to the real board is cut off.
    framed = np.zeros((num, height + 1, width + 1), dtype=np.uint8)
    framed[:, :height, :width] = tokens
    framed[:, height, :width] = END
    framed[:, :height, width] = END
    board = np.zeros((num, (SIDE + 1) ** 2), dtype=np.uint8)
    inside = (np.arange(height + 1)[:, None] * (SIDE + 1) + np.arange(width + 1)).reshape(-1)
    corners = rows * (SIDE + 1) + columns
    board[np.arange(num)[:, None], corners[:, None] + inside] = framed.reshape(num, -1)
    return board.reshape(num, SIDE + 1, SIDE + 1)[:, :SIDE, :SIDE].reshape(num, NUM_CELLS)


def crop_sizes(boards: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Height and width, int64 (n, 2), of the grid at the upper left corner of each board (n, 900).

    It is the largest rectangle from that corner without an end or padding token: of a whole board, the grid itself;
    of a prediction with stray tokens, the part that its end marks leave. (0, 0) where the corner is no colour.
    """
    colours = (boards >= FIRST_COLOUR).reshape(-1, SIDE, SIDE)
    # Colours at the beginning of each line, and the fewest of all lines down to it.
    widths = np.minimum.accumulate(np.logical_and.accumulate(colours, axis=2).sum(axis=2), axis=1)
    areas = widths * np.arange(1, SIDE + 1)
    heights = areas.argmax(axis=1)
    width = widths[np.arange(len(widths)), heights]
    return np.stack([np.where(width > 0, heights + 1, 0), width], axis=1)


def crop(board: npt.NDArray[np.integer[Any]]) -> Grid:
    """The grid, uint8 (h, w), at the upper left corner of a board (900,); see ``crop_sizes``; (0, 0) for none.

    Raises:
        ValueError: not 900 tokens.
    """
    if board.shape != (NUM_CELLS,):
        raise ValueError(f"a board has {NUM_CELLS} tokens, got shape {board.shape}")
    height, width = crop_sizes(board[None])[0]
    return (board.reshape(SIDE, SIDE)[:height, :width] - FIRST_COLOUR).astype(np.uint8)
