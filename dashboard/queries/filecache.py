"""A bounded cache of what was read from files, valid as long as a file keeps its size and time of change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from hrm_engine.store.files import readable_json

T = TypeVar("T")

Signature = tuple[int, int, int]
"""Size in bytes, time of change in nanoseconds, file number."""


def signature(path: Path) -> Signature | None:
    """State of a file without reading it; None if the file cannot be looked at."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


class FileCache(Generic[T]):
    """The last ``limit`` answers of ``load(path)``; a changed file is loaded again. Safe to share among threads."""

    def __init__(self, load: Callable[[Path], T], limit: int) -> None:
        self._load = load
        self._limit = limit
        self._kept: OrderedDict[Path, tuple[Signature, T]] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path) -> T | None:
        """Value of ``load`` for the file as it is now; None if there is no such file."""
        now = signature(path)
        if now is None:
            return None
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept[0] == now:
                self._kept.move_to_end(path)
                return kept[1]
        value = self._load(path)
        with self._lock:
            self._kept[path] = (now, value)
            self._kept.move_to_end(path)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return value


_JSON: FileCache[dict[str, Any]] = FileCache(readable_json, 8192)


def cached_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none that can be read."""
    return _JSON.get(path) or {}
