"""Figures of solvers: of an evaluation, and of one thinking about a puzzle (halting, cells, way of the states).

Frames as ``dashboard.queries.puzzles`` makes them; shares are from 0 to 1, segments count from 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import style
from dashboard.charts.training import axis_for

_HEIGHT = 320
# Two standard deviations: the interval that holds the true share in 95 of 100 evaluations.
_Z = 1.96


def by_difficulty(by_rating: pd.DataFrame, names: Sequence[str]) -> go.Figure:
    """Share of exactly solved puzzles for each group of difficulties, with its 95 % interval (Wilson's)."""
    drawn = style.figure(style.XAxis("rating", "Rating", "difficulty rating", ""), "exactly solved", height=_HEIGHT)
    shares, counts = by_rating["exact"].tolist(), by_rating["count"].tolist()
    ends = [wilson(share, count) for share, count in zip(shares, counts, strict=True)]
    drawn.add_trace(
        go.Bar(
            x=list(names),
            y=shares,
            name="exactly solved",
            marker={"color": style.BLUE},
            customdata=counts,
            hovertemplate="%{y:.1%} of %{customdata:,} puzzles",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [high - share for (_, high), share in zip(ends, shares, strict=True)],
                "arrayminus": [share - low for (low, _), share in zip(ends, shares, strict=True)],
                "color": style.GREY,
                "thickness": 1.4,
                "width": 4,
            },
        )
    )
    drawn.update_xaxes(type="category")
    drawn.update_yaxes(range=[0, 1.04], tickformat=".0%")
    drawn.update_layout(showlegend=False, margin={"t": 12}, bargap=0.35 if len(names) > 3 else 0.8)
    return drawn


def segments_used(by_segments: pd.DataFrame) -> go.Figure:
    """Number of puzzles that halt after each segment, and of right answers among them."""
    drawn = style.figure(style.XAxis("segments", "Segments", "segments until it halts", "d"), "puzzles", height=_HEIGHT)
    wrong = by_segments["count"] - by_segments["exact"]
    for name, values, colour in (("right", by_segments["exact"], style.BLUE), ("wrong", wrong, style.ORANGE)):
        drawn.add_trace(
            go.Bar(
                x=by_segments["segments"].tolist(),
                y=values.tolist(),
                name=name,
                marker={"color": colour},
                width=0.7,
                hovertemplate="%{y:,}",
            )
        )
    most = int(by_segments["segments"].max()) if len(by_segments) else 1
    drawn.update_layout(barmode="stack", bargap=0.3, legend={"traceorder": "normal"})
    drawn.update_xaxes(range=[0.4, most + 0.6], dtick=1 if most <= 24 else None)
    return drawn


def by_segment(exact: Sequence[float], cells: Sequence[float], baselines: Mapping[str, float]) -> go.Figure:
    """Accuracy after each segment; ``baselines`` (name to cell accuracy) as dashed lines."""
    drawn = style.figure(style.SEGMENT, "accuracy", height=_HEIGHT, y_format=".1%")
    numbers = list(range(1, max(len(exact), len(cells)) + 1))
    for name, values, colour in (("exact", exact, style.BLUE), ("cells", cells, style.GREEN)):
        style.add_line(drawn, numbers[: len(values)], values, name, colour, markers=True)
    for (name, level), dash in zip(baselines.items(), ("dash", "dot", "dashdot"), strict=False):
        ends = [numbers[0], numbers[-1]] if len(numbers) > 1 else [0.5, 1.5]
        style.add_mark(drawn, ends, [level, level], f"cells, {name}", dash=dash)
    drawn.update_yaxes(range=[0, 1.04], tickformat=".0%")
    drawn.update_xaxes(dtick=1 if len(numbers) <= 24 else None)
    return drawn


