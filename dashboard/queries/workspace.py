"""The workspace of the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hrm_engine.store.paths import Workspace

ROOT_OPTION = "--root"


def workspace_of(arguments: Sequence[str]) -> Workspace:
    """The workspace after ``--root`` in the app's own arguments, else the one that ``Workspace.find`` finds."""
    for option, value in pairwise(arguments):
        if option == ROOT_OPTION:
            return Workspace(Path(value).absolute())
    return Workspace.find()
