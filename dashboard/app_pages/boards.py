"""Boards on a page: pictures with captions that flow into as many lines as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.queries.bundles import Solver

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hrm_engine.data.puzzles.board import Puzzle, Region

LARGE_PX, SMALL_PX = 252, 112
# The colours of text in .streamlit/config.toml: a picture inherits none from the page.
_INK = {"light": "#22262b", "dark": "#e4e7ea"}


@dataclass(frozen=True, eq=False)
class Board:
    """A board as it is to be drawn; ``is_shown`` emphasises its caption."""

    caption: str
    tokens: npt.NDArray[np.int64]
    changed: npt.NDArray[np.bool_] | None = None
    wrong: npt.NDArray[np.bool_] | None = None
    is_shown: bool = False


def boards(solver: Solver, puzzle: Puzzle, shown: Sequence[Board], *, side_px: float, region: Region) -> None:
    """Pictures beside each other. Captions may hold any text."""
    from hrm_engine.data.puzzles.drawing import board_svg, data_uri

    ink = _INK.get(str(st.context.theme.type), _INK["light"])
    figures = []
    for board in shown:
        words = board.caption + _marks(board)
        svg = board_svg(
            solver.board,
            board.tokens,
            solver.height,
            solver.width,
            given=puzzle.inputs,
            changed=board.changed,
            wrong=board.wrong,
            region=region,
            side_px=side_px,
            ink=ink,
            title=words,
        )
        emphasis = ' class="shown"' if board.is_shown else ""
        figures.append(
            f"<figure{emphasis}><figcaption>{escape(board.caption)}</figcaption>"
            f'<img src="{data_uri(svg)}" alt="{escape(words)}"></figure>'
        )
    st.html(f'<div class="boards">{"".join(figures)}</div>')


def region_of(solver: Solver, boards: Sequence[npt.NDArray[np.int64]]) -> Region:
    """The part of the board that any of these uses: ARC's grids lie in the corner of a large one."""
    from hrm_engine.data.puzzles.board import extent

    return extent(boards, solver.height, solver.width)


def _marks(board: Board) -> str:
    parts = [
        f"{int(cells.sum())} cells {name}"
        for name, cells in (("changed", board.changed), ("wrong", board.wrong))
        if cells is not None
    ]
    return f": {', '.join(parts)}" if parts else ""
