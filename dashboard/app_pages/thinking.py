"""A solver's thinking about one puzzle: boards beside each other, one for each segment, halting, latent states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard.app_pages.parts import chart, plain
from dashboard.charts import puzzles as charts
from dashboard.queries.bundles import Solver
from dashboard.resources import puzzle_bundle

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Puzzle, Region
    from hrm_engine.inference.puzzles.solve import Solutions
    from hrm_engine.inference.puzzles.trace import Trace

_MARKS = "Bold: given. Amber background: changed in this segment. Red with a corner: not as in the solution."
_COLOURED_MARKS = "Amber ring: changed in this segment. Red cross: not as in the solution."

LARGE_PX, SMALL_PX = 252, 112
# The colours of text in .streamlit/config.toml: a picture inherits none from the page.
_INK = {"light": "#22262b", "dark": "#e4e7ea"}


@dataclass(frozen=True, eq=False)
class Thought:
    """Result for a puzzle: segment by segment from the board as it is, and the answer of several starts, if any."""

    question: tuple[object, ...]
    solver: Solver
    puzzle: Puzzle
    trace: Trace
    solutions: Solutions | None = None
    starts: int = 1


def question(solver: Solver, puzzle: Puzzle, segments: int, starts: int) -> tuple[object, ...]:
    """Everything that a thought depends on: equal questions have the same answer."""
    return solver.id, solver.version, puzzle.inputs.tobytes(), puzzle.identifier, segments, starts


def think(solver: Solver, puzzle: Puzzle, *, segments: int, starts: int = 1) -> Thought:
    """Load the solver if need be and let it think, with a progress bar.

    Raises HRMError: the bundle cannot be loaded, or cannot take this puzzle or so many starts.
    """
    bar = st.progress(0.0, text="Loading the solver")
    try:
        from hrm_engine.inference.puzzles.solve import solve
        from hrm_engine.inference.puzzles.trace import Trace, watch

        bundle = puzzle_bundle(solver.path, solver.version)
        thoughts = []
        segments_of = watch(bundle, puzzle.inputs, identifier=puzzle.identifier, segments=segments, keep_states=True)
        for segment in segments_of:
            thoughts.append(segment)
            bar.progress(segment.number / segments, text=f"Segment {segment.number} of {segments}")
        card = bundle.card
        trace = Trace(card.board, card.height, card.width, puzzle.inputs, tuple(thoughts))
        solutions = None
        if starts > 1:
            bar.progress(1.0, text=f"{starts} starts")
            solutions = solve(
                bundle,
                puzzle.inputs[None],
                identifiers=None if puzzle.identifier is None else np.array([puzzle.identifier]),
                segments=segments,
                starts=starts,
                starts_from="symmetries" if solver.board.has_symmetries or solver.board.has_tasks else "noise",
            )
    finally:
        bar.empty()
    return Thought(question(solver, puzzle, segments, starts), solver, puzzle, trace, solutions, starts)


def show(thought: Thought) -> None:
    """The verdict, one segment large, all of them small, and the figures."""
    trace, puzzle, solver = thought.trace, thought.puzzle, thought.solver
    verdict(thought)
    last = len(trace.segments)
    number = trace.halted_at or last
    if last > 1:
        # Its own slider for each thought: another puzzle begins again where its thinking ends.
        number = st.slider("Segment", 1, last, number, key=f"segment {hash(thought.question)}")
    predictions = [segment.prediction for segment in trace.segments]
    # A young solver fills the whole of ARC's board; where the solution is known, what lies beyond it does not count.
    region = region_of(solver, [puzzle.inputs, *(predictions if puzzle.solution is None else [puzzle.solution])])
    shown = trace.segments[number - 1]
    large = [
        Board("Puzzle", puzzle.inputs),
        Board(f"After segment {number}", shown.prediction, shown.changed, puzzle.wrong(shown.prediction), True),
    ]
    if thought.solutions is not None:
        answer = thought.solutions.answers[0]
        large.append(Board(f"Answer of {thought.starts} starts", answer, wrong=puzzle.wrong(answer)))
    if puzzle.solution is not None:
        large.append(Board("Solution", puzzle.solution))
    boards(solver, puzzle, large, side_px=LARGE_PX, region=region)
    plain(_COLOURED_MARKS if solver.board.colours else _MARKS)
    st.subheader("All segments", anchor=False)
    small = [
        Board(
            f"{segment.number} · halt {segment.q_halt:.0%}",
            segment.prediction,
            segment.changed,
            puzzle.wrong(segment.prediction),
            segment.number == number,
        )
        for segment in trace.segments
    ]
    boards(solver, puzzle, small, side_px=SMALL_PX, region=region)
    figures(thought, number)


def verdict(thought: Thought) -> None:
    """In a line: whether it halts, follows the rules, and has the solution."""
    trace, puzzle = thought.trace, thought.puzzle
    last = len(trace.segments)
    with st.container(horizontal=True, vertical_alignment="center"):
        if trace.halted_at is None:
            st.badge(f"not sure enough to halt in {last} segments", color="gray")
        else:
            st.badge(f"halts by itself after segment {trace.halted_at} of {last}", color="blue")
        if trace.is_valid is not None:
            rules = "follows the rules" if trace.is_valid else "breaks the rules"
            st.badge(rules, color="green" if trace.is_valid else "red")
        wrong = puzzle.wrong(trace.answer)
        if wrong is None:
            st.badge("no solution to compare with", color="gray")
        elif not wrong.any():
            st.badge("equals the solution", color="green")
        else:
            cells = int(wrong.sum())
            st.badge(f"{cells} {'cell differs' if cells == 1 else 'cells differ'} from the solution", color="orange")
    if (answers := thought.solutions) is not None:
        halted = "the first to halt was" if answers.halted[0] else "none halted; the answer is of"
        rules = (
            "" if answers.is_valid is None else f", which {'follows' if answers.is_valid[0] else 'breaks'} the rules"
        )
        plain(
            f"{thought.starts} starts: {halted} start {int(answers.start[0]) + 1}, after {int(answers.depth[0])} of "
            f"its own segments and {int(answers.segments[0])} of all together{rules}."
        )
    if puzzle.warning:
        plain(f"Note: {puzzle.warning}.")


def figures(thought: Thought, number: int) -> None:
    """Halting, cells, and the way of both states."""
    trace, puzzle = thought.trace, thought.puzzle
    segments = trace.segments
    left, right = st.columns(2)
    with left:
        q_continue = [segment.q_continue for segment in segments if segment.q_continue is not None]
        q_halt = [segment.q_halt for segment in segments]
        figure = charts.halting(q_halt, q_continue or None, trace.halted_at)
        chart(figure, "halting", "Halting probabilities by segment", "Halting")
    with right:
        changed = [int(segment.changed.sum()) for segment in segments]
        marks = [puzzle.wrong(segment.prediction) for segment in segments]
        wrong = [int(mark.sum()) for mark in marks if mark is not None]
        figure, words = charts.cells(changed, wrong or None), "Cells that change, and that are wrong, by segment"
        chart(figure, "cells", words, "Cells changed and wrong")
    if len(segments) < 2:
        return
    from hrm_engine.inference.puzzles.trace import principal_components

    left, right = st.columns(2)  # another line: on a narrow page columns come one after the other
    for place, level, name in ((left, "z_h", "z_H, the slow state"), (right, "z_l", "z_L, the fast state")):
        with place:
            points = principal_components(trace.states(level)).tolist()
            figure = charts.latent_path(points, name, number)
            chart(figure, level, f"{name} on its principal axes, by segment", f"Way of {name}")
    plain("Mean over all positions, on the two axes along which it moves most. A path that comes to rest has settled.")


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
