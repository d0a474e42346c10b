"""What interrupted or disturbed a training, as sentences for the console and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from hrm_engine.store.metric_table import EVENTS


def incident_text(row: Mapping[str, Any]) -> str:
    """One sentence for a row of ``metrics.jsonl``: its own message, its numbers, or at least what its event means."""
    for name in ("message", "reason"):
        if isinstance(text := row.get(name), str) and text:
            return text
    match row:
        case {"event": "nan", "what": str(what), **more}:
            in_a_row = more.get("in_a_row")
            steps = f" ({in_a_row:g} steps in a row)" if _is_number(in_a_row) and in_a_row > 1 else ""
            return f"the {what} was not finite; the update was skipped{steps}"
        case {"event": "spike", "loss": loss, "median": median} if _is_number(loss) and _is_number(median):
            return f"the loss was {loss:.4g}, and the median of the last 50 steps {median:.4g}"
        case {"event": "resume"}:
            return "training went on from here; later rows of the session before do not count"
    return EVENTS.get(str(row.get("event")), "")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
