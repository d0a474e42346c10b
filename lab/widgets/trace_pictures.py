"""A trace as pictures: the board after each segment with its changed cells, and the halting probability.

Every picture is one self-contained SVG string. Moment 0 is the board as it was given, moment t the one after segment t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from xml.etree import ElementTree

import numpy as np

from hrm_engine.data.puzzles.board import PAD, Region, Tokens, extent
from hrm_engine.data.puzzles.drawing import CHANGED, OWN, WRONG, Cells, board_svg
from hrm_engine.inference import Segment, Trace

HALT = "#1a9850"
_FADED = 0.45
_PAD, _HEAD, _LINE = 8, 20, 15
_NARROWEST = 124  # so that the words beside small boards have room


@dataclass(frozen=True, eq=False)
class TracePictures:
    """Draws the moments of one trace.

    ``solution`` (C,), where it is known, lets wrong cells be marked. ``paper`` is the colour behind a picture, None for
    none; ``ink`` that of lines and given digits.
    """

    trace: Trace
    solution: Tokens | None = None
    side_px: float = 132
    ink: str = "#1c2733"
    paper: str | None = "#ffffff"

    @cached_property
    def region(self) -> Region:
        """The part of the board that holds more than padding at some moment."""
        boards = [self.trace.inputs, *(segment.prediction for segment in self.trace.segments)]
        return extent(boards, self.trace.height, self.trace.width)

    def moment(self, number: int) -> str:
        """The board at a moment, under its name, above its halting probability."""
        trace, segment = self.trace, self.trace.segments[number - 1] if number else None
        board = board_svg(
            trace.board,
            trace.inputs if segment is None else segment.prediction,
            trace.height,
            trace.width,
            given=trace.inputs,
            changed=None if segment is None else segment.changed,
            wrong=None if segment is None or self.solution is None else wrong_cells(segment, self.solution),
            region=self.region,
            side_px=self.side_px,
            ink=self.ink,
        )
        size = ElementTree.fromstring(board)
        wide, high = float(size.get("width", 0)), float(size.get("height", 0))
        inner = max(wide, _NARROWEST)
        parts = [
            _text(_PAD, _PAD + 11, self.name(number), size=13, weight=600),
            f'<g transform="translate({_PAD} {_PAD + _HEAD})">{board}</g>',
        ]
        bottom = _PAD + _HEAD + high + 8
        if segment is not None:
            place = f'x="{_PAD}" y="{bottom:.1f}" height="5" rx="2.5"'
            filled, colour = inner * segment.q_halt, HALT if segment.wants_to_halt else OWN
            parts.append(f'<rect {place} width="{inner:.1f}" fill-opacity="0.14"/>')
            parts.append(f'<rect {place} width="{filled:.1f}" fill="{colour}"/>')
        for line, (words, colour) in enumerate(self._words(segment)):
            parts.append(_text(_PAD, bottom + 20 + line * _LINE, words, size=11.5, fill=colour))
        content = "".join(parts)
        if self.trace.halted_at is not None and number > self.trace.halted_at:
            content = f'<g opacity="{_FADED}">{content}</g>'
        return self._svg(content, inner + 2 * _PAD, bottom + 24 + 2 * _LINE, self.described(number))

    def halting(self, number: int, *, wide: float = 250, high: float = 150) -> str:
        """Halting probabilities of all segments as columns, those up to a moment in full colour."""
        left, top, base = 30.0, 26.0, high - 24.0
        step = (wide - left) / len(self.trace.segments)
        parts = [_text(0, 12, "probability of halting", size=12)]
        for share in (0.0, 0.5, 1.0):
            y = base - share * (base - top)
            parts.append(f'<path d="M{left} {y:.1f}H{wide}" stroke="{self.ink}" stroke-opacity="0.25"/>')
            parts.append(_text(0, y + 4, f"{share:g}", size=10.5))
        every = 1 + len(self.trace.segments) // 16
        for segment in self.trace.segments:
            x, tall = left + (segment.number - 0.85) * step, segment.q_halt * (base - top)
            opacity = 1 if segment.number <= number else 0.3
            parts.append(
                f'<rect x="{x:.1f}" y="{base - tall:.1f}" width="{0.7 * step:.1f}" height="{max(tall, 1):.1f}" '
                f'fill="{HALT if segment.wants_to_halt else OWN}" fill-opacity="{opacity}"/>'
            )
            if segment.number % every == 0 or segment.number == 1:
                weight = 700 if segment.number == number else 400
                middle = x + 0.35 * step
                parts.append(_text(middle, base + 15, str(segment.number), size=10.5, weight=weight, anchor="middle"))
        return self._svg("".join(parts), wide, high, "probability of halting after each segment")

    def name(self, number: int) -> str:
        """Name of a moment."""
        return f"segment {number}" if number else "the puzzle"

    def described(self, number: int) -> str:
        """A moment in one line, for those who do not see the picture."""
        words = self._words(self.trace.segments[number - 1] if number else None)
        return ": ".join([self.name(number), ", ".join(text for text, _ in words)]).rstrip(": ")

    def _words(self, segment: Segment | None) -> list[tuple[str, str]]:
        if segment is None:
            return []
        count = int(segment.changed.sum())
        words = [(f"halt {segment.q_halt:.2f}, {count} changed", self.ink)]
        if self.solution is not None:
            wrong = int(wrong_cells(segment, self.solution).sum())
            words.append((f"{wrong} wrong", WRONG) if wrong else ("all right", HALT))
        if segment.number == self.trace.halted_at:
            words.append(("halts here", HALT))
        return words

    def _svg(self, content: str, wide: float, high: float, title: str) -> str:
        paper = f'<rect width="100%" height="100%" fill="{escape(self.paper)}"/>' if self.paper else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{wide:.0f}" height="{high:.0f}" '
            f'viewBox="0 0 {wide:.1f} {high:.1f}" fill="{escape(self.ink)}" '
            f'font-family="ui-sans-serif,system-ui,sans-serif"><title>{escape(title)}</title>{paper}{content}</svg>'
        )


def wrong_cells(segment: Segment, solution: Tokens) -> Cells:
    """(C,) cells in which a prediction differs from the solution; its padding, which no solver learns, aside."""
    wrong: Cells = (segment.prediction != solution) & (np.asarray(solution) != PAD)
    return wrong


def legend(*, solution: bool) -> list[tuple[str, str]]:
    """Colour and meaning of the marks in a picture."""
    marks = [(OWN, "by the solver"), (CHANGED, "changed in this segment")]
    return [*marks, (WRONG, "wrong")] if solution else marks


def _text(
    x: float, y: float, words: str, *, size: float, weight: int = 400, anchor: str = "start", fill: str | None = None
) -> str:
    colour = f' fill="{escape(fill)}"' if fill else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"{colour}>'
        f"{escape(words)}</text>"
    )
