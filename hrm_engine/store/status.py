"""status.json of a run folder: what the run is doing, and whether it still does."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hrm_engine.errors import ConfigError, StorageError
from hrm_engine.reading import open_regular
from hrm_engine.store.clock import now_iso, parse_iso
from hrm_engine.store.files import readable_json, write_json
from hrm_engine.store.paths import STATUS_FILE
from hrm_engine.store.processes import host_name, is_alive

State = Literal["running", "finished", "diverged", "stopped", "failed"]
"""``diverged``: it has made all its steps, and the last evaluation is worse than the first one."""
LiveState = Literal["running", "finished", "diverged", "stopped", "failed", "dead", "unknown"]

LEASE_S = 120.0
"""How long a heartbeat keeps a run alive that nobody can ask for: heartbeats come every two seconds, the rest is for a
slow network folder and for clocks that differ."""


@dataclass(frozen=True)
class RunStatus:
    """State of a run in its own words. ``heartbeat`` is an ISO time stamp in UTC, ``step`` counts optimizer steps."""

    state: State
    pid: int
    host: str
    heartbeat: str
    step: int
    message: str = ""

    @classmethod
    def of_this_process(cls, state: State, step: int, message: str = "") -> RunStatus:
        """The status of a run in this process, at this moment."""
        return cls(state=state, pid=os.getpid(), host=host_name(), heartbeat=now_iso(), step=step, message=message)


def write_status(run_dir: Path, status: RunStatus) -> None:
    """Write status.json, atomically; the last word about a run on a full disk in the place of the one before.

    Raises StorageError, or ConfigError for a state that does not exist.
    """
    if status.state not in get_args(State):
        raise ConfigError(f"state {status.state!r} does not exist: use one of {', '.join(get_args(State))}")
    path = Path(run_dir) / STATUS_FILE
    try:
        write_json(path, asdict(status))
    except StorageError:
        if status.state == "running" or not _overwritten(path, status):
            raise


def _overwritten(path: Path, status: RunStatus) -> bool:
    """Whether the new content went into the blocks of the old file, for which a full disk has room."""
    content = json.dumps(asdict(status)).encode()
    try:
        with open_regular(path, "r+b", follow=False) as file:
            file.write(content)
            file.truncate()
    except OSError:
        return False
    return True


def read_status(run_dir: Path) -> RunStatus | None:
    """The status in ``run_dir``; None if it is missing or unreadable: one bad file must not hide the other runs."""
    raw = readable_json(Path(run_dir) / STATUS_FILE)
    if raw.get("state") not in get_args(State):
        return None
    return RunStatus(
        state=raw["state"],
        pid=_whole(raw.get("pid"), -1),
        host=str(raw.get("host", "")),
        heartbeat=str(raw.get("heartbeat", "")),
        step=_whole(raw.get("step"), 0),
        message=str(raw.get("message", "")),
    )


def live_state(run_dir: Path) -> LiveState:
    """The state of a run as it is now.

    ``dead``: it says running, and its process no longer does. ``unknown``: no readable status.json.
    """
    status = read_status(run_dir)
    if status is None:
        return "unknown"
    if status.state != "running":
        return status.state
    return "running" if lives(status) else "dead"


def lives(status: RunStatus) -> bool:
    """Whether the process of a run still runs: what its state is shown by, and what its lock is taken over by.

    On this machine its number says it (a process that began after the last heartbeat only inherited the number),
    elsewhere a heartbeat that is not older than ``LEASE_S``.
    """
    heartbeat = parse_iso(status.heartbeat)
    if status.host == host_name():
        return is_alive(status.pid, seen=heartbeat)
    return heartbeat is not None and time.time() - heartbeat <= LEASE_S


def _whole(value: Any, default: int) -> int:
    """A number that tables can hold; JSON knows longer ones."""
    is_such = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
    return value if is_such else default
