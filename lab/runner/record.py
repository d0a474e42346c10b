"""run.json: what a notebook run is, and how it went. Written when it starts, replaced when it ends, each atomically."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import finite, write_json
from hrm_engine.store.processes import host_name, own_pid

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

Status = Literal["running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class CellError:
    """What went wrong, and in which cell (counted from 1 in the executed notebook; None: before the first)."""

    cell: int | None
    source: str
    type: str
    message: str


@dataclass(frozen=True)
class RunRecord:
    """Everything in run.json; ``folder`` is where it lies."""

    folder: Path
    run_id: str
    recipe: str
    source: str
    notebook: str
    report: str | None
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
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "recipe": self.recipe,
            "source": self.source,
            "notebook": self.notebook,
            "report": self.report,
            "parameters": self.parameters,
            "hash": self.hash,
            "status": self.status,
            "started": self.started,
            "ended": self.ended,
            "seconds": self.seconds,
            "error": None if self.error is None else vars(self.error),
            "summary": self.summary,
            "blocks": self.blocks,
            "bundles": list(self.bundles),
            "pid": own_pid(),
            "host": host_name(),
            "python": sys.version.split()[0],
        }

    def save(self) -> None:
        """Write run.json. Raises StorageError."""
        write_json(self.folder / RUN_FILE, finite(self.as_json()))

    def end(self, status: Status, *, seconds: float, error: CellError | None = None, **more: Any) -> RunRecord:
        """The record of the ended run."""
        return replace(self, status=status, ended=now_iso(), seconds=round(seconds, 3), error=error, **more)


def new_run_id(name: str) -> str:
    """``quickstart-20260301-120000-3fa2c1``: sorts by time, never the same twice."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def run_hash(cells: Iterable[Mapping[str, Any]], parameters: Mapping[str, Any]) -> str:
    """SHA-256 of what a run is made of: the cells' text and the values of all parameters."""
    sources = [[cell.get("cell_type"), cell.get("source")] for cell in cells]
    text = json.dumps({"cells": sources, "parameters": parameters}, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Told:
    """What the cells of a notebook told of their run."""

    summary: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    bundles: tuple[str, ...] = ()


def read_summary(cells: Iterable[Mapping[str, Any]]) -> Told:
    """What the cells of an executed notebook displayed of that type; what has another form is left out."""
    found = Told()
    for cell in cells:
        for output in cell.get("outputs", ()):
            told = output.get("data", {}).get(SUMMARY_MIME)
            if not isinstance(told, Mapping):
                continue
            for pair in _list(told.get("summary")):
                match pair:
                    case [str(label), str(text)] if len(found.summary) < _SUMMARY_LABELS:
                        found.summary[label[:100]] = text[:_SUMMARY_CHARS]
                    case [str(label), int() | float() as number] if len(found.summary) < _SUMMARY_LABELS:
                        found.summary[label[:100]] = number
            for pair in _list(told.get("blocks")):
                match pair:
                    case [str(label), str(text)] if len(found.blocks) < _SUMMARY_LABELS:
                        found.blocks[label[:100]] = text[:_SUMMARY_CHARS]
            paths = [path for path in _list(told.get("bundles")) if isinstance(path, str)]
            found = replace(found, bundles=tuple(dict.fromkeys((*found.bundles, *paths))))
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
