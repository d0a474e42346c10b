"""run.json: what a notebook run is and how it ended; written at its start and replaced at its end, both atomically."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hrm_engine.store.files import finite, write_json
from hrm_engine.store.processes import host_name, started_at

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
SUMMARY_MIME = "application/vnd.hrm-lab.run+json"
"""A cell that displays an object of this type adds to run.json.

Its form is ``{"summary": [[label, value], ...], "blocks": [[label, text], ...], "bundles": [path, ...]}``. Values are
texts or numbers, in the order in which they are to be shown; pairs, because a notebook file sorts the keys of objects.
Blocks are texts whose lines are to stay as they are, such as drawn boards. In a notebook::

    display({SUMMARY_MIME: {...}, "text/plain": "what JupyterLab shows"}, raw=True)
"""
_SUMMARY_LABELS = 50
_SUMMARY_CHARS = 5_000
_PAIRS: dict[str, tuple[type, ...]] = {"summary": (str, int, float), "blocks": (str,)}
"""Lists of pairs, with the types that their values have."""

Status = Literal["running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class CellError:
    """What went wrong, and in which cell (counted from 1 in the executed notebook; None: before the first).

    ``source`` is the line of the cell that failed, and ``line`` its number. Where that is not known, as of a cell that
    took too long, it is the cell's first line, and ``line`` is None.
    """

    cell: int | None
    source: str
    type: str
    message: str
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything in run.json; ``folder`` is where it lies."""

    folder: Path
    run_id: str
    recipe: str
    source: str
    notebook: str
    report: str | None = None
    parameters: dict[str, Any]
    hash: str
    status: Status = "running"
    started: str = ""
    ended: str | None = None
    seconds: float | None = None
    error: CellError | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    bundles: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The content of run.json."""
        fields = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        del fields["folder"]
        bundles = list(self.bundles)
        return {
            **fields,
            "bundles": bundles,
            "pid": os.getpid(),
            "process_started": started_at(os.getpid()),
            "host": host_name(),
            "python": platform.python_version(),
        }

    def save(self) -> None:
        """Write run.json. Raises StorageError."""
        write_json(self.folder / RUN_FILE, finite(self.as_json()))


def new_run_id(name: str) -> str:
    """``quickstart-20260301-120000-3fa2c1``: sorts by time, never the same twice."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def run_hash(cells: Iterable[Mapping[str, Any]], parameters: Mapping[str, Any]) -> str:
    """SHA-256 of what a run is made of: the cells' text and the values of all parameters."""
    sources = [[cell.get("cell_type"), cell.get("source")] for cell in cells]
    text = json.dumps({"cells": sources, "parameters": parameters}, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Summary:
    """What the cells of a notebook add to run.json."""

    summary: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    bundles: tuple[str, ...] = ()


def read_summary(cells: Iterable[Mapping[str, Any]]) -> Summary:
    """The objects of that type that the cells of an executed notebook displayed; other forms are left out."""
    whole = Summary()
    for cell in cells:
        for output in cell.get("outputs", ()):
            content = output.get("data", {}).get(SUMMARY_MIME)
            if not isinstance(content, Mapping):
                continue
            for name, kinds in _PAIRS.items():
                into = getattr(whole, name)
                for pair in _list(content.get(name)):
                    match pair:
                        case [str(label), value] if isinstance(value, kinds) and len(into) < _SUMMARY_LABELS:
                            into[label[:100]] = value[:_SUMMARY_CHARS] if isinstance(value, str) else value
            paths = [path for path in _list(content.get("bundles")) if isinstance(path, str)]
            whole = replace(whole, bundles=tuple(dict.fromkeys((*whole.bundles, *paths))))
    return whole


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
