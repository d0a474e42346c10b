"""Values as they stand in files, which hold whatever somebody wrote into them."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hrm_engine.store.clock import parse_iso
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd


def finite(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else None: files hold whatever somebody wrote into them."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON knows whole numbers of any length
        return None
    return number if math.isfinite(number) else None


def step_of(value: object) -> int | None:
    """A number of steps that tables can hold, else None."""
    number = finite(value)
    return int(number) if number is not None and 0 <= number < 1 << 53 else None


def numbers_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a row by their fields; None for what is none."""
    return {name: finite(value) for name, value in row.items()}


def column(rows: pd.DataFrame, name: str) -> list[float | None]:
    """A field of each row as a finite number, else None."""
    return [finite(value) for value in rows[name]] if name in rows else [None] * len(rows)


def times(rows: pd.DataFrame) -> list[float | None]:
    """When each row was written, in seconds since 1970, or None."""
    if "ts" not in rows:
        return [None] * len(rows)
    return [parse_iso(value) for value in rows["ts"]]


def text_of(value: object) -> str:
    """A text as valid Unicode; nothing for anything else."""
    return printable(value) if isinstance(value, str) else ""


def whole_number(value: object, limit: int) -> int | None:
    """A whole number from 1 to ``limit``, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit else None


def has_words(text: str, search: str) -> bool:
    """Whether every word of ``search`` stands in ``text``, in whatever case."""
    return all(word in text.casefold() for word in search.casefold().split())


def written(value: Any, separator: str) -> str:
    """A value of a file as text; texts of a list with ``separator`` between them."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return separator.join(value)
    return json.dumps(value, ensure_ascii=False)


def rank(evaluation: Mapping[str, Any]) -> tuple[float, float]:
    """How good an evaluation is, by which a training chooses the weights that it keeps: lower is better."""
    loss = finite(evaluation.get("loss"))
    return -(finite(evaluation.get("exact_accuracy")) or 0.0), math.inf if loss is None else loss
