"""Forms: fields as controls of a page, and the answer that its button gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from dashboard.app_pages.parts import sentence
from hrm_engine.config.forms import MOST, Field
from hrm_engine.errors import HRMError

T = TypeVar("T")


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


def submitted(key: str, question: object, is_pressed: bool, make: Callable[[], T], refusal: str) -> T | None:
    """The answer to ``question`` that was made at the last press; None if there is none, or another was asked since.

    A press makes it anew; if that is refused, the page says why, after the words ``refusal``.
    """
    if is_pressed:
        st.session_state.pop(key, None)
        try:
            st.session_state[key] = make()
        except HRMError as problem:
            sentence(f"{refusal}: {problem}")
        st.session_state[f"question of {key}"] = question
    answer: T | None = st.session_state.get(key)
    return answer if st.session_state.get(f"question of {key}") == question else None
