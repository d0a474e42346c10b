"""Figures of the training rows, loss, throughput, learning rate, gradient norm, and of the machine that trains.

Frames of curves are long, as ``dashboard.queries.metrics`` makes them: ``name``, ``x`` (steps, tokens, or seconds since
the first row), ``min``, ``max``, ``last``, ``count``; one row for each metric and bucket.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import style

_LOSS = "%{y:.4~r}"
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def axis_for(x: str, *frames: pd.DataFrame) -> tuple[style.XAxis, float]:
    """The axis named ``x`` (an unknown name: steps) for these frames, and what their ``x`` is divided by on it."""
    axis = style.X_AXES.get(x, style.STEP)
    if axis is not style.TIME:
        return axis, 1.0
    spans = [float(frame["x"].max()) for frame in frames if frame["x"].notna().any()]
    return style.time_axis(max(spans, default=0.0))


def loss_curve(
    train: pd.DataFrame,
    evaluation: pd.DataFrame,
    *,
    x: str = "step",
    smooth: pd.Series | None = None,
    smoothing_steps: int = 0,
    log_y: bool = False,
    unit_name: str = "nats/token",
) -> go.Figure:
    """Training loss with its range and its smoothed course, validation loss, and the unigram model's loss.

    ``train`` is the curve ``loss`` alone, ``smooth`` its smoothed course with the same index; ``evaluation`` has the
    columns ``x``, ``loss``, ``unigram_loss`` (of text). Losses are in ``unit_name``.
    """
    axis, unit = axis_for(x, train, evaluation)
    drawn = style.figure(axis, f"loss ({unit_name})", log_y=log_y, height=460, y_format=",.3~f")
    if len(train):
        xs = train["x"] / unit
        if (train["max"] > train["min"]).any():
            style.add_band(drawn, xs, train["min"], train["max"], "range", style.BLUE)
        colour = style.BLUE if smooth is None else style.faded(style.BLUE, 0.5)
        width = 2 if smooth is None else 1
        style.add_line(drawn, xs, train["last"], "training", colour, width=width, hovertemplate=_LOSS)
        if smooth is not None:
            name = f"training, smoothed over {smoothing_steps:,} steps"
            style.add_line(drawn, xs, smooth, name, style.BLUE, hovertemplate=_LOSS)
    if len(evaluation):
        xs = evaluation["x"] / unit
        style.add_line(drawn, xs, evaluation["loss"], "validation", style.ORANGE, markers=True, hovertemplate=_LOSS)
        add_unigram(drawn, evaluation, unit, reach=train)
    return style.log_ticks(drawn)


def add_unigram(drawn: go.Figure, evaluation: pd.DataFrame, unit: float, reach: pd.DataFrame | None = None) -> None:
    """The unigram model's loss as a dashed line over all of ``evaluation`` (and ``reach``)."""
    if "unigram_loss" not in evaluation:
        return
    known = evaluation[evaluation["unigram_loss"].notna()]
    if known.empty:
        return
    ends = [evaluation["x"].min(), evaluation["x"].max()]
    if reach is not None and len(reach):
        ends = [min(ends[0], reach["x"].min()), max(ends[1], reach["x"].max())]
    level = float(known["unigram_loss"].iloc[-1])
    style.add_mark(drawn, [end / unit for end in ends], [level, level], "unigram model", hovertemplate=_LOSS)


def lines(
    frame: pd.DataFrame,
    series: Mapping[str, str],
    y_title: str,
    *,
    x: str = "step",
    y_format: str = "",
    height: int = 320,
    divisor: float = 1.0,
) -> go.Figure:
    """Several curves of the same unit; ``series`` is metric to name, values are divided by ``divisor``.

    Metrics that were not measured are left out.
    """
    axis, unit = axis_for(x, frame)
    drawn = style.figure(axis, y_title, height=height, y_format=y_format)
    shown = [(name, frame[frame["name"] == metric]) for metric, name in series.items()]
    shown = [(name, curve) for name, curve in shown if len(curve)]
    for (name, curve), colour in zip(shown, style.SERIES, strict=False):
        xs = curve["x"] / unit
        if (curve["max"] > curve["min"]).any():
            style.add_band(drawn, xs, curve["min"] / divisor, curve["max"] / divisor, f"{name}, range", colour)
        style.add_line(drawn, xs, curve["last"] / divisor, name, colour)
    if len(shown) == 1:
        drawn.update_layout(showlegend=False, margin={"t": 12})
    return style.whole_steps(drawn) if x == "step" else drawn


def shares(frame: pd.DataFrame, series: Mapping[str, str]) -> go.Figure:
    """Percentages from 0 to 100; ``series`` is metric to name, unmeasured ones are left out."""
    drawn = lines(frame, series, "use (%)", x="time", y_format=".0f", height=300)
    drawn.update_yaxes(range=[0, 102])
    return drawn


def sizes(frame: pd.DataFrame, series: Mapping[str, str], y_title: str) -> go.Figure:
    """Bytes, in the decimal unit that suits the largest value."""
    largest = frame.loc[frame["name"].isin(list(series)), "max"].max()
    divisor, unit = next(((size, name) for size, name in _UNITS if largest >= size), (1.0, "B"))
    title = f"{y_title} ({unit})"
    drawn = lines(frame, series, title, x="time", y_format=",.3~r", height=300, divisor=divisor)
    drawn.update_yaxes(rangemode="tozero")
    return drawn
