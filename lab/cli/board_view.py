"""Boards in the terminal: in colour, and with marks where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.cli.console import console, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.text import Text

    from hrm_engine.data.puzzles.board import Board, Region, Tokens

GAP = "    "
MARK = "*"


def board_lines(
    board: Board,
    tokens: Tokens,
    shape: tuple[int, int],
    region: Region,
    *,
    given: Tokens | None = None,
    changed: npt.NDArray[np.bool_] | None = None,
) -> list[Text]:
    """The lines of a region of a board (S,) of height and width ``shape``.

    Args:
        given: (S,) the puzzle: digits that it does not give stand out.
        changed: (S,) cells to mark, in colour by their background, and always by a star behind them.
    """
    import numpy as np
    from rich.text import Text

    window = tokens.reshape(shape)[region]
    cells = window.reshape(-1)
    is_given = np.ones(len(cells), dtype=bool) if given is None else given.reshape(shape)[region].reshape(-1) == cells
    marks = np.zeros(len(cells), dtype=bool) if changed is None else changed.reshape(shape)[region].reshape(-1)
    drawn = []
    for pieces in board.lines(cells, *window.shape):
        line, is_due = Text(), False
        for text, cell in pieces:
            shown = MARK + text[1:] if is_due and text.startswith(" ") and cell is None else text
            is_due = False
            if cell is None:
                line.append(shown, "dim")
                continue
            style = cell_style(board, int(cells[cell]), is_given=bool(is_given[cell]))
            if marks[cell]:
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
    """Print boards, given as lines, side by side, or one below the other on a narrow terminal."""
    from rich.text import Text

    out = console()
    widths = [max((line.cell_len for line in column), default=0) for column in columns]
    if out.is_terminal and sum(widths) + len(GAP) * (len(columns) - 1) > out.width:
        for line in columns[0] + [line for column in columns[1:] for line in ("", *column)]:
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
