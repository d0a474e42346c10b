"""Reasons to stop early: a signal, the stop file, the clock. Each lets the step in progress finish."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

STOP_FILE_INTERVAL_S = 0.5
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGBREAK": 130}


@dataclass(frozen=True)
class Stop:
    """Why a run stops early and what its process exits with."""

    reason: str
    exit_code: int
    is_complete: bool = False
    """Whether nothing is left to gain: then the bundle is measured as at the end of all steps."""


class Stopper:
    """Context manager that turns signals into a request; a second signal does not interrupt the save either."""

    def __init__(self, *, stop_file: Path | None, max_minutes: float | None) -> None:
        self.stop_file = stop_file
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._signal: str | None = None
        self._previous: dict[int, Any] = {}
        self._looked = 0.0

    def __enter__(self) -> Stopper:
        # Python allows handlers in the main thread only; elsewhere stop file and clock still work
        if threading.current_thread() is threading.main_thread():
            for name in EXIT_CODES:
                number = getattr(signal, name, None)
                # Under nohup the end of the terminal is ignored, and stays so.
                if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def check(self) -> Stop | None:
        """The reason to stop now, if there is one. The stop file is honoured once and then removed."""
        if self._signal is not None:
            return Stop(f"stopped by {self._signal}", EXIT_CODES[self._signal])
        now = time.monotonic()
        if self.deadline is not None and now >= self.deadline:
            return Stop("stopped after --max-minutes", 0)
        if self.stop_file is not None and now - self._looked >= STOP_FILE_INTERVAL_S:
            self._looked = now
            if os.path.lexists(self.stop_file):
                return Stop(f"stopped by the stop file {self.stop_file}{self._remove_stop_file()}", 0)
        return None

    def _remove_stop_file(self) -> str:
        """Remove the stop file; where that fails, words for the user, since the run has been asked to stop anyway."""
        assert self.stop_file is not None
        try:
            self.stop_file.unlink()
        except FileNotFoundError:  # another run with the same file was quicker
            return ""
        except OSError as problem:
            why = problem.strerror or problem
            return f", which cannot be removed ({why}): remove it, or the next start stops at once"
        return ""

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or signal.Signals(number).name
