"""Figures of the evaluations: the gain of each further segment, and its course over the training.

``depths`` frames have one row for each evaluation and segment: ``x``, ``step``, ``segment`` (from 1), ``loss``
(nats per token), ``token_accuracy``; of puzzle solvers ``exact_accuracy``, ``cell_accuracy`` (shares).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import style
from dashboard.charts.training import add_unigram, axis_for

_ACCURACY = (".0%", ".1%", 100.0, "%{y:+.2f}")
# Titles of a metric and of its change; formats of the axis and of points; factor and format of a change.
_LOOKS = {
    "loss": ("validation loss (nats/token)", "change of the loss (nats/token)", ",.3~f", ",.3f", 1.0, "%{y:+.4f}"),
    "token_accuracy": ("token accuracy", "change of the accuracy (points)", *_ACCURACY),
    "exact_accuracy": ("exactly solved", "change of the exactly solved (points)", *_ACCURACY),
    "cell_accuracy": ("cell accuracy", "change of the cell accuracy (points)", *_ACCURACY),
}


def by_depth(
    depths: pd.DataFrame, metric: str, *, x: str = "step", log_y: bool = False, evaluation: pd.DataFrame | None = None
) -> go.Figure:
    """``metric`` (``loss`` or an accuracy) of every segment over the training; the unigram loss if given."""
    frames = [depths] if evaluation is None else [depths, evaluation]
    axis, unit = axis_for(x, *frames)
    title, _, y_format, hover, _, _ = _LOOKS[metric]
    drawn = style.figure(axis, title, log_y=log_y, height=360, y_format=y_format)
    segments = sorted(depths["segment"].unique())
    for segment, colour in zip(segments, style.depth_colours(len(segments)), strict=True):
        rows = depths[depths["segment"] == segment]
        deepest = segment == segments[-1]
        style.add_line(
            drawn,
            rows["x"] / unit,
            rows[metric],
            f"segment {segment}",
            colour,
            markers=True,
            width=2.5 if deepest else 1.5,
            marker={"size": 6 if deepest else 4},
            hovertemplate=f"%{{y:{hover}}}",
        )
    if evaluation is not None and metric == "loss" and len(evaluation):
        add_unigram(drawn, evaluation, unit)
    return style.log_ticks(drawn)


def curves(evaluation: pd.DataFrame, names: Mapping[str, str], y_title: str, *, x: str, hover: str) -> go.Figure:
    """Fields of the evaluations over the training; ``names`` is field to name of the curve, ``hover`` a format."""
    axis, unit = axis_for(x, evaluation)
    drawn = style.figure(axis, y_title, height=320)
    for (field, name), colour in zip(names.items(), style.SERIES, strict=False):
        rows, template = evaluation[evaluation[field].notna()], f"%{{y:{hover}}}"
        if len(rows):
            style.add_line(drawn, rows["x"] / unit, rows[field], name, colour, markers=True, hovertemplate=template)
    return style.whole_steps(drawn) if x == "step" else drawn


def depth_gain(depths: pd.DataFrame, metric: str) -> go.Figure:
    """Change of each further segment against the first, at some evaluations from the first to the last.

    Differences in nats per token (``loss``) or percentage points (accuracies).
    """
    _, title, _, _, factor, hover = _LOOKS[metric]
    drawn = style.figure(style.SEGMENT, title, height=320)
    steps = sorted(depths["step"].unique())
    chosen = sorted({steps[round(share * (len(steps) - 1))] for share in (0, 1 / 3, 2 / 3, 1)})
    for step, colour in zip(chosen, style.depth_colours(len(chosen)), strict=True):
        rows = depths[depths["step"] == step].sort_values("segment")
        change = factor * (rows[metric] - rows[metric].iloc[0])
        last = step == chosen[-1]
        style.add_line(
            drawn,
            rows["segment"],
            change,
            f"step {int(step):,}",
            colour,
            markers=True,
            width=2.5 if last else 1.5,
            hovertemplate=hover,
        )
    drawn.update_xaxes(dtick=1 if depths["segment"].nunique() <= 12 else None)
    return drawn
