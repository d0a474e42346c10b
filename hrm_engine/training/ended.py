"""Runs that have nothing left to do."""

from __future__ import annotations

from pathlib import Path

from hrm_engine.bundles.listing import metadata_problems
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import METADATA_FILE
from hrm_engine.store.status import read_status

_ENDED = ("finished", "diverged", "stopped")


def is_done(run_dir: Path, steps: int | None = None) -> bool:
    """Whether a run has made all its steps, or was to end before them, and its bundle is whole.

    Args:
        steps: those of the run from here on; None: as many as before.
    """
    metadata, status = readable_json(run_dir / METADATA_FILE), read_status(run_dir)
    if status is None or status.state not in _ENDED:
        return False
    planned = metadata.get("planned_steps", metadata.get("step"))  # up to version 0.1 only the second
    is_complete = metadata.get("is_complete", status.state == "finished")
    if is_complete is not True or not isinstance(planned, int) or (steps or 0) > planned:
        return False
    return not metadata_problems(run_dir)
