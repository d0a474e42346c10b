"""Figures of one thinking: halting, cells, and the way of the latent states. Segments count from 1."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.charts import style

_HEIGHT = 300


def halting(q_halt: Sequence[float], q_continue: Sequence[float] | None, halted_at: int | None) -> go.Figure:
    """The halting head's probabilities after each segment, and where it stops by itself."""
    drawn = style.figure(style.SEGMENT, "probability", height=_HEIGHT, y_format=".1%")
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
    drawn = style.figure(style.SEGMENT, "cells", height=_HEIGHT)
    numbers = list(range(1, len(changed) + 1))
    drawn.add_trace(go.Bar(x=numbers, y=list(changed), name="changed", marker={"color": style.faded(style.BLUE, 0.55)}))
    if wrong is not None:
        style.add_line(drawn, numbers, wrong, "wrong", style.ORANGE, markers=True)
    drawn.update_yaxes(rangemode="tozero", tickformat=",d")
    return _spaced(drawn, len(numbers))


def latent_path(points: Sequence[Sequence[float]], name: str, shown: int) -> go.Figure:
    """The way of a latent state over the segments, on its two principal axes; segment ``shown`` is emphasised."""
    axis = style.XAxis("pca", name, "first principal axis", ".3~g")
    drawn = style.figure(axis, "second principal axis", height=_HEIGHT, y_format=".3~g")
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
