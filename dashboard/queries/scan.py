"""A quick look through one metrics file for the table of runs: last training row, best evaluation.

A table of a thousand runs cannot load every row of every file. Most rows are training rows of which only the last one
counts, so this looks for the few others as bytes and parses nothing else. The pages of a single run use
``hrm_engine.store.reader`` instead.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from dashboard.queries.fields import finite, rank
from dashboard.queries.filecache import Signature, signature
from hrm_engine.reading import open_regular

# Half a megabyte stays in the processor's cache while it is searched: measured a third faster than four.
_CHUNK_BYTES = 512 << 10
_TAIL_BYTES = 64 << 10
# A training row is looked for in so many lines from the end; other events come in between, but never this many.
_TAIL_LINES = 200
_EVALUATED = ("loss", "exact_accuracy")
_COUNTED = re.compile(rb'"eval"|"resume"')


@dataclass
class MetricsScan:
    """One metrics file as far as it is read. ``advance`` reads on from where it stopped."""

    path: Path
    last_train: dict[str, Any] | None = None
    complete: bool = False
    _seen: Signature | None = None
    _offset: int = 0
    _head: bytes = b""
    last_eval: dict[str, Any] = field(default_factory=dict)
    """``step, loss, exact_accuracy`` of the last evaluation that counts."""
    best_eval: dict[str, Any] = field(default_factory=dict)
    """The same of the best one of a model that has been trained."""
    _evaluations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed_ns(self) -> int:
        """When the file changed last, as far as that has been looked at."""
        return self._seen[1] if self._seen is not None else 0

    def look(self) -> bool:
        """Read only the end of the file if it changed. True if ``advance`` has something left to read."""
        now = signature(self.path)
        if now is None:
            self._restart()
            self.complete = True
            return False
        if now == self._seen:
            return not self.complete
        if self._seen is None or now[0] < self._offset or now[2] != self._seen[2]:
            self._restart()
        self._seen = now
        self.complete = False
        start = max(self._offset, now[0] - _TAIL_BYTES)
        try:
            with BufferedReader(open_regular(self.path, follow=False)) as file:
                file.seek(start)
                self._take_last_train(file.read(_TAIL_BYTES))
        except OSError:
            self._restart()
            return False
        return True

    def advance(self) -> None:
        """Read everything that ``look`` has not seen yet, piece by piece."""
        try:
            with BufferedReader(open_regular(self.path, follow=False)) as file:
                head = file.read(256)
                if not head.startswith(self._head):
                    self._restart()
                self._head = head
                file.seek(self._offset)
                while chunk := file.read(_CHUNK_BYTES):
                    whole = chunk.rfind(b"\n") + 1
                    if whole == 0 and len(chunk) < _CHUNK_BYTES:
                        break
                    # A line longer than a chunk is no row of ours: step over its pieces.
                    used = whole or len(chunk)
                    self._take_chunk(chunk[:used])
                    self._offset += used
                    file.seek(self._offset)
        except OSError:
            self._restart()
        self.complete = True

    def _restart(self) -> None:
        self.last_train = None
        self._seen = None
        self._offset = 0
        self._head = b""
        self._evaluations = []
        self.last_eval, self.best_eval = {}, {}

    def _take_chunk(self, chunk: bytes) -> None:
        starts = {chunk.rfind(b"\n", 0, match.start()) + 1 for match in _COUNTED.finditer(chunk)}
        for start in sorted(starts):
            row = _parsed(chunk[start : chunk.find(b"\n", start)])
            if (step := finite(row.get("step"))) is None:
                continue
            if row.get("event") == "resume":
                self._evaluations = [known for known in self._evaluations if known["step"] <= step]
            elif row.get("event") == "eval" and row.get("full") is not True:
                self._evaluations.append({"step": step, **{name: finite(row.get(name)) for name in _EVALUATED}})
        trained = [known for known in self._evaluations if known["step"] > 0 and known["loss"] is not None]
        self.last_eval = self._evaluations[-1] if self._evaluations else {}
        self.best_eval = min(trained, key=rank, default={})
        self._take_last_train(chunk[-_TAIL_BYTES:])

    def _take_last_train(self, tail: bytes) -> None:
        for line in reversed(tail.split(b"\n")[-_TAIL_LINES:]):
            if b'"train"' in line:
                row = _parsed(line)
                if row.get("event") == "train":
                    self.last_train = row
                    return


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
