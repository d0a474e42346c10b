"""Paths of a solver's latent states while it thinks."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hrm_engine.inference import Trace, principal_components

PLOTLY_MIME = "application/vnd.plotly.v1+json"
_HALT = "#1a9850"
_LEVELS = (("z_h", "z<sub>H</sub>, the slow state", "#1f5f99"), ("z_l", "z<sub>L</sub>, the fast state", "#b3541e"))


class LatentView:
    """The path of z_H and z_L over the segments of a trace, each on its two principal axes.

    The states are averaged over the board first, unless ``by_position``: then moves of single cells that cancel out in
    the mean show too. A path that comes to rest has settled on an answer, right or wrong; the ring marks the
    segment at which the solver halts.

    Raises:
        ValueError: the trace was made without ``keep_states=True``.
    """

    def __init__(self, trace: Trace, *, by_position: bool = False) -> None:
        self.trace = trace
        self.paths = {
            level: principal_components(trace.states(level), by_position=by_position) for level, _, _ in _LEVELS
        }
        self.figure = self._drawn()

    def _drawn(self) -> go.Figure:
        figure = make_subplots(rows=1, cols=2, subplot_titles=[title for _, title, _ in _LEVELS])
        numbers = [segment.number for segment in self.trace.segments]
        halted_at = self.trace.halted_at
        for column, (level, _, colour) in enumerate(_LEVELS, start=1):
            path = self.paths[level]
            figure.add_scatter(
                x=path[:, 0].tolist(),
                y=path[:, 1].tolist(),
                mode="lines+markers+text",
                text=[str(number) for number in numbers],
                textposition="top center",
                hovertemplate="after segment %{text}<extra></extra>",
                line={"color": colour, "width": 1.2},
                marker={
                    "size": [15 if number == halted_at else 9 for number in numbers],
                    "color": numbers,
                    "colorscale": [[0, "#dfe7ee"], [1, colour]],
                    "line": {
                        "color": [_HALT if number == halted_at else colour for number in numbers],
                        "width": [3 if number == halted_at else 1 for number in numbers],
                    },
                },
                showlegend=False,
                row=1,
                col=column,
            )
        figure.update_xaxes(title="first principal axis", zeroline=False)
        figure.update_yaxes(title="second principal axis", zeroline=False, col=1)
        figure.update_layout(
            template="plotly_white", height=380, margin={"l": 60, "r": 20, "t": 40, "b": 50}, font={"size": 12}
        )
        return figure

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        rows = [
            f"{level} after segment {segment.number}: {x:+.3f} {y:+.3f}"
            for level, path in self.paths.items()
            for segment, (x, y) in zip(self.trace.segments, path.tolist(), strict=True)
        ]
        return {PLOTLY_MIME: json.loads(self.figure.to_json()), "text/plain": "\n".join(rows)}
