"""A bounded cache of what was read from files, valid as long as a file keeps its size and time of change."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Generic, TypeVar

from hrm_engine.store.files import readable_json

T = TypeVar("T")

Signature = tuple[int, int, int]
"""Size in bytes, time of change in nanoseconds, file number."""


def signature(path: Path) -> Signature | None:
    """State of a file or folder without reading it; None if there is none, as for a pipe or a device."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    if not (S_ISREG(state.st_mode) or S_ISDIR(state.st_mode)):
        return None
    return state.st_size, state.st_mtime_ns, state.st_ino


class FileCache(Generic[T]):
    """The last ``limit`` answers of ``load(path)``; a changed file is loaded again. Safe to share among threads."""

    def __init__(self, load: Callable[[Path], T], limit: int) -> None:
        self._load = lru_cache(limit)(lambda path, state: load(path))

    def get(self, path: Path) -> T | None:
        """Value of ``load`` for the file as it is now; None if there is no such file."""
        state = signature(path)
        return None if state is None else self._load(path, state)


_JSON: FileCache[dict[str, Any]] = FileCache(readable_json, 8192)


def cached_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none that can be read."""
    return _JSON.get(path) or {}
