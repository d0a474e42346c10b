"""``lab disk``: what fills this workspace, and the commands that free space."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_bytes, relative, say, show_facts, show_json, show_table
from lab.cli.parameters import Json

_PARTS = ("total", "weights", "checkpoints", "best", "metrics", "other")


def disk(
    *,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="How many of the largest runs; 0 = all.")] = 20,
    json: Json = False,
) -> int:
    """Show what fills the workspace: runs by weights, checkpoints and metrics, then data, notebooks and the rest."""
    from hrm_engine.store.disk_usage import disk_usage

    if lines < 0:
        raise ConfigError(f"--lines {lines}: use 0 (all) or more")
    workspace = Workspace.find()
    usage = disk_usage(workspace)
    if json:
        runs = [{**asdict(run), "total": run.total} for run in usage.runs]
        show_json({"runs": runs, "places": usage.places, "total": usage.total, "disk_free": usage.disk_free})
        return 0
    if usage.runs:
        shown = usage.runs[: lines or None]
        rows = [(relative(run.path, workspace), *(human_bytes(getattr(run, part)) for part in _PARTS)) for run in shown]
        show_table(("run", *_PARTS), rows, right=_PARTS)
        if left_out := len(usage.runs) - len(shown):
            say(f"and {left_out} more; -n 0 shows all")
        say()
    facts = [(name.replace("_", " "), human_bytes(size)) for name, size in usage.places.items() if size]
    free = f"{human_bytes(usage.disk_free)} of {human_bytes(usage.disk_total)}"
    show_facts([*facts, ("total", human_bytes(usage.total)), ("free on the disk", free)])
    if usage.runs:
        largest = Path(relative(usage.runs[0].path, workspace)).as_posix()
        say()
        command = f"lab bundle delete {largest}"
        show_facts([(f"{command} --old-checkpoints", "keeps its newest checkpoint"), (command, "deletes it for good")])
    return 0
