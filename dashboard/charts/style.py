"""The one look of all figures: colours, axes, margins.

The colours are mid-tones on purpose: each has a contrast of at least 3 against both the light and the dark page, so a
figure needs no knowledge of the theme. The hues keep apart under the common colour-vision deficiencies (after Okabe
and Ito).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

BLUE = "#2b83c4"
ORANGE = "#d1651a"
GREEN = "#0f9d78"
PINK = "#c2699f"
GREY = "#868a91"
SERIES = (BLUE, ORANGE, GREEN, PINK, GREY)

# Ends and middles of the scale for ordered things (depth): cold is shallow, warm is deep.
_DEPTH_STOPS = ("#6d74c9", "#2b83c4", "#0f9d78", "#a3881a", "#d1651a")


@dataclass(frozen=True)
class XAxis:
    """The unit of the horizontal axis: its key in frames and links, its name for people, and its tick format."""

    key: str
    label: str
    title: str
    tickformat: str


SEGMENT = XAxis("segment", "Segment", "segment", "d")
STEP = XAxis("step", "Step", "optimizer step", ",d")
TIME = XAxis("time", "Wall time", "wall time since the start (min)", ",~r")
TOKENS = XAxis("tokens", "Tokens", "fresh label tokens", "~s")
ROWS = XAxis("rows", "Rows", "fresh rows", "~s")
X_AXES = {axis.key: axis for axis in (STEP, TIME, TOKENS, ROWS)}

# Longest span in seconds up to which a unit is used, the unit, and its seconds.
_TIME_UNITS = ((300.0, "s", 1.0), (3 * 3600.0, "min", 60.0), (4 * 86400.0, "h", 3600.0), (float("inf"), "d", 86400.0))


def time_axis(longest_s: float) -> tuple[XAxis, float]:
    """The wall-time axis for a span of ``longest_s`` seconds, and by how much seconds are divided on it."""
    for limit, unit, seconds in _TIME_UNITS:
        if longest_s <= limit:
            return replace(TIME, title=f"wall time since the start ({unit})"), seconds
    return TIME, 60.0


def depth_colours(number: int) -> list[str]:
    """One colour for each of ``number`` depths, shallow to deep, interpolated between fixed stops."""
    if number <= 1:
        return [BLUE][:number]
    last = len(_DEPTH_STOPS) - 1
    colours = []
    for index in range(number):
        position = index / (number - 1) * last
        left = min(int(position), last - 1)
        share = position - left
        pair = zip(_rgb(_DEPTH_STOPS[left]), _rgb(_DEPTH_STOPS[left + 1]), strict=True)
        colours.append("#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pair))
    return colours


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def faded(colour: str, opacity: float) -> str:
    """``#rrggbb`` as an ``rgba(...)`` of the given opacity."""
    red, green, blue = _rgb(colour)
    return f"rgba({red},{green},{blue},{opacity})"


_FEW_STEPS = 8
# Ticks of a logarithmic axis, and the decades over which their labels do not touch on 250 pixels. Left to itself plotly
# writes few between decades, and a loss seldom spans more than one.
_LOG_TICKS: tuple[tuple[str | int | None, float], ...] = (("D1", 1.0), ("D2", 5.0), (1, 15.0), (None, math.inf))


def figure(x: XAxis, y_title: str, *, log_y: bool = False, height: int = 380, y_format: str = "") -> go.Figure:
    """An empty figure with the house axes. Zoom survives redraws of the same axes (``uirevision``)."""
    title, formats = {"text": x.title}, {"tickformat": x.tickformat, "hoverformat": x.tickformat}
    y_axis: dict[str, Any] = {"title": {"text": y_title}, "type": "log" if log_y else "linear", "automargin": True}
    if y_format:
        y_axis |= {"tickformat": y_format, "hoverformat": y_format}
    if log_y:
        y_axis |= {"minor": {"showgrid": False}, "hoverformat": ".4~r", "tickformat": ".1~r"}
    layout = {  # all at once: each later change takes half a millisecond
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 36, "b": 8},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "title": None},
        "uirevision": f"{x.key}:{log_y}",
        "dragmode": "zoom",
        "xaxis": {"title": title, **formats, "zeroline": False},
        "yaxis": {**y_axis, "zeroline": False},
    }
    return go.Figure(layout=layout)


def add_line(
    drawn: go.Figure,
    xs: Sequence[Any],
    ys: Sequence[Any],
    name: str,
    colour: str,
    *,
    markers: bool = False,
    width: float = 2,
    dash: str = "solid",
    **extra: Any,
) -> None:
    """A line; a single point has a marker. ``extra`` goes to the trace (``opacity``, ``hovertemplate`` …)."""
    mode = "lines+markers" if markers or len(xs) == 1 else "lines"
    line = {"color": colour, "width": width, "dash": dash}
    drawn.add_trace(go.Scatter(x=list(xs), y=list(ys), name=name, mode=mode, line=line, connectgaps=False, **extra))


def add_mark(
    drawn: go.Figure, xs: Sequence[Any], ys: Sequence[Any], name: str, colour: str = GREY, **extra: Any
) -> None:
    """A dashed line to compare others with: a level, a diagonal, a moment."""
    add_line(drawn, xs, ys, name, colour, **{"width": 1.4, "dash": "dash", **extra})


def log_ticks(drawn: go.Figure) -> go.Figure:
    """As many labels on a logarithmic y axis as stand clear of each other: 1, 2, 3 ... over a decade, then 1, 2, 5."""
    if drawn.layout.yaxis.type == "log":
        values = [y for trace in drawn.data for y in (() if trace.y is None else trace.y) if y is not None and y > 0]
        decades = math.log10(max(values) / min(values)) if values else 0.0
        drawn.update_yaxes(dtick=next(ticks for ticks, most in _LOG_TICKS if decades <= most))
    return drawn


def whole_steps(drawn: go.Figure) -> go.Figure:
    """A tick at each of few steps: plotly would put some between them, and write the same number twice."""
    steps = {int(x) for trace in drawn.data for x in (() if trace.x is None else trace.x)}
    if len(steps) == 1:
        drawn.update_xaxes(tickvals=list(steps))
    elif steps and max(steps) - min(steps) <= _FEW_STEPS:
        drawn.update_xaxes(tick0=min(steps), dtick=1)
    return drawn


def add_band(
    drawn: go.Figure, xs: Sequence[Any], low: Sequence[Any], high: Sequence[Any], name: str, colour: str
) -> None:
    """The shaded range between ``low`` and ``high``."""
    edge: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": name}
    drawn.add_trace(go.Scatter(x=list(xs), y=list(low), showlegend=False, name=f"{name} low", **edge))
    drawn.add_trace(
        go.Scatter(x=list(xs), y=list(high), name=name, fill="tonexty", fillcolor=faded(colour, 0.18), **edge)
    )


CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "pan2d", "zoom2d"],
}
