"""Disk space of a workspace: by run and kind of file, and what else there is.

Sizes are those of the files, as other tools list them; links are counted nowhere. One walk over the folders, which
reads no file: a thousand runs with a few checkpoints each take some tenths of a second.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from hrm_engine.store.files import is_temporary
from hrm_engine.store.paths import (
    ARCHIVE_FOLDER,
    ARGS_FILE,
    BEST_FOLDER,
    CHECKPOINTS_FOLDER,
    LOG_FILE,
    METRICS_FILE,
    WANDB_FOLDER,
    Workspace,
)

# What an entry of a run folder is; of the rest those with .safetensors in their name are weights.
_PARTS = {
    CHECKPOINTS_FOLDER: "checkpoints",
    BEST_FOLDER: "best",
    **dict.fromkeys((METRICS_FILE, LOG_FILE, WANDB_FOLDER), "metrics"),
}


@dataclass(frozen=True)
class RunUsage:
    """Bytes of one run folder, by what they are."""

    path: Path
    archived: bool
    weights: int = 0
    """The weights to use."""
    checkpoints: int = 0
    best: int = 0
    """Weights of the best evaluation."""
    metrics: int = 0
    """Metrics, log, wandb/."""
    other: int = 0
    num_checkpoints: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.checkpoints + self.best + self.metrics + self.other


@dataclass(frozen=True)
class DiskUsage:
    """Bytes of a workspace. ``disk_total`` and ``disk_free`` are of the disk that it lies on."""

    runs: list[RunUsage]
    """Largest first; archived ones too, experts not."""
    experts: int
    notebooks: int
    """Executed ones."""
    training_data: int
    base_model: int
    """Base model and tokenizer."""
    leftovers: int
    """Left by killed commands under temporary names; the next copy, rename, deletion or training beside it cleans."""
    other: int
    """All else in ``artifacts/``."""
    disk_total: int
    disk_free: int

    @property
    def places(self) -> dict[str, int]:
        """Bytes by place, in the order of their declaration; together they are the workspace's."""
        kept = [run.total for run in self.runs if not run.archived]
        archived = [run.total for run in self.runs if run.archived]
        names = [field.name for field in fields(self) if field.name not in ("runs", "disk_total", "disk_free")]
        return {"runs": sum(kept), "archived_runs": sum(archived), **{name: getattr(self, name) for name in names}}

    @property
    def total(self) -> int:
        """Bytes of the workspace."""
        return sum(self.places.values())


def disk_usage(workspace: Workspace) -> DiskUsage:
    """Look through ``artifacts/`` and ``training_data/`` as they are now; what cannot be read counts nothing."""
    runs: list[RunUsage] = []
    rest = {"notebooks": 0, "base_model": 0, "leftovers": 0, "other": 0}
    places = {workspace.notebooks: "notebooks", workspace.base_model.parent: "base_model"}
    pending = [(workspace.artifacts, "other", False)]
    while pending:
        folder, place, archived = pending.pop()
        entries = list(_entries(folder))
        if any(entry.name == ARGS_FILE for entry in entries):
            runs.append(_run_usage(folder, entries, archived))
            continue
        for entry in entries:
            path = Path(entry.path)
            if path == workspace.experts:
                continue
            if is_temporary(path):
                rest["leftovers"] += _bytes(entry)
            elif entry.is_dir(follow_symlinks=False):
                pending.append((path, places.get(path, place), archived or entry.name == ARCHIVE_FOLDER))
            else:
                rest[place] += _bytes(entry)
    disk = shutil.disk_usage(_existing(workspace.root.absolute()))
    return DiskUsage(
        runs=sorted(runs, key=lambda run: (-run.total, run.path)),
        experts=folder_bytes(workspace.experts),
        training_data=folder_bytes(workspace.training_data),
        disk_total=disk.total,
        disk_free=disk.free,
        **rest,
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; 0 if it does not exist."""
    return sum(_bytes(entry) for entry in _entries(folder))


def _run_usage(folder: Path, entries: list[os.DirEntry[str]], archived: bool) -> RunUsage:
    parts = {"weights": 0, "checkpoints": 0, "best": 0, "metrics": 0, "other": 0}
    for entry in entries:
        parts[_PARTS.get(entry.name) or ("weights" if ".safetensors" in entry.name else "other")] += _bytes(entry)
    checkpoints = _entries(folder / CHECKPOINTS_FOLDER)
    num_checkpoints = sum(not checkpoint.name.startswith(".") for checkpoint in checkpoints)
    return RunUsage(folder, archived, num_checkpoints=num_checkpoints, **parts)


def _bytes(entry: os.DirEntry[str]) -> int:
    """Of a file, or of everything in a folder."""
    try:
        if entry.is_symlink():
            return 0
        if entry.is_dir(follow_symlinks=False):
            return folder_bytes(Path(entry.path))
        return entry.stat(follow_symlinks=False).st_size
    except OSError:  # gone meanwhile
        return 0


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
