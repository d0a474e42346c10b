"""How a leaf looks in a form, for widgets of notebooks and pages of the dashboard alike; made from its declaration."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge, Le

from hrm_engine.config.base import Config, Form, leaves

MOST = 2**53 - 1
"""Largest whole number that a browser holds exactly."""


@dataclass(frozen=True)
class Field:
    """A number in a form: a slider where both ends are declared."""

    name: str
    label: str
    help: str
    value: Any
    is_whole: bool
    low: float | None
    high: float | None
    step: float
    is_slider: bool


def form_field(
    model: type[Config],
    name: str,
    *,
    high: float | None = None,
    value: Any = None,
    label: str | None = None,
    help: str | None = None,
) -> Field:
    """The field of a leaf.

    Args:
        high: a smaller end than the declared one, such as the context of a model.
        value: what stands in it at first, where that is not the default.
        label, help: what it is called and what it says, where that is not its name and description.
    """
    leaf = leaves(model)[name]
    marks = {type(mark): mark for mark in leaf.field.metadata}
    low, declared = getattr(marks.get(Ge), "ge", None), getattr(marks.get(Le), "le", None)
    if form := marks.get(Form):
        low, declared = form.low, form.high
    value = leaf.default if value is None else value
    if high is not None and value is not None:
        value = min(value, high)
    is_whole = int in (leaf.annotation, *typing.get_args(leaf.annotation))
    return Field(
        name=name,
        label=label or name.replace("_", " ").capitalize(),
        help=help or leaf.description.rstrip("."),
        value=value,
        is_whole=is_whole,
        low=low,
        high=declared if high is None else high,
        step=form.step if form else 1 if is_whole else 0.01,
        is_slider=low is not None and declared is not None,
    )
