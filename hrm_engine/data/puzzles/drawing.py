"""A board as a picture: one self-contained SVG string, without a library, for pages, notebooks and reports.

Inline in HTML, text and lines take the colour of the text around them (``ink="currentColor"``). A page that shows SVG
only as an image (``data_uri``) gives the colour itself, because an image inherits none.
"""

from __future__ import annotations

import base64
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.data.puzzles.board import PAD, Board, Region, Tokens

Cells = npt.NDArray[np.bool_]

SIDE_PX = 320
# Mid-tones that can be told from white and from black paper alike; what they mean is also drawn as a shape.
OWN, CHANGED, WRONG = "#2b83c4", "#e0a100", "#d64545"
_SMALLEST_PX, _LARGEST_PX = 4.0, 44.0


def board_svg(
    board: Board,
    tokens: Tokens,
    height: int,
    width: int,
    *,
    given: Tokens | None = None,
    changed: Cells | None = None,
    wrong: Cells | None = None,
    region: Region | None = None,
    side_px: float = SIDE_PX,
    ink: str = "currentColor",
    paper: str | None = None,
    title: str = "",
) -> str:
    """Draw a board of tokens (S,), S = height * width.

    Digits that the puzzle gives are bold, those of the solver thin and blue. Cells with a colour are areas.

    Args:
        given: (S,) the puzzle; without it everything counts as given.
        changed: (S,) cells to mark as new: an amber ground under digits, a ring on coloured cells.
        wrong: (S,) cells to mark as wrong: a red digit with a corner, a cross on coloured cells.
        region: rows and columns to draw, see :func:`~hrm_engine.data.puzzles.board.extent`; all by default.
        side_px: length of the longer side.
        ink: CSS colour of given digits and lines. ``paper``: that of the ground; None lets the page show through.
        title: text for screen readers, and a tooltip.

    Raises:
        ValueError: arrays that are not of height * width cells.
    """
    rows, columns = region or (slice(0, height), slice(0, width))

    def window(values: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        if values is None:
            return None
        if np.shape(values) != (height * width,):
            raise ValueError(f"cells of shape {np.shape(values)}: a board of {height} x {width} is drawn")
        return np.asarray(values).reshape(height, width)[rows, columns]

    cells = window(tokens)
    assert cells is not None
    drawing = _Drawing(board, cells, window(given), side_px, ink)
    parts = drawing.areas() if board.colours else []
    parts += drawing.marks(window(changed), window(wrong))
    parts += [] if board.colours else drawing.digits(window(wrong))
    return drawing.svg([*parts, *drawing.lines()], title, paper)


def data_uri(svg: str) -> str:
    """The picture as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


class _Drawing:
    """Geometry of one board, and its parts as SVG elements. x runs along columns, y along rows."""

    def __init__(
        self, board: Board, tokens: npt.NDArray[Any], given: npt.NDArray[Any] | None, side_px: float, ink: str
    ) -> None:
        self.board, self.tokens, self.given, self.ink = board, tokens, given, escape(ink)
        self.height, self.width = tokens.shape
        self.cell = min(max(side_px / max(tokens.shape), _SMALLEST_PX), _LARGEST_PX)

    def svg(self, parts: list[str], title: str, paper: str | None) -> str:
        """The whole picture; half a line of air around it keeps the outer lines whole."""
        wide, high = self.width * self.cell, self.height * self.cell
        tooltip = f"<title>{escape(title)}</title>" if title else ""
        area = f'x="-1.5" y="-1.5" width="{wide + 3:.2f}" height="{high + 3:.2f}"'
        ground = f'<rect {area} fill="{escape(paper)}"/>' if paper else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{wide + 3:.0f}" height="{high + 3:.0f}" '
            f'viewBox="-1.5 -1.5 {wide + 3:.2f} {high + 3:.2f}" font-family="ui-sans-serif,system-ui,sans-serif">'
            f"{tooltip}{ground}{''.join(parts)}</svg>"
        )

    def areas(self) -> list[str]:
        """Coloured cells, neighbours of one colour in a row together."""
        parts = []
        for row, line in enumerate(self.tokens.tolist()):
            column = 0
            for token, cells in groupby(line):
                count = len(list(cells))
                if fill := self._fill(token):
                    parts.append(self._rect(row, column, fill, count))
                column += count
        return parts

    def _fill(self, token: int) -> str | None:
        if colour := self.board.colours.get(token):
            return f'fill="{colour}"'
        return f'fill="{self.ink}" fill-opacity="0.16"' if token == self.board.shaded else None

    def marks(self, changed: Cells | None, wrong: Cells | None) -> list[str]:
        """Marks of changed and of wrong cells."""
        parts = []
        coloured = bool(self.board.colours)
        for row, column in _places(changed):
            if coloured:
                parts += self._ring(row, column)
            else:
                parts.append(self._rect(row, column, f'fill="{CHANGED}" fill-opacity="0.38" data-mark="changed"'))
        for row, column in _places(wrong):
            parts += self._cross(row, column) if coloured else [self._corner(row, column)]
        return parts

    def digits(self, wrong: Cells | None) -> list[str]:
        """Digits, or the numbers of tokens without a character."""
        parts, blank = [], self.board.blank
        for row in range(self.height):
            for column in range(self.width):
                token = int(self.tokens[row, column])
                if token == blank:
                    continue
                is_padding = blank is not None and token == PAD
                is_given = self.given is None or (self.given[row, column] == token and not is_padding)
                fill = self.ink if is_given else OWN
                if wrong is not None and wrong[row, column]:
                    fill = WRONG
                text = self.board.cell_text(token)
                size = self.cell * (0.56 if len(text) == 1 else 0.38)
                x, y = (column + 0.5) * self.cell, (row + 0.5) * self.cell + 0.35 * size
                weight = 700 if is_given else 400
                parts.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size:.1f}" '
                    f'font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
                )
        return parts

    def lines(self) -> list[str]:
        """Thin lines between cells, thick ones around boxes and the board."""
        thick_rows, thick_columns = {0, self.height}, {0, self.width}
        if box := self.board.boxes(self.height, self.width):
            thick_rows, thick_columns = (set(range(0, self.height + 1, step)) for step in box)
        wide, high = self.width * self.cell, self.height * self.cell
        thin: list[str] = []
        thick: list[str] = []
        for row in range(self.height + 1):
            (thick if row in thick_rows else thin).append(f"M0 {row * self.cell:.2f}H{wide:.2f}")
        for column in range(self.width + 1):
            (thick if column in thick_columns else thin).append(f"M{column * self.cell:.2f} 0V{high:.2f}")
        fine = [self._path(thin, "0.6", "0.35")] if self.board.has_cell_lines and self.cell >= 8 else []
        return [*fine, self._path(thick, "1.6" if box else "1", "0.75")]

    def _path(self, strokes: list[str], wide: str, opacity: str) -> str:
        look = f'stroke="{self.ink}" stroke-width="{wide}" stroke-opacity="{opacity}"'
        return f'<path d="{"".join(strokes)}" fill="none" stroke-linecap="square" {look}/>'

    def _rect(self, row: int, column: int, look: str, count: int = 1, inset: float = 0.0) -> str:
        x, y, side = column * self.cell + inset, row * self.cell + inset, self.cell - 2 * inset
        wide = side + (count - 1) * self.cell
        return f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{side:.2f}" {look}/>'

    def _ring(self, row: int, column: int) -> list[str]:
        """Amber on black: one of the two stands out from any colour below."""
        wide = max(self.cell * 0.14, 1.0)
        black = f'fill="none" stroke="#000" stroke-width="{1.8 * wide:.2f}"'
        amber = f'fill="none" stroke="{CHANGED}" stroke-width="{wide:.2f}" data-mark="changed"'
        return [self._rect(row, column, look, inset=wide) for look in (black, amber)]

    def _cross(self, row: int, column: int) -> list[str]:
        near, far = 0.3 * self.cell, 0.7 * self.cell
        x, y = column * self.cell, row * self.cell
        d = f"M{x + near:.2f} {y + near:.2f}L{x + far:.2f} {y + far:.2f}"
        d += f"M{x + far:.2f} {y + near:.2f}L{x + near:.2f} {y + far:.2f}"
        wide = max(self.cell * 0.1, 0.8)
        return [
            f'<path d="{d}" fill="none" stroke="#fff" stroke-width="{2.4 * wide:.2f}"/>',
            f'<path d="{d}" fill="none" stroke="{WRONG}" stroke-width="{wide:.2f}" data-mark="wrong"/>',
        ]

    def _corner(self, row: int, column: int) -> str:
        x, y, side = (column + 1) * self.cell, row * self.cell, 0.28 * self.cell
        d = f"M{x:.2f} {y:.2f}v{side:.2f}l{-side:.2f} {-side:.2f}z"
        return f'<path d="{d}" fill="{WRONG}" data-mark="wrong"/>'


def _places(cells: Cells | None) -> list[tuple[int, int]]:
    return [] if cells is None else [(int(row), int(column)) for row, column in np.argwhere(cells)]
