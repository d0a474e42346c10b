"""Numbers are written the same way on every page."""

from __future__ import annotations

import math

import pytest

from dashboard import formats


@pytest.mark.parametrize(
    ("write", "value", "written"),
    [
        (formats.loss, 2.34567, "2.346"),
        (formats.loss, 1234.5, "1,234.500"),
        (formats.loss, 0.0, "0.000"),
        (formats.loss, 0.0001234, "1.23e-04"),
        (formats.count, 1234567, "1,234,567"),
        (formats.rate, 12345.6, "12,346"),
        (formats.rate, 12.34, "12.3"),
        (formats.rate, 0.5, "0.50"),
        (formats.size, 0, "0 B"),
        (formats.size, 999, "999 B"),
        (formats.size, 1500, "1.50 kB"),
        (formats.size, 999_600, "1.00 MB"),
        (formats.size, 1_450_000_000, "1.45 GB"),
        (formats.duration, 0, "0 s"),
        (formats.duration, 59.6, "1 min 00 s"),
        (formats.duration, 7380, "2 h 03 min"),
        (formats.duration, 90_000, "1 d 01 h"),
        (formats.perplexity, 0.0, "1.00"),
        (formats.perplexity, 3.435, "31.0"),
        (formats.perplexity, 9.0, "8,103"),
        (formats.perplexity, 20.0, "4.85e+08"),
    ],
)
def test_numbers(write: object, value: object, written: str) -> None:
    assert callable(write)
    assert write(value) == written


@pytest.mark.parametrize(
    "write", [formats.loss, formats.count, formats.rate, formats.size, formats.duration, formats.perplexity]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "12", True, [1]])
def test_what_is_no_number_is_a_dash(write: object, value: object) -> None:
    assert callable(write)
    assert write(value) == formats.DASH


def test_perplexity_of_a_huge_loss_does_not_overflow() -> None:
    assert formats.perplexity(1e6) == "inf"
