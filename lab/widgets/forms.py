"""Fields of a form as ipywidgets."""

from __future__ import annotations

from typing import Any

import ipywidgets

from hrm_engine.config.forms import Field

STYLE = {"description_width": "130px"}


def wide() -> ipywidgets.Layout:
    """The width of a field; each control has a layout of its own, which is closed with it."""
    return ipywidgets.Layout(width="330px")


def widget(field: Field) -> Any:
    """The control of a field; its ``value`` is that of the leaf, which is checked when it is used."""
    common = {"description": field.label.lower(), "tooltip": field.help, "layout": wide(), "style": STYLE}
    if field.is_slider or field.high is not None:
        kind = ipywidgets.IntSlider if field.is_whole else ipywidgets.FloatSlider
        return kind(value=field.value, min=field.low, max=field.high, step=field.step, **common)
    return (ipywidgets.IntText if field.is_whole else ipywidgets.FloatText)(field.value, **common)
