"""Watch a solver think: a slider over the segments of a trace."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.data.puzzles.board import Puzzle, Tokens
from hrm_engine.data.puzzles.drawing import data_uri
from hrm_engine.inference import Trace, trace
from lab.widgets.trace_pictures import TracePictures, legend
from lab.widgets.trace_text import trace_text

_LIVE_PX = 300
_INTERVAL_MS = 900


class TraceViewer(ipywidgets.VBox):  # type: ignore[misc]
    """A trace with a slider; the last cell of a notebook cell shows it.

    All moments are drawn when it is made and linked to the slider in the browser, so it moves without a kernel too: in
    a notebook that ran in a batch and is opened afterwards. Pages made from notebooks have no widgets; there, all
    moments stand side by side as pictures, and where only text is shown, as text.

    Args:
        trace: the moments; 0 is the board as given.
        solution: (C,) tokens of the right answer, where it is known; wrong cells are marked.

    Raises:
        ValueError: a solution of another number of cells.
    """

    def __init__(self, trace: Trace, *, solution: Tokens | None = None) -> None:
        if solution is not None and np.shape(solution) != trace.inputs.shape:
            raise ValueError(f"a solution of shape {np.shape(solution)}; the board has {trace.inputs.size} cells")
        self.trace, self.solution = trace, solution
        live = TracePictures(trace, solution, side_px=_LIVE_PX, ink="currentColor", paper=None)
        last = len(trace.segments)
        moments = [ipywidgets.HTML(_side_by_side(live.moment(at), live.halting(at))) for at in range(last + 1)]
        self.slider = ipywidgets.IntSlider(
            value=1, min=0, max=last, description="segment", layout=ipywidgets.Layout(width="360px")
        )
        self.stack = ipywidgets.Stack(moments, selected_index=1)
        play = ipywidgets.Play(value=1, min=0, max=last, interval=_INTERVAL_MS, show_repeat=False)
        # In the browser, not by observing in Python: a notebook opened after its batch run has no kernel.
        self.links = (
            ipywidgets.jslink((play, "value"), (self.slider, "value")),
            ipywidgets.jslink((self.slider, "value"), (self.stack, "selected_index")),
        )
        marks = ipywidgets.HTML(_legend(solution is not None))
        super().__init__([ipywidgets.HBox([play, self.slider]), self.stack, marks])

    @classmethod
    def watch(cls, solver: PuzzleBundle, puzzle: Puzzle, *, segments: int | None = None) -> TraceViewer:
        """The viewer of a solver that thinks about a puzzle for ``segments``, by default as many as in training."""
        thinking = trace(solver, puzzle.inputs, identifier=puzzle.identifier, segments=segments, keep_states=True)
        return cls(thinking, solution=puzzle.solution)

    def still(self) -> str:
        """All moments as HTML without scripts: pictures with their description."""
        drawn = TracePictures(self.trace, self.solution)
        pictures = (
            f'<img src="{data_uri(drawn.moment(at))}" alt="{drawn.described(at)}" title="{drawn.described(at)}">'
            for at in range(len(self.trace.segments) + 1)
        )
        return f"<div>{' '.join(pictures)}</div>{_legend(self.solution is not None)}"

    def text(self) -> str:
        """The moments until it halts, as plain text."""
        return trace_text(self.trace, solution=self.solution)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/html": self.still(), "text/plain": self.text()}


def _side_by_side(*pictures: str) -> str:
    return f'<div style="display: flex; flex-wrap: wrap; gap: 16px; line-height: 0">{"".join(pictures)}</div>'


def _legend(has_solution: bool) -> str:
    marks = (f'<span style="color: {colour}">&#9632;</span> {words}' for colour, words in legend(solution=has_solution))
    return f"<p>{' &nbsp; '.join(marks)}</p>"
