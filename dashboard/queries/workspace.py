"""Which workspace the dashboard looks at, and which run folders it has."""

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


def run_id(workspace: Workspace, run_dir: Path) -> str:
    """How a run is called in tables and links: its path below ``artifacts/``, with ``/``, as valid Unicode."""
    return printable(run_dir.relative_to(workspace.artifacts).as_posix())


def printable(text: str) -> str:
    """``text`` as valid Unicode: half surrogates, as a damaged name holds, become their escaped form."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def find_run(workspace: Workspace, wanted: str, run_dirs: Sequence[Path]) -> Path | None:
    """The run folder that ``wanted`` names: its id, or its folder name if only one run has it.

    ``wanted`` comes from a link anyone can write, so it is compared with what is there and never made into a path.
    """
    by_id = [path for path in run_dirs if run_id(workspace, path) == wanted]
    by_name = [path for path in run_dirs if path.name == wanted]
    for found in (by_id, by_name):
        if len(found) == 1:
            return found[0]
    return None
