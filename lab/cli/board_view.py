"""Boards in the terminal: in colour, and with marks where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.cli.console import console, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.text import Text

    from hrm_engine.data.puzzles.boards import Kind, Tokens

GAP = "    "
MARK = "*"


def board_lines(
    kind: Kind,
    board: Tokens,
    *,
    given: Tokens | None = None,
    changed: npt.NDArray[np.bool_] | None = None,
) -> list[Text]:
    """The lines of a board (height, width).

    Args:
        given: (height, width) the puzzle: what it does not give stands out.
        changed: (height, width) cells to mark, in colour by their background, and always by a star behind them.
    """
    from rich.text import Text

    from hrm_engine.data.puzzles.boards import lines

    tokens = board.reshape(-1)
    marks = None if changed is None else changed.reshape(-1)
    found = []
    for pieces in lines(kind, tokens, *board.shape):
        line, is_due = Text(), False
        for text, cell in pieces:
            shown = MARK + text[1:] if is_due and text.startswith(" ") and cell is None else text
            is_due = False
            if cell is None:
                line.append(shown, "dim")
                continue
            is_given = given is None or given.reshape(-1)[cell] == tokens[cell]
            style = cell_style(kind, int(tokens[cell]), is_given=is_given)
            if marks is not None and marks[cell]:
                style += " reverse" if kind == "sudoku" else " underline"
                if len(text) > 1:
                    shown = text[:-1] + MARK
                is_due = len(text) == 1
            line.append(printable(shown), style)
        found.append(line)
    return found


def cell_style(kind: Kind, token: int, *, is_given: bool) -> str:
    """How a cell is written, as a style of rich."""
    from hrm_engine.data.puzzles.boards import BLANK, colour

    if kind == "sudoku":
        return "dim" if token <= BLANK else ("bold" if is_given else "green")
    back = colour(kind, token)
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
