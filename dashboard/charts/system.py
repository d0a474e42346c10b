"""Figures of the machine a run is on: processor, memory, graphics processor, disk. Frames as in ``charts.training``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from dashboard.charts.training import lines

if TYPE_CHECKING:
    import pandas as pd

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_HEIGHT = 300


def shares(frame: pd.DataFrame, series: Mapping[str, str]) -> go.Figure:
    """Percentages from 0 to 100; ``series`` is metric to name, unmeasured ones are left out."""
    drawn = lines(frame, series, "use (%)", x="time", y_format=".0f", height=_HEIGHT)
    drawn.update_yaxes(range=[0, 102])
    return drawn


def sizes(frame: pd.DataFrame, series: Mapping[str, str], y_title: str) -> go.Figure:
    """Bytes, in the decimal unit that suits the largest value."""
    largest = frame.loc[frame["name"].isin(list(series)), "max"].max()
    divisor, unit = next(((size, name) for size, name in _UNITS if largest >= size), (1.0, "B"))
    title = f"{y_title} ({unit})"
    drawn = lines(frame, series, title, x="time", y_format=",.3~r", height=_HEIGHT, divisor=divisor)
    drawn.update_yaxes(rangemode="tozero")
    return drawn
