"""One row of a puzzle dataset: the puzzle beside its solution, as ``lab data show`` draws it in a terminal."""

from __future__ import annotations

from hrm_engine.data.puzzles.board import extent
from hrm_engine.data.puzzles.drawing import board_svg, data_uri
from hrm_engine.data.puzzles.format import PuzzleDataset
from lab.cli.board_view import board_lines
from lab.widgets.trace_text import beside

_SIDE_PX = 180
# An image knows nothing of the page around it, light or dark: it brings its own paper.
_INK, _PAPER = "#1c2733", "#ffffff"


class PuzzleView:
    """Pictures of row ``index`` of a dataset, text where there are none. Raises DataError: there is no such row."""

    def __init__(self, dataset: PuzzleDataset, index: int = 0) -> None:
        part, row = dataset.row(index)
        self._about = dataset.about
        self._boards = {"puzzle": part.inputs[row], "solution": part.labels[row]}
        self._region = extent(list(self._boards.values()), self._about.height, self._about.width)

    def _repr_html_(self) -> str:
        about, pictures = self._about, []
        colours = {"ink": _INK, "paper": _PAPER}
        shared = {"given": self._boards["puzzle"], "region": self._region, "side_px": _SIDE_PX, **colours}
        for name, board in self._boards.items():
            svg = board_svg(about.board, board, about.height, about.width, title=name, **shared)
            pictures.append(f'<img src="{data_uri(svg)}" alt="{name}" title="{name}">')
        return f"<div>{' &nbsp; '.join(pictures)}</div>"

    def __repr__(self) -> str:
        about, shape = self._about, (self._about.height, self._about.width)
        drawn = {name: board_lines(about.board, board, shape, self._region) for name, board in self._boards.items()}
        return beside([[name, *(line.plain for line in lines)] for name, lines in drawn.items()])
