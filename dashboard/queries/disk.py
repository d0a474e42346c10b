"""Disk space of a workspace, as tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from dashboard.queries.fields import has_words
from hrm_engine.store.disk_usage import RunUsage, disk_usage
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import run_id

if TYPE_CHECKING:
    import pandas as pd

PLACES = {
    "runs": "Runs and brains",
    "archived_runs": "Archived runs",
    "training_data": "Training data",
    "experts": "Experts",
    "notebooks": "Executed notebooks",
    "base_model": "Base model and tokenizer",
    "leftovers": "Leftovers of killed commands",
    "other": "Other outputs",
}
"""Titles of :attr:`DiskUsage.places`."""


@dataclass(frozen=True)
class SpaceTaken:
    """One look at the disk."""

    runs: dict[str, RunUsage]
    """By id, largest first."""
    places: dict[str, int]
    """By title, those that take anything, largest first."""
    total: int
    disk_free: int
    disk_total: int

    def frame(self, search: str = "") -> pd.DataFrame:
        """Runs whose id holds every word of ``search``: columns ``id``, ``total`` and the fields of ``RunUsage``."""
        import pandas as pd

        names = ("total", *(field.name for field in fields(RunUsage) if field.name != "path"))
        rows = [
            [name, *(getattr(run, field) for field in names)]
            for name, run in self.runs.items()
            if has_words(name, search)
        ]
        return pd.DataFrame(rows, columns=["id", *names])


def space_taken(workspace: Workspace) -> SpaceTaken:
    """Look through the workspace now."""
    usage = disk_usage(workspace)
    places = sorted(usage.places.items(), key=lambda item: -item[1])
    return SpaceTaken(
        runs={run_id(run.path, workspace): run for run in usage.runs},
        places={PLACES[name]: size for name, size in places if size},
        total=usage.total,
        disk_free=usage.disk_free,
        disk_total=usage.disk_total,
    )
