"""The metrics of one run as frames for figures, read on as the file grows.

Frames of curves are long: one row for each metric and bucket of steps, with the columns ``name``, ``x`` (steps, fresh
label tokens or rows, or seconds of work since the run began), ``step``, ``min``, ``max``, ``last``, ``count``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from dashboard.queries.fields import column, finite, rank, text_of, times
from dashboard.queries.routing import Routing, routing
from hrm_engine.store.incidents import incident_text
from hrm_engine.store.paths import METRICS_FILE
from hrm_engine.store.reader import MetricsReader
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
T = TypeVar("T")

MAX_POINTS = 1500
"""Buckets of a curve: about as many as a wide screen has columns for it."""
MAX_EVALUATIONS = 2000
MAX_SAMPLES = 200
INCIDENTS = ("nan", "spike", "diverged", "oom", "resume", "stop")
"""Events that interrupted or disturbed a training."""
MAX_INCIDENTS = 200
TEXT_EVALUATION = ("unigram_loss", "token_accuracy")
TEXT_DEPTHS = ("loss", "token_accuracy")
COUNTERS = ("tokens", "rows")
"""Fields of training rows that can be a horizontal axis."""
_PACE_ROWS = 30
_KEPT_ANSWERS = 48


_SESSIONS = """
SELECT epoch(min(ts)) AS first, epoch(max(ts)) AS last
FROM (SELECT ts, count(*) FILTER (event IN ('start', 'resume')) OVER (ORDER BY seq) AS session FROM metrics)
WHERE ts IS NOT NULL GROUP BY session ORDER BY first
"""


def _remembered(question: Callable[Concatenate[RunMetrics, P], T]) -> Callable[Concatenate[RunMetrics, P], T]:
    """Keep the answers for the same arguments until new rows have come."""

    @wraps(question)
    def answer(metrics: RunMetrics, /, *args: P.args, **options: P.kwargs) -> T:
        return metrics.kept(f"{question.__name__}{args}{options}", lambda: question(metrics, *args, **options))

    return answer


class RunMetrics:
    """One run's ``metrics.jsonl``. Safe to share among sessions; frames are made again only when rows have come."""

    def __init__(self, run_dir: Path) -> None:
        self._reader = MetricsReader(run_dir / METRICS_FILE)
        self._lock = RLock()
        self._answers: dict[str, Any] = {}
        self._missing = False
        self._replaced = False

    def refresh(self) -> None:
        """Read what has been written since the last time."""
        with self._lock:
            result = self._reader.refresh()
            self._missing = result.missing
            self._replaced = self._replaced or result.replaced
            if result.new_rows or result.replaced:
                self._answers.clear()

    def notes(self) -> tuple[str, ...]:
        """Sentences on the file for whoever looks at the curves, without text from files."""
        with self._lock:
            texts = []
            skipped = self._reader.skipped_lines
            if skipped:
                lines = "1 line" if skipped == 1 else f"{skipped:,} lines"
                texts.append(f"{lines} of metrics.jsonl could not be read and were skipped; everything else is shown.")
            if self._missing and self._reader.events:
                texts.append("metrics.jsonl is not there any more; the curves show what had been read of it.")
            elif self._missing:
                texts.append("There is no metrics.jsonl in the run folder yet.")
            if self._replaced:
                texts.append("metrics.jsonl was replaced or cut while it was open; it was read again from its start.")
            return tuple(texts)

    def kept(self, key: str, load: Callable[[], T]) -> T:
        """The value of ``load()``, made anew when rows have come."""
        with self._lock:
            if key not in self._answers:
                if len(self._answers) >= _KEPT_ANSWERS:
                    self._answers.clear()
                self._answers[key] = load()
            value: T = self._answers[key]
            return value

    @_remembered
    def latest(self, event: str) -> dict[str, Any]:
        """The last row of an event, or an empty dict."""
        rows = self._reader.rows(event, n=1)
        return {} if rows.empty else dict(rows.iloc[-1])

    @_remembered
    def names(self, event: str) -> list[str]:
        """Fields of an event's rows that hold numbers."""
        return self._reader.names(event)

    @_remembered
    def step_seconds(self) -> float | None:
        """Wall time of one optimizer step, over the last rows, pauses for evaluations and saves included."""
        rows = self._reader.rows("train", n=_PACE_ROWS)
        points = [
            (step, self._worked_s(at))
            for step, at in zip(column(rows, "step"), times(rows), strict=True)
            if step is not None and at is not None
        ]
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return None
        return max((points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]), 0.0)

    def duration_s(self) -> float | None:
        """Seconds that the sessions of the run took together, the time between them left out."""
        return self._worked_s(math.inf) if self._sessions() else None

    @_remembered
    def train(self, names: Sequence[str], *, x: str = "step") -> pd.DataFrame:
        """Curves of fields of the training rows."""
        frame = self._reader.series(list(names), event="train", max_points=MAX_POINTS)
        frame["step"] = frame["x"]
        frame["x"] = self._place(frame["step"], x)
        return frame

    @_remembered
    def system(self) -> pd.DataFrame:
        """Curves of all measurements of the machine; ``x`` is seconds of work since the run's first row."""
        names = self._reader.names("system")
        frame = self._reader.series(names, event="system", x="ts", max_points=MAX_POINTS)
        frame["x"] = [self._worked_s(moment.timestamp()) for moment in frame["x"]]
        return frame

    @_remembered
    def evaluation(self, names: Sequence[str] = TEXT_EVALUATION, *, x: str = "step") -> pd.DataFrame:
        """One row for each evaluation (the last of a step counts): ``x, step, loss`` and the fields ``names``."""
        import pandas as pd

        rows = self._evaluations()
        columns = ["step", "loss", *names]
        frame = pd.DataFrame({name: pd.Series(column(rows, name), dtype="float64") for name in columns})
        frame.insert(0, "x", self._place_rows(rows, frame["step"], x))
        return frame[frame["loss"].notna()].reset_index(drop=True)

    @_remembered
    def depths(self, names: Sequence[str] = TEXT_DEPTHS, *, x: str = "step") -> pd.DataFrame:
        """One row for each evaluation and segment: ``x, step, segment`` (from 1), and ``names``.

        A field of the name ``NAME_by_segment`` is a list with a value for each segment.
        """
        import pandas as pd

        rows = self._evaluations()
        steps = pd.Series(column(rows, "step"), dtype="float64")
        places = self._place_rows(rows, steps, x)
        lists = [_lists(rows, f"{name}_by_segment") for name in names]
        points = []
        for at, values in enumerate(zip(*lists, strict=True)):
            for index in range(max(map(len, values), default=0)):
                numbers = [finite(value[index]) if index < len(value) else None for value in values]
                points.append((places[at], steps[at], index + 1, *numbers))
        frame = pd.DataFrame(points, columns=["x", "step", "segment", *names])
        return frame.astype({"segment": "int64", **dict.fromkeys(names, "float64")})

    @_remembered
    def last_and_best(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last evaluation, and the best one of a model that has been trained; empty where there is none."""
        rows = [{str(name): value for name, value in row.items()} for row in self._evaluations().to_dict("records")]
        trained = [row for row in rows if row["step"] > 0 and finite(row.get("loss")) is not None]
        return (rows[-1] if rows else {}), min(trained, key=rank, default={})

    @_remembered
    def samples(self) -> pd.DataFrame:
        """The last generated texts, newest first: ``step, prompt, text``."""
        import pandas as pd

        rows = self._reader.rows("sample", n=MAX_SAMPLES)
        points = [
            (int(step), text_of(row.get("prompt")), text_of(row.get("text")))
            for step, row in zip(column(rows, "step"), rows.to_dict("records"), strict=True)
            if step is not None
        ]
        return pd.DataFrame(points[::-1], columns=["step", "prompt", "text"])

    @_remembered
    def incidents(self) -> pd.DataFrame:
        """The last incidents of each kind, newest first: ``step, event, what``."""
        import pandas as pd

        lines = []
        for event in INCIDENTS:
            rows = self._reader.rows(event, n=MAX_INCIDENTS)
            for step, at, row in zip(column(rows, "step"), times(rows), rows.to_dict("records"), strict=True):
                lines.append(
                    (
                        at or 0.0,
                        None if step is None else int(step),
                        event,
                        printable(incident_text({**row, "event": event})),
                    )
                )
        lines.sort(key=lambda incident: (incident[0], incident[1] or 0), reverse=True)
        frame = pd.DataFrame([incident[1:] for incident in lines], columns=["step", "event", "what"])
        return frame.astype({"step": "Int64", "event": "str", "what": "str"})

    @_remembered
    def routing(self) -> Routing:
        """Routing of a model with experts."""
        return routing(self._reader)

    @_remembered
    def _evaluations(self) -> pd.DataFrame:
        rows = self._reader.rows("eval", n=MAX_EVALUATIONS)
        if rows.empty:
            return rows
        rows["step"] = column(rows, "step")
        if "full" in rows:  # measures the bundle, whose weights may be those of an earlier step, on other rows
            rows = rows[[value is not True for value in rows["full"]]]
        rows = rows[rows["step"].notna()].drop_duplicates("step", keep="last").sort_values("step")
        return rows.reset_index(drop=True)

    @_remembered
    def _sessions(self) -> list[tuple[float, float]]:
        """Times of the first and the last row of each session, in seconds since 1970."""
        rows = self._reader.query(_SESSIONS)
        return [(float(first), float(last)) for first, last in zip(rows["first"], rows["last"], strict=True)]

    def _worked_s(self, moment: float) -> float:
        """Seconds that the run had worked up to a moment, the time between its sessions left out."""
        return sum(max(0.0, min(moment, last) - first) for first, last in self._sessions())

    def _place_rows(self, rows: pd.DataFrame, steps: pd.Series, x: str) -> pd.Series:
        """Positions of rows on the axis ``x``; unlike training steps they have their own time."""
        import pandas as pd

        if x == "time":
            return pd.Series([math.nan if at is None else self._worked_s(at) for at in times(rows)], dtype="float64")
        return self._place(steps, x)

    def _place(self, steps: pd.Series, x: str) -> pd.Series:
        """Positions of steps on the axis ``x``, from the training rows, in between by interpolation."""
        import numpy as np
        import pandas as pd

        if x not in ("time", *COUNTERS) or steps.empty:
            return steps.astype("float64")
        known = self._places(x)
        if known.empty:
            return pd.Series(math.nan, index=steps.index, dtype="float64")
        return pd.Series(np.interp(steps.astype("float64"), known["step"], known["place"]), index=steps.index)

    @_remembered
    def _places(self, x: str) -> pd.DataFrame:
        import pandas as pd

        if x in COUNTERS:
            frame = self._reader.series(x, max_points=MAX_POINTS)
            frame = frame.rename(columns={"x": "step", "last": "place"})[["step", "place"]]
            origin = pd.DataFrame({"step": [0.0], "place": [0.0]})
            return pd.concat([origin, frame]) if len(frame) and frame["step"].iloc[0] > 0 else frame
        frame = self._reader.query(
            "SELECT step, max(epoch(ts)) AS place FROM metrics "
            "WHERE event = 'train' AND step IS NOT NULL AND ts IS NOT NULL GROUP BY step ORDER BY step"
        )
        frame["place"] = [self._worked_s(at) for at in frame["place"]]
        return frame


def density(frame: pd.DataFrame) -> str:
    """One sentence about how many rows stand behind curves, so that nothing is left out silently."""
    if frame.empty:
        return ""
    of_each = frame.groupby("name")["count"].agg(["sum", "size"])
    num_rows, num_points = int(of_each["sum"].max()), int(of_each["size"].max())
    if num_rows == num_points:
        return "1 row" if num_rows == 1 else f"{num_rows:,} rows, each one drawn"
    return (
        f"{num_rows:,} rows in {num_points:,} points: the line goes through the last value of each, "
        "the shaded range from the least to the greatest"
    )


def _lists(rows: pd.DataFrame, name: str) -> list[list[Any]]:
    if name not in rows:
        return [[]] * len(rows)
    return [value if isinstance(value, list) else [] for value in rows[name]]
