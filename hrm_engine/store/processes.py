"""This process and machine, and whether the process that a file names still runs."""

from __future__ import annotations

import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version

# A process id is used again some time after its process ended. The start times of psutil are good to about a hundredth
# of a second; the margin allows for a clock that was corrected in between.
_START_TIME_MARGIN_S = 5.0


def host_name() -> str:
    """The name under which this machine signs locks and status files."""
    return socket.gethostname()


def started_at(pid: int) -> float | None:
    """Start time of a process of this machine, in seconds since 1970; None if there is no such process."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.AccessDenied:
        # It exists, but belongs to somebody else: alive, with an unknown start.
        return 0.0
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return None


def is_alive(pid: int, *, started: float | None = None, seen: float | None = None) -> bool:
    """Whether process ``pid`` of this machine runs and is the one that was meant.

    ``started`` is the start time it had (a lock knows it); ``seen`` is a moment at which it was known to run (a
    heartbeat). Both in seconds since 1970. A process that does not fit them has only inherited the number.
    """
    actual = started_at(pid)
    if actual is None:
        return False
    if actual == 0.0:
        return True
    if started is not None and abs(actual - started) > _START_TIME_MARGIN_S:
        return False
    return seen is None or actual <= seen + _START_TIME_MARGIN_S


@cache  # each look reads the whole metadata of a distribution
def library_version(name: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
