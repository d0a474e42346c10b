"""Time stamps as they stand in every file we write: ISO 8601, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now_iso() -> str:
    """The present moment, as in ``2026-03-01T12:00:00.250+00:00``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def parse_iso(text: str) -> float | None:
    """Seconds since 1970 of an ISO time stamp, or None if it is not one; without a zone it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
