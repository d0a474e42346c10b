"""Incidents: whatever interrupted or disturbed a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dashboard.queries.fields import column, text_of, times
from dashboard.queries.scan import finite
from hrm_engine.store.reader import MetricsReader

if TYPE_CHECKING:
    import pandas as pd

INCIDENTS = ("nan", "spike", "oom", "resume", "stop")
MAX_INCIDENTS = 200


def incidents(reader: MetricsReader) -> pd.DataFrame:
    """The last incidents of each kind, newest first: ``step, event, what``."""
    import pandas as pd

    lines = []
    for event in INCIDENTS:
        rows = reader.rows(event, n=MAX_INCIDENTS)
        for step, at, row in zip(column(rows, "step"), times(rows), rows.to_dict("records"), strict=True):
            lines.append((at or 0.0, None if step is None else int(step), event, _sentence(event, row)))
    lines.sort(key=lambda incident: (incident[0], incident[1] or 0), reverse=True)
    frame = pd.DataFrame([incident[1:] for incident in lines], columns=["step", "event", "what"])
    return frame.astype({"step": "Int64", "event": "str", "what": "str"})


def _sentence(event: str, row: dict[str, Any]) -> str:
    message = text_of(row.get("message")) or text_of(row.get("reason"))
    if message:
        return message
    if event == "spike":
        return f"loss {finite(row.get('loss'))}, median of the last 50 rows {finite(row.get('median'))}"
    if event == "resume":
        return "training went on from here; later rows of the session before do not count"
    return ""
