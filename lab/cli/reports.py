"""Print the report that an engine function returns: its fields, as lines of name and value."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.console import show_facts
from lab.cli.places import relative

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from hrm_engine.store.paths import Workspace


def show_report(report: DataclassInstance, workspace: Workspace) -> None:
    """One line for each field; paths from the workspace root, counts with separators."""
    show_facts(
        [(field.name.replace("_", " "), _shown(getattr(report, field.name), workspace)) for field in fields(report)]
    )


def _shown(value: Any, workspace: Workspace) -> str:
    if isinstance(value, Path):
        return relative(value, workspace)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
