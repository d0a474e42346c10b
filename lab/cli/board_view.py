"""Boards in the terminal: in colour, and with marks where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.cli.console import console, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.text import Text

    from hrm_engine.data.puzzles.board import Board, Tokens

GAP = "    "
MARK = "*"


def board_lines(
    board: Board,
    cells: Tokens,
    *,
    given: Tokens | None = None,
    changed: npt.NDArray[np.bool_] | None = None,
) -> list[Text]:
    """The lines of the cells (height, width) of a board.

    Args:
        given: (height, width) the puzzle: cells that it does not give stand out.
        changed: (height, width) cells to mark, in colour by their background, and always by a star behind them.
    """
    from rich.text import Text

    tokens = cells.reshape(-1)
    marks = None if changed is None else changed.reshape(-1)
    drawn = []
    for pieces in board.lines(tokens, *cells.shape):
        line, is_due = Text(), False
        for text, cell in pieces:
            shown = MARK + text[1:] if is_due and text.startswith(" ") and cell is None else text
            is_due = False
            if cell is None:
                line.append(shown, "dim")
                continue
            is_given = given is None or given.reshape(-1)[cell] == tokens[cell]
            style = cell_style(board, int(tokens[cell]), is_given=is_given)
            if marks is not None and marks[cell]:
                style += " underline" if board.colours else " reverse"
                if len(text) > 1:
                    shown = text[:-1] + MARK
                is_due = len(text) == 1
            line.append(printable(shown), style)
        drawn.append(line)
    return drawn


def cell_style(board: Board, token: int, *, is_given: bool) -> str:
    """Style of a cell for rich."""
    if board.blank is not None and token > board.blank:
        return "bold" if is_given else "green"
    back = board.colours.get(token)
    if back is None:
        return "dim"
    red, green, blue = (int(back[start : start + 2], 16) for start in (1, 3, 5))
    front = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else "white"
    return f"{front} on {back}"


def side_by_side(columns: list[list[Any]]) -> None:
    """Print boards, as lines, beside each other; below each other where the terminal is too narrow."""
    from rich.text import Text

    out = console()
    widths = [max((line.cell_len for line in column), default=0) for column in columns]
    if out.is_terminal and sum(widths) + len(GAP) * (len(columns) - 1) > out.width:
        for number, column in enumerate(columns):
            for line in ([""] if number else []) + column:
                out.print(line)
        return
    for row in range(max(map(len, columns))):
        whole = Text()
        for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
            line = column[row].copy() if row < len(column) else Text()
            if number < len(columns) - 1:
                line.pad_right(width - line.cell_len)
                line.append(GAP)
            whole.append_text(line)
        out.print(whole)
