"""Time stamps as they stand in every file we write: ISO 8601, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now_iso() -> str:
    """The present moment, as in ``2026-03-01T12:00:00.250+00:00``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def parse_iso(text: object) -> float | None:
    """Seconds since 1970 of an ISO time stamp, or None if it is none that we write; without a zone it is UTC.

    Moments outside the years 1970 to 2199 are none: tables and charts cannot hold all of them.
    """
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None or not 1970 <= moment.year < 2200:
        return None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