def calibration(bins: pd.DataFrame) -> go.Figure:
    """Halting confidence against the share of right answers; the diagonal is perfect calibration."""
    axis = style.XAxis("confidence", "Confidence", "halting confidence after the last segment", ".0%")
    drawn = style.figure(axis, "exactly solved", height=_HEIGHT, y_format=".1%")
    style.add_mark(drawn, [0, 1], [0, 1], "perfectly calibrated", hoverinfo="skip")
    largest = max(float(bins["count"].max()), 1.0) if len(bins) else 1.0
    style.add_line(
        drawn,
        bins["confidence"],
        bins["exact"],
        "puzzles by confidence",
        style.BLUE,
        markers=True,
        marker={"size": [7 + 19 * math.sqrt(count / largest) for count in bins["count"]], "opacity": 0.85},
        customdata=bins["count"].tolist(),
        hovertemplate="%{y:.1%} of %{customdata:,} puzzles",
    )
    drawn.update_xaxes(range=[-0.04, 1.04])
    drawn.update_yaxes(range=[-0.04, 1.08], tickformat=".0%")
    return drawn


def accuracies(train: pd.DataFrame, evaluation: pd.DataFrame, series: Mapping[str, str], *, x: str) -> go.Figure:
    """Accuracies over the training: rows that halted in training thin, evaluations with markers.

    ``train`` is a frame of curves, ``evaluation`` has a row for each evaluation; ``series`` is column to name.
    """
    axis, unit = axis_for(x, train, evaluation)
    drawn = style.figure(axis, "accuracy", height=360, y_format=".1%")
    for (metric, name), colour in zip(series.items(), style.SERIES, strict=False):
        curve = train[train["name"] == metric]
        if len(curve):
            xs, faded = curve["x"] / unit, style.faded(colour, 0.55)
            style.add_line(drawn, xs, curve["last"], f"{name}, training", faded, width=1.2)
        rows = evaluation[evaluation[metric].notna()]
        if len(rows):
            style.add_line(drawn, rows["x"] / unit, rows[metric], f"{name}, validation", colour, markers=True)
    drawn.update_yaxes(range=[0, 1.04], tickformat=".0%")
    return drawn


def wilson(share: float, count: float) -> tuple[float, float]:
    """Ends of the 95 % interval of a share seen in ``count`` cases (Wilson, 1927)."""
    if count <= 0:
        return 0.0, 1.0
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, min(middle - reach, share)), min(1.0, max(middle + reach, share))


def halting(q_halt: Sequence[float], q_continue: Sequence[float] | None, halted_at: int | None) -> go.Figure:
    """The halting head's probabilities after each segment, and where it stops by itself."""
    drawn = style.figure(style.SEGMENT, "probability", height=300, y_format=".1%")
    numbers = list(range(1, len(q_halt) + 1))
    style.add_line(drawn, numbers, q_halt, "halt", style.BLUE, markers=True)
    if q_continue is not None:
        style.add_line(drawn, numbers, q_continue, "continue", style.ORANGE, markers=True)
    if halted_at is not None:
        style.add_mark(drawn, [halted_at, halted_at], [0, 1], "halts here", style.GREEN, hoverinfo="skip")
    drawn.update_yaxes(range=[-0.03, 1.05], tickformat=".0%")
    return _spaced(drawn, len(numbers))


def cells(changed: Sequence[int], wrong: Sequence[int] | None) -> go.Figure:
    """Number of cells that each segment changes and, if the solution is known, of wrong cells after it."""
    drawn = style.figure(style.SEGMENT, "cells", height=300)
    numbers = list(range(1, len(changed) + 1))
    drawn.add_trace(go.Bar(x=numbers, y=list(changed), name="changed", marker={"color": style.faded(style.BLUE, 0.55)}))
    if wrong is not None:
        style.add_line(drawn, numbers, wrong, "wrong", style.ORANGE, markers=True)
    drawn.update_yaxes(rangemode="tozero", tickformat=",d")
    return _spaced(drawn, len(numbers))


