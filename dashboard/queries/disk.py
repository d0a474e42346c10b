"""Disk space of a workspace, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from dashboard.queries.fields import has_words
from hrm_engine.store.disk_usage import DiskUsage, RunUsage

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


def places(usage: DiskUsage) -> dict[str, int]:
    """Bytes by title, those that take anything, largest first."""
    sizes = sorted(usage.places.items(), key=lambda item: -item[1])
    return {PLACES[name]: size for name, size in sizes if size}


def run_frame(runs: Mapping[str, RunUsage], search: str = "") -> pd.DataFrame:
    """Runs whose id holds every word of ``search``: columns ``id``, ``total`` and the fields of ``RunUsage``."""
    import pandas as pd

    names = ("total", *(field.name for field in fields(RunUsage) if field.name != "path"))
    rows = [[name, *(getattr(run, field) for field in names)] for name, run in runs.items() if has_words(name, search)]
    return pd.DataFrame(rows, columns=["id", *names])
