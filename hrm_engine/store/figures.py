"""Figures as people read them, on the console and on pages; torch-free and without markup."""

from __future__ import annotations

import math

LARGEST_LOSS = 700.0
"""Its exponential is about the largest number that there is."""


def three_digits(number: float) -> str:
    """About three significant digits, never in scientific notation."""
    magnitude = abs(number)
    if magnitude >= 99.95 or number == 0:
        return f"{number:,.0f}"
    return f"{number:.1f}" if magnitude >= 9.995 else f"{number:.2f}"


def perplexity(loss: object) -> str | None:
    """``exp(loss)`` of a loss in nats with three significant digits: ``31.0``, ``4.85e+08``, ``inf``; None for NaN."""
    if not isinstance(loss, int | float) or isinstance(loss, bool) or math.isnan(loss):
        return None
    if loss > LARGEST_LOSS:
        return "inf"
    value = math.exp(loss)
    return three_digits(value) if value < 1e7 else f"{value:.2e}"