def latent_path(points: Sequence[Sequence[float]], name: str, shown: int) -> go.Figure:
    """The way of a latent state over the segments, on its two principal axes; segment ``shown`` is emphasised."""
    axis = style.XAxis("pca", name, "first principal axis", ".3~g")
    drawn = style.figure(axis, "second principal axis", height=300, y_format=".3~g")
    xs, ys = [float(point[0]) for point in points], [float(point[1]) for point in points]
    numbers = [str(number) for number in range(1, len(points) + 1)]
    colours = style.depth_colours(len(points))
    style.add_line(drawn, xs, ys, name, style.faded(style.GREY, 0.6), width=1.4, hoverinfo="skip")
    labelled = _labelled(xs, ys, shown)
    drawn.add_trace(
        go.Scatter(
            x=xs,
            y=ys,
            name="segment",
            mode="markers+text",
            text=[number if int(number) in labelled else "" for number in numbers],
            textposition="top center",
            customdata=numbers,
            hovertemplate="segment %{customdata}<extra></extra>",
            marker={
                "color": colours,
                "size": [14 if int(number) == shown else 8 for number in numbers],
                "line": {"width": [2 if int(number) == shown else 0 for number in numbers], "color": style.GREY},
            },
        )
    )
    drawn.update_layout(showlegend=False, hovermode="closest", margin={"t": 16})
    for values, update in ((xs, drawn.update_xaxes), (ys, drawn.update_yaxes)):
        # The same scale would flatten most paths; some air keeps the labels inside. A state that stays is one point.
        reach = (max(values) - min(values)) or 1.0
        update(range=[min(values) - 0.15 * reach, max(values) + 0.2 * reach])
    return drawn


def maze_board(
    tokens: Sequence[int], height: int, width: int, colours: Sequence[str], names: Sequence[str]
) -> go.Figure:
    """A maze as squares that can be clicked; ``colours`` and ``names`` by token. Points come in reading order."""
    side = max(6.0, min(26.0, 400 / max(height, width)))
    drawn = go.Figure(
        go.Scatter(
            x=[place % width for place in range(height * width)],
            y=[place // width for place in range(height * width)],
            mode="markers",
            marker={
                "symbol": "square",
                "size": side,
                "color": [colours[token] for token in tokens],
                "line": {"width": 0.5, "color": style.GREY},
            },
            text=[names[token] for token in tokens],
            hovertemplate="row %{y}, column %{x}: %{text}<extra></extra>",
            # Streamlit fades what is not selected; here nothing stays selected.
            unselected={"marker": {"opacity": 1}},
        )
    )
    drawn.update_layout(
        height=int(side * 1.12 * height) + 30,
        width=int(side * 1.12 * width) + 30,
        margin={"l": 4, "r": 4, "t": 4, "b": 4},
        dragmode=False,
        clickmode="event+select",
        showlegend=False,
        plot_bgcolor="rgba(0,0,0,0)",
    )
    drawn.update_xaxes(visible=False, range=[-0.7, width - 0.3], fixedrange=True)
    drawn.update_yaxes(visible=False, range=[height - 0.3, -0.7], fixedrange=True)
    return drawn


def _labelled(xs: Sequence[float], ys: Sequence[float], shown: int) -> set[int]:
    """Segments whose numbers do not cover each other; the shown, the first and the last come first."""
    wide, high = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    labelled: list[int] = []
    for number in dict.fromkeys([shown, 1, len(xs), *range(1, len(xs) + 1)]):
        x, y = xs[number - 1], ys[number - 1]
        if all(abs(x - xs[at - 1]) > 0.06 * wide or abs(y - ys[at - 1]) > 0.09 * high for at in labelled):
            labelled.append(number)
    return set(labelled)


def _spaced(drawn: go.Figure, number: int) -> go.Figure:
    drawn.update_xaxes(range=[0.5, number + 0.5], dtick=1 if number <= 24 else None)
    return drawn
