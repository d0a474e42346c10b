"""One process at a time per folder.

The lock itself is the operating system's, on ``<folder>/.lock``: it ends with its process, however that ends. Beside it
``.lock.json`` says who holds it: for the message that a second process shows, and because the system's lock need not
reach over machines. A holder on another machine is alive as long as ``status.json`` says so; one that is not, as of a
container that is gone, is followed by whoever comes next, and a holder that only slept finds that out by ``is_ours``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hrm_engine.errors import LockedError
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import readable_json, storing, write_json
from hrm_engine.store.processes import host_name, is_alive, started_at
from hrm_engine.store.status import lives, read_status

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"
# Between taking the lock and writing its name, the holder is unknown for a moment.
_HOLDER_WAIT_S = 0.5
_POLL_S = 0.005
# Clocks of two machines may differ by more than a lease: a heart that beats is seen to, three times over.
_WATCH_S = 6.0


@contextmanager
def locked(path: Path, lock_file: Path, *, timeout_s: float, cure: str) -> Iterator[None]:
    """Hold ``lock_file`` while ``path`` is changed; the folder is made if needed.

    Raises LockedError, which ends with ``cure``, if another process keeps the lock for ``timeout_s``; StorageError.
    """
    lock = FileLock(lock_file, timeout=timeout_s, poll_interval=_POLL_S, thread_local=False)
    with storing(path, doing="lock"):
        try:
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise LockedError(f"{path}: another process has held {lock_file} for {timeout_s:.0f} s; {cure}") from None
    try:
        yield
    finally:
        lock.release()


class FolderLock:
    """Context manager that holds the lock of a folder; the folder is made if needed.

    Entering raises LockedError at once if another live process (or another lock object of this one) holds it, naming
    process and machine; StorageError if the folder cannot be written. ``taken_over`` is None, or the message about a
    former holder that ended without releasing.

    Args:
        take_over: the user says that a holder on another machine no longer runs.
    """

    def __init__(self, path: Path, *, take_over: bool = False) -> None:
        self.folder = Path(path)
        self.taken_over: str | None = None
        self._take_over = take_over
        self._own: dict[str, Any] = {}
        # thread_local off: a lock taken by the main thread may be released by another one.
        self._lock = FileLock(self.folder / LOCK_FILE, timeout=0, thread_local=False)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._lock.is_locked

    def acquire(self) -> FolderLock:
        """Take the lock now or raise, as entering does."""
        if self.held:
            raise LockedError(f"{self.folder} is already locked by this very lock object")
        with storing(self.folder, doing="lock"):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            except Timeout:
                raise LockedError(self._refusal(self._live_holder())) from None
        try:
            self.taken_over = self._check_former_holder()
            pid = os.getpid()
            self._own = {"pid": pid, "host": host_name(), "started": now_iso(), "process_started": started_at(pid)}
            write_json(self.folder / HOLDER_FILE, self._own)
        except BaseException:
            self._lock.release()
            raise
        return self

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if not self.held:
            return
        if self.is_ours():
            with suppress(OSError):
                (self.folder / HOLDER_FILE).unlink(missing_ok=True)
        self._lock.release()

    def is_ours(self) -> bool:
        """False once another process has taken the lock over, because this one gave no sign of life for so long."""
        return readable_json(self.folder / HOLDER_FILE) in ({}, self._own)

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _live_holder(self) -> dict[str, Any]:
        deadline = time.monotonic() + _HOLDER_WAIT_S
        while True:
            holder = readable_json(self.folder / HOLDER_FILE)
            is_live = holder and (holder.get("host") != host_name() or _is_alive(holder))
            if is_live or time.monotonic() > deadline:
                return holder
            time.sleep(0.02)

    def _check_former_holder(self) -> str | None:
        """We hold the system's lock. A name still there: its owner died, or is not bound by our lock."""
        holder = readable_json(self.folder / HOLDER_FILE)
        if not holder:
            return None
        if holder.get("host") != host_name():
            alive = not self._take_over and self._lives_elsewhere(holder)
        else:
            alive = holder.get("pid") != os.getpid() and _is_alive(holder)
        if alive:
            raise LockedError(self._refusal(holder))
        return (
            f"{self.folder} was still locked by process {holder.get('pid')} on {holder.get('host')} "
            f"(since {holder.get('started')}), which no longer runs; its lock was taken over"
        )

    def _refusal(self, holder: dict[str, Any]) -> str:
        if not holder:
            return f"{self.folder} is locked by another process: wait until it ends, or choose another folder"
        text = (
            f"{self.folder} is locked by process {holder.get('pid')} on {holder.get('host')} "
            f"since {holder.get('started')}: wait until it ends, or stop it"
        )
        if holder.get("host") != host_name():
            text += f"; if it no longer runs there, delete {self.folder / HOLDER_FILE}, or --resume with --take-over"
        return text

    def _lives_elsewhere(self, holder: dict[str, Any]) -> bool:
        """Whether a holder on another machine lives. One that leaves no heartbeat, as a copy does, cannot be known to
        have ended."""
        status = read_status(self.folder)
        if status is None or (status.host, status.pid) != (holder.get("host"), holder.get("pid")) or lives(status):
            return True
        time.sleep(_WATCH_S)
        return read_status(self.folder) != status


def _is_alive(holder: dict[str, Any]) -> bool:
    pid, started = holder.get("pid"), holder.get("process_started")
    if not isinstance(pid, int):
        return False
    return is_alive(pid, started=float(started) if isinstance(started, int | float) else None)
