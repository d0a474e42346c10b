"""All runs of a workspace as one table: what each is, how it does, and what it last measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from dashboard.queries.fields import finite, step_of
from dashboard.queries.filecache import FileCache, cached_json, signature
from dashboard.queries.scan import MetricsScan
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.paths import METADATA_FILE, METRICS_FILE, STATUS_FILE, Workspace
from hrm_engine.store.runs import printable, run_id
from hrm_engine.store.status import LiveState, RunStatus, live_state, read_status

if TYPE_CHECKING:
    import pandas as pd


STATES = ("running", "finished", "diverged", "stopped", "failed", "dead", "unknown")
LIVE = "running"
# More runs than these bounds are still shown; the ones that do not fit are read anew at each refresh.
_KEPT_FILES = 4096
# How long one refresh may read metrics files to their end before the page is shown with what is known.
READ_BUDGET_S = 0.15


_NUMBERS = ("train_loss", "eval_loss", "best_eval_loss", "exact_accuracy", "tokens_per_s", "row_segments_per_s")


@dataclass(frozen=True)
class RunRow:
    """One line of the table of runs. Losses are nats, times are UTC; None is not known or not of this kind."""

    id: str
    name: str
    kind: str
    state: str
    step: int | None
    train_loss: float | None
    eval_loss: float | None
    best_eval_loss: float | None
    best_step: int | None
    tokens_per_s: float | None
    exact_accuracy: float | None
    row_segments_per_s: float | None
    updated: datetime | None


@dataclass(frozen=True)
class RunTable:
    """All rows, and for how many of them the metrics are read to the end (the best evaluation is then certain)."""

    rows: list[RunRow]
    num_read: int

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to read."""

        return self.num_read == len(self.rows)

    def frame(self) -> pd.DataFrame:
        """One row a run, columns named as the fields of ``RunRow``."""
        import pandas as pd

        types = dict.fromkeys(_NUMBERS, "float64") | {"step": "Int64", "best_step": "Int64"}
        types["updated"] = "datetime64[ms, UTC]"
        names = [field.name for field in fields(RunRow)]
        values = {name: [getattr(row, name) for row in self.rows] for name in names}
        return pd.DataFrame({name: pd.Series(values[name], dtype=types.get(name, "str")) for name in names})


class RunIndex:
    """The runs of one workspace, remembered from one refresh to the next. Safe to share among sessions."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = Lock()
        self._scans: dict[Path, MetricsScan] = {}
        self._status: FileCache[RunStatus | None] = FileCache(lambda path: read_status(path.parent), _KEPT_FILES)

    def refresh(self, budget_s: float = READ_BUDGET_S) -> RunTable:
        """The table as the files are now.

        The end of each changed metrics file is always read; the whole of it as far as ``budget_s`` seconds reach, the
        rest at the next calls. ``RunTable.num_read`` says how far that has come.
        """
        with self._lock:
            folders = self.workspace.run_dirs()
            known = {path: self._scans.get(path) or MetricsScan(path / METRICS_FILE) for path in folders}
            self._scans = known
            unread = sorted((scan for scan in known.values() if scan.look()), key=lambda scan: -scan.changed_ns)
            until = time.monotonic() + budget_s
            for done, scan in enumerate(unread):
                scan.advance()
                if time.monotonic() > until and done + 1 < len(unread):
                    break
            rows = [self._row(path, scan) for path, scan in known.items()]
            num_read = sum(scan.complete for scan in known.values())
        running = [row for row in rows if row.state == LIVE]
        rest = [row for row in rows if row.state != LIVE]
        # Two live runs overtake each other at every heartbeat; by name they keep their places under the mouse.
        running.sort(key=lambda row: row.id)
        rest.sort(key=lambda row: (row.updated.timestamp() if row.updated else 0.0, row.id), reverse=True)
        return RunTable(running + rest, num_read)

    def _row(self, path: Path, scan: MetricsScan) -> RunRow:
        status = self._status.get(path / STATUS_FILE)
        state: LiveState = "unknown" if status is None else status.state
        if state == LIVE:
            state = live_state(path)
        train = scan.last_train or {}
        return RunRow(
            id=run_id(path, self.workspace),
            name=printable(path.name),
            kind=printable(self._kind(path)),
            state=state,
            step=status.step if status is not None else step_of(train.get("step")),
            train_loss=finite(train.get("loss")),
            eval_loss=scan.last_eval.get("loss"),
            best_eval_loss=scan.best_eval.get("loss"),
            best_step=None if not scan.best_eval else int(scan.best_eval["step"]),
            # What a puzzle solver counts is rows; tokens of its boards would be compared with those of texts.
            tokens_per_s=finite(train.get("tokens_per_s")) if "row_segments_per_s" not in train else None,
            exact_accuracy=scan.best_eval.get("exact_accuracy"),
            row_segments_per_s=finite(train.get("row_segments_per_s")),
            updated=_updated(path, status),
        )

    def _kind(self, path: Path) -> str:
        kind = cached_json(path / METADATA_FILE).get("kind")
        if isinstance(kind, str) and kind:
            return kind
        # metadata.json comes with the end of the first session; until then the folder says what it is.
        return path.relative_to(self.workspace.artifacts).parent.name or "run"


def _updated(path: Path, status: RunStatus | None) -> datetime | None:
    """The last heartbeat; without one, when the metrics (or else the parameters) were last written."""
    seconds = None if status is None else parse_iso(status.heartbeat)
    for name in ("metrics.jsonl", "training_args.json"):
        state = signature(path / name) if seconds is None else None
        if state is not None:
            seconds = state[1] / 1e9
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
