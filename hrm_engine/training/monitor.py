"""Heartbeat and machine figures, from a thread of their own so that a long step does not look like a dead run."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from hrm_engine.errors import HRMError, LockedError
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.status import RunStatus, State, write_status

HEARTBEAT_S = 2.0
SYSTEM_S = 10.0


class Monitor:
    """Writes ``status.json`` every two seconds and a ``system`` row every ten while it is entered."""

    def __init__(
        self, lock: FolderLock, device: torch.device, *, step: Callable[[], int], write: Callable[..., None]
    ) -> None:
        self.run_dir = lock.folder
        self._lock = lock
        self.device = device
        self._step = step
        self._write = write
        self._message = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hrm-lab-monitor", daemon=True)
        self.failure: HRMError | None = None
        """What stopped the thread; the training loop raises it at its next step."""

    def __enter__(self) -> Monitor:
        psutil.cpu_percent()  # the first reading only starts the interval
        write_status(self.run_dir, RunStatus.of_this_process("running", self._step(), self._message))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def close(self, state: State, message: str) -> None:
        """End the heartbeat with the last word about the run. Raises StorageError."""
        self.__exit__()
        write_status(self.run_dir, RunStatus.of_this_process(state, self._step(), message))

    def say(self, message: str) -> None:
        """What the run is doing now, shown with its state."""
        self._message = message

    def _run(self) -> None:
        next_system = time.monotonic() + SYSTEM_S
        while not self._end.wait(HEARTBEAT_S):
            try:
                if not self._lock.is_ours():
                    raise LockedError(
                        f"{self.run_dir}: another process goes on with this run, since this one gave no sign of life "
                        "for too long; it ends here"
                    )
                write_status(self.run_dir, RunStatus.of_this_process("running", self._step(), self._message))
                if time.monotonic() >= next_system:
                    next_system += SYSTEM_S
                    with suppress(OSError):  # a figure that cannot be read is no reason to stop
                        figures = system_figures(self.run_dir, self.device)
                        self._write("system", self._step(), **figures)
            except HRMError as problem:
                self.failure = problem
                return


def system_figures(folder: Path, device: torch.device) -> dict[str, Any]:
    """Load and memory of this machine now, and of the GPU where there is one."""
    figures: dict[str, Any] = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_rss_bytes": psutil.Process().memory_info().rss,
        "memory_percent": psutil.virtual_memory().percent,
        "disk_free_bytes": shutil.disk_usage(folder).free,
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        figures["gpu_memory_bytes"] = total - free
        # Utilisation needs NVIDIA's management library, which has errors of its own where it is missing or forbidden.
        with suppress(Exception):
            figures["gpu_percent"] = torch.cuda.utilization(device)
    return figures
