"""Where a run lies that a command line names, and how its path is written back."""

from __future__ import annotations

import os
from pathlib import Path

from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.paths import Workspace, check_name, inside

_NAMES_SHOWN = 20


def find_run(name: str, workspace: Workspace) -> Path:
    """The run folder of that name, or at that path inside the workspace.

    Raises:
        ConfigError: neither a name nor a path inside the workspace; or several runs have that name.
        BundleError: there is no such run.
    """
    if "/" in name or os.sep in name:
        folder = inside(workspace.root, Path(name))
        if not folder.is_dir():
            raise BundleError(f"{folder} is not a folder: 'lab bundle list' shows the runs of this workspace")
        return folder
    check_name(name, "run")
    # The usual places first: a run that has only just begun may not hold the file that marks a run folder yet.
    usual = [folder for folder in (workspace.brains / name, workspace.runs / name) if folder.is_dir()]
    runs = workspace.run_dirs()
    found = sorted({*usual, *(folder for folder in runs if folder.name == name)})
    if not found:
        names = sorted({folder.name for folder in runs})
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        raise BundleError(f"no run is called {name} under {workspace.artifacts}. Runs: {shown or 'none yet'}")
    if len(found) > 1:
        paths = ", ".join(relative(folder, workspace) for folder in found)
        raise ConfigError(f"several runs are called {name}: name one by its path. They are {paths}")
    return inside(workspace.root, found[0])  # a link there may lead out


def relative(path: Path, workspace: Workspace) -> str:
    """A path as it can be typed: from the workspace root if it lies under it, else in full."""
    path = Path(path)
    root = workspace.root.absolute()
    if path.is_absolute() and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)
