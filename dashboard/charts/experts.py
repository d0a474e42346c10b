"""Figures of experts: their tree, the course of a training, and the routing of tokens.

Frames as ``dashboard.queries.experts`` and ``dashboard.queries.routing`` make them; shares are from 0 to 1. Names of
layers and experts come from files, and plotly reads tags in texts: they are escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import style

EVEN_ENTROPY = 0.9
"""Entropy, as a share of its maximum, below which some experts get far too little."""
MANY_EXPERTS = 12
"""Up to so many experts have a line each; more are shown as a map."""
_ROW_PX = 30
_HEIGHT = 300
# As the chips of tables: the ends are pale enough for dark numbers on them, and seen on a light and on a dark page.
_SCALE = [[0.0, "#ced3da"], [0.5, "#93bee2"], [1.0, "#3a90d4"]]
_INK = "#22262b"
_PALE = "#dcdfe4"
_BAR = {"tickformat": ".2~%", "thickness": 12, "outlinewidth": 0}
_WRITTEN_CELLS = 16


def family_tree(tree: pd.DataFrame, chosen: str) -> go.Figure:
    """Parents with their children below them, each one row; a point's ``customdata`` is the expert's id."""
    ids = [str(expert_id) for expert_id in tree["expert_id"]]
    place = {expert_id: at for at, expert_id in enumerate(ids)}
    depths = [int(depth) for depth in tree["depth"]]
    drawn = go.Figure()
    xs: list[float | None] = []
    ys: list[float | None] = []
    for at, parent in enumerate(tree["parent_expert_id"]):
        above = place.get(parent) if isinstance(parent, str) else None
        if above is not None:
            xs += [depths[above], depths[above], depths[at], None]
            ys += [above, at, at, None]
    line = {"color": style.faded(style.GREY, 0.7), "width": 1.3}
    drawn.add_trace(go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    states = [", ".join(name for name in state if name != "active") or "active" for state in tree["state"]]
    for state, colour, symbol in _STATES:
        rows = [at for at, other in enumerate(states) if other == state]
        if not rows:
            continue
        drawn.add_trace(
            go.Scatter(
                x=[depths[at] for at in rows],
                y=rows,
                name=state,
                mode="markers+text",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "opacity": 1,
                    "size": [15 if ids[at] == chosen else 11 for at in rows],
                    "line": {"width": 2, "color": style.GREY if colour == _PALE else colour},
                },
                text=[f" <b>{escape(ids[at])}</b>" if ids[at] == chosen else f" {escape(ids[at])}" for at in rows],
                textposition="middle right",
                customdata=[ids[at] for at in rows],
                hovertext=[escape(str(tree["name"].iloc[at]) or ids[at]) for at in rows],
                hovertemplate="%{hovertext}<extra></extra>",
                unselected={"marker": {"opacity": 1}},
                cliponaxis=False,
            )
        )
    # The longest name decides how much room stands right of the deepest points.
    deepest, longest = max(depths, default=0), max(map(len, ids), default=0)
    drawn.update_layout(
        height=_ROW_PX * len(ids) + 54,
        margin={"l": 4, "r": 4, "t": 34, "b": 4},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "title": None},
        showlegend=True,
        dragmode=False,
        clickmode="event+select",
        hovermode="closest",
    )
    drawn.update_xaxes(visible=False, fixedrange=True, range=[-0.3, deepest + 0.6 + 0.13 * longest])
    drawn.update_yaxes(visible=False, fixedrange=True, range=[len(ids) - 0.4, -0.6])
    return drawn


_STATES = (
    ("active", style.BLUE, "circle"),
    ("frozen", style.GREEN, "square"),
    ("inactive", _PALE, "circle"),
    ("inactive, frozen", _PALE, "square"),
)


def usage_map(
    cells: pd.DataFrame, layers: Sequence[str], highest: float, names: Mapping[tuple[str, int], str]
) -> go.Figure:
    """Share of a layer's tokens that each expert got at one step: layers by experts, blank where there is no expert.

    ``highest`` is the share at the end of the colour scale: the same for all steps, so that they can be compared.
    ``names`` has the ids of attached experts by layer and column.
    """
    number = int(cells["expert"].max()) + 1 if len(cells) else 1
    row_of = {layer: at for at, layer in enumerate(layers)}
    shares: list[list[float | None]] = [[None] * number for _ in layers]
    notes = [[""] * number for _ in layers]
    for layer, expert, tokens, share, probability in cells[
        ["layer", "expert", "tokens", "share", "probability"]
    ].itertuples(index=False):
        shares[row_of[layer]][int(expert)] = None if share != share else float(share)
        routed = "" if probability != probability else f"<br>mean routing probability {probability:.1%}"
        named = f"<br>{escape(names[layer, int(expert)])}" if (layer, int(expert)) in names else ""
        notes[row_of[layer]][int(expert)] = f"{tokens:,.0f} tokens{routed}{named}"
    is_small = number <= _WRITTEN_CELLS
    axis = style.XAxis("expert", "Expert", "expert", "d")
    drawn = style.figure(axis, "layer", height=44 * len(layers) + 110)
    _add_map(
        drawn,
        "layer %{y}, expert %{x}: %{z:.1%}<br>%{customdata}",
        z=shares,
        x=list(range(number)),
        y=[escape(layer) for layer in layers],
        customdata=notes,
        zmax=highest or 1.0,
        xgap=2,
        ygap=2,
        texttemplate="%{z:.0%}" if is_small else None,
        textfont={"color": _INK},
        hoverongaps=False,
    )
    drawn.update_xaxes(dtick=1 if number <= 32 else None, showgrid=False)
    drawn.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return drawn


def token_shares(cells: pd.DataFrame, names: Mapping[tuple[str, int], str]) -> go.Figure:
    """Share of one layer's tokens that each expert got, over the training: lines, or a map if they are many.

    ``names`` has the ids of attached experts by layer and column.
    """
    experts = sorted({int(expert) for expert in cells["expert"]})
    if len(experts) > MANY_EXPERTS:
        return _share_map(cells)
    drawn = style.figure(style.STEP, "share of tokens", height=_HEIGHT, y_format=".1%")
    for expert, colour in zip(experts, style.depth_colours(len(experts)), strict=True):
        rows = cells[cells["expert"] == expert]
        attached = names.get((str(rows["layer"].iloc[0]), expert))
        name = f"expert {expert}" if attached is None else escape(attached)
        style.add_line(drawn, rows["step"], rows["share"], name, colour, width=1.8)
    if len(experts) > 1:
        _add_level(drawn, cells, 1 / len(experts), "even")
    drawn.update_yaxes(rangemode="tozero", tickformat=".0%")
    return style.whole_steps(drawn)


def _share_map(cells: pd.DataFrame) -> go.Figure:
    by_step = cells.pivot(index="expert", columns="step", values="share")
    drawn = style.figure(style.STEP, "expert", height=_HEIGHT + 60)
    steps, experts = ([int(number) for number in numbers] for numbers in (by_step.columns, by_step.index))
    _add_map(drawn, "step %{x:,}, expert %{y}: %{z:.2%}", z=by_step.to_numpy().tolist(), x=steps, y=experts)
    drawn.update_yaxes(autorange="reversed", tickformat="d")
    return drawn


def _add_map(drawn: go.Figure, hover: str, **cells: Any) -> None:
    look = {"zmin": 0, "colorscale": _SCALE, "colorbar": _BAR, "hovertemplate": f"{hover}<extra></extra>"}
    drawn.add_trace(go.Heatmap(**look, **cells))
    drawn.update_layout(hovermode="closest", margin={"t": 12})


def entropies(by_layer: pd.DataFrame, layers: Sequence[str]) -> go.Figure:
    """Entropy of the shares of tokens as a share of its maximum, for each layer; 1 is perfectly even."""
    drawn = by_layer_lines(by_layer, layers, "entropy", "entropy, share of the maximum", y_format=".3f")
    known = by_layer[by_layer["entropy"].notna()]
    if len(known):
        _add_level(drawn, known, EVEN_ENTROPY, f"{EVEN_ENTROPY:g}")
        drawn.update_yaxes(range=[min(float(known["entropy"].min()), EVEN_ENTROPY) - 0.04, 1.01], tickformat=".2f")
    return drawn


def by_layer_lines(
    by_layer: pd.DataFrame, layers: Sequence[str], field: str, y_title: str, *, y_format: str = ".1%"
) -> go.Figure:
    """A number of each layer over the training, a line for each layer."""
    drawn = style.figure(style.STEP, y_title, height=_HEIGHT, y_format=y_format)
    for layer, colour in zip(layers, style.depth_colours(len(layers)), strict=True):
        rows = by_layer[(by_layer["layer"] == layer) & by_layer[field].notna()]
        if len(rows):
            style.add_line(drawn, rows["step"], rows[field], escape(layer), colour)
    return style.whole_steps(drawn)


def _add_level(drawn: go.Figure, frame: pd.DataFrame, level: float, name: str) -> None:
    style.add_mark(drawn, [int(frame["step"].min()), int(frame["step"].max())], [level, level], name)
