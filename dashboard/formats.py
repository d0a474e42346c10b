"""How numbers are written on the pages: one place, so that every page writes them the same way.

A missing or non-finite value is a dash everywhere; thousands are separated by commas; bytes are in decimal SI units.
"""

from __future__ import annotations

from dashboard.queries.fields import finite
from hrm_engine.store import figures

DASH = "—"
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def loss(value: object) -> str:
    """A loss in nats with three decimals; scientific where three decimals would show only zeros."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number:.2e}" if 0 < abs(number) < 0.0005 else f"{number:,.3f}"


def count(value: object) -> str:
    """A whole number with thousands separators."""
    number = finite(value)
    return DASH if number is None else f"{round(number):,}"


def rate(value: object) -> str:
    """A throughput: whole numbers from 100 on, three significant digits below."""
    number = finite(value)
    return DASH if number is None else figures.three_digits(number)


def size(value: object) -> str:
    """Bytes in decimal SI units: 1.50 MB is 1,500,000 bytes."""
    number = finite(value)
    if number is None:
        return DASH
    for unit in _BYTE_UNITS[:-1]:
        if abs(number) < 999.5:
            return f"{number:.0f} B" if unit == "B" else f"{figures.three_digits(number)} {unit}"
        number /= 1000
    return f"{figures.three_digits(number)} {_BYTE_UNITS[-1]}"


def duration(seconds: object) -> str:
    """A length of time with its two largest units: ``2 h 03 min``."""
    number = finite(seconds)
    if number is None or number < 0:
        return DASH
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, rest_min = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {rest_min:02d} min"
    days, rest_h = divmod(hours, 24)
    return f"{days:,} d {rest_h:02d} h"


def perplexity(loss_nats: object) -> str:
    """``exp(loss)`` with three significant digits."""
    return figures.perplexity(finite(loss_nats)) or DASH


def share(value: object) -> str:
    """A share from 0 to 1 in percent with one decimal."""
    number = finite(value)
    return DASH if number is None else f"{100 * number:.1f} %"
