"""Paths in the output of commands."""

from __future__ import annotations

from pathlib import Path

from hrm_engine.store.paths import Workspace


def relative(path: Path, workspace: Workspace) -> str:
    """A path as it can be typed: from the workspace root if it lies under it, else in full."""
    path = Path(path)
    root = workspace.root.absolute()
    if path.is_absolute() and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)
