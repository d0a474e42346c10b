"""Runs whose ``lab run`` was killed: ends their kernels and marks their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hrm_engine.errors import StorageError
from hrm_engine.store.clock import now_iso, parse_iso
from hrm_engine.store.files import readable_json, write_json
from hrm_engine.store.paths import Workspace
from hrm_engine.store.processes import host_name, is_alive
from lab.runner.kernel import end_processes
from lab.runner.record import RUN_FILE


def end_dead_runs(workspace: Workspace) -> Iterator[str]:
    """End the processes that killed runs of this machine have left; yields a sentence for each run.

    A run is dead if its record says ``running`` and no process has the recorded number and start time. Only processes
    that carry the run's own id in their environment and began after it are ended.
    """
    for file in sorted(workspace.notebooks.glob(f"*/{RUN_FILE}")):
        record = readable_json(file)
        if record.get("status") == "running" and record.get("host") == host_name() and not _lives(record):
            num_ended = end_processes(file.parent.name, since=parse_iso(record.get("started")))
            text = f"its 'lab run' (process {record.get('pid')}) ended without a word, as by kill -9"
            _mark(file, record, text)
            left = f"; {num_ended} processes that it left are ended" if num_ended else ""
            yield f"{file.parent.name} failed: {text}{left}"


def _lives(record: Mapping[str, Any]) -> bool:
    pid, started = record.get("pid"), record.get("process_started")
    if not isinstance(pid, int):
        return False
    began = float(started) if isinstance(started, int | float) else None
    return is_alive(pid, started=began, seen=parse_iso(record.get("started")))


def _mark(file: Path, record: Mapping[str, Any], text: str) -> None:
    error = {"cell": None, "source": "", "type": "RunnerKilled", "message": text, "line": None}
    with suppress(StorageError):  # the next start tries again
        write_json(file, {**record, "status": "failed", "ended": now_iso(), "error": error})
