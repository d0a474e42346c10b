"""What takes the space of a workspace, as tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hrm_engine.store.disk_usage import DiskUsage, RunUsage, disk_usage
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import printable, run_id

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
class UsedRun:
    """One line of the table: bytes of a run. ``id`` is its path below ``artifacts/``."""

    id: str
    archived: bool
    total: int
    weights: int
    checkpoints: int
    best: int
    metrics: int
    other: int
    num_checkpoints: int


@dataclass(frozen=True)
class SpaceTaken:
    """One look at the disk."""

    runs: list[UsedRun]
    """Largest first."""
    places: dict[str, int]
    """By title, those that take anything, largest first."""
    total: int
    disk_free: int
    disk_total: int

    def frame(self, search: str = "") -> pd.DataFrame:
        """Runs of which the path holds every word of ``search``, columns named as the fields of :class:`UsedRun`."""
        import pandas as pd

        names = [field.name for field in fields(UsedRun)]
        words = search.casefold().split()
        rows = [run for run in self.runs if all(word in run.id.casefold() for word in words)]
        return pd.DataFrame([[getattr(run, name) for name in names] for run in rows], columns=names)


def space_taken(workspace: Workspace) -> SpaceTaken:
    """Look through the workspace now."""
    usage = disk_usage(workspace)
    return SpaceTaken(
        runs=[_used(run, workspace) for run in usage.runs],
        places=_titled(usage),
        total=usage.total,
        disk_free=usage.disk_free,
        disk_total=usage.disk_total,
    )


def _used(run: RunUsage, workspace: Workspace) -> UsedRun:
    return UsedRun(
        id=run_id(run.path, workspace),
        archived=run.archived,
        total=run.total,
        weights=run.weights,
        checkpoints=run.checkpoints,
        best=run.best,
        metrics=run.metrics,
        other=run.other,
        num_checkpoints=run.num_checkpoints,
    )


def _titled(usage: DiskUsage) -> dict[str, int]:
    found = sorted(usage.places.items(), key=lambda item: -item[1])
    return {printable(PLACES[name]): size for name, size in found if size}
