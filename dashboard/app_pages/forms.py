"""Fields of a form as controls of a page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from hrm_engine.config.forms import MOST, Field


def control(field: Field, *, key: str | None = None, disabled: bool = False) -> Any:
    """The control of a field, and its value."""
    common: dict[str, Any] = {"key": key or field.name, "help": field.help, "disabled": disabled}
    number = int if field.is_whole else float
    value, step = number(field.value), number(field.step)
    if field.is_slider:
        assert field.low is not None
        assert field.high is not None
        return st.slider(field.label, number(field.low), number(field.high), value, step, **common)
    low = None if field.low is None else number(field.low)
    high = number(MOST if field.high is None else field.high)
    return st.number_input(field.label, low, high, value, step, **common)
