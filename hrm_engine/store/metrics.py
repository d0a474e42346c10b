"""Writing metrics.jsonl: one JSON object a line, appended whole or not at all."""

from __future__ import annotations

import json
import math
import numbers
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hrm_engine.errors import ConfigError
from hrm_engine.reading import open_regular
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import storing
from hrm_engine.store.locks import locked
from hrm_engine.store.metric_table import ENVELOPE

_COPY_LOCK_TIMEOUT_S = 30.0
_BLOCK_BYTES = 1 << 16
# What every row of ours begins with; a torn tail that does not is somebody else's text and is kept.
ROW_START = b'{"ts":'


class MetricsWriter:
    """Appends rows to one run's metrics file and to copies of it. Safe to use from several threads.

    ``path`` belongs to this writer alone (the run folder is locked); a torn last line, left by a killed process, is
    removed on opening. Each of ``copies`` may be shared with other processes: every row is appended under the lock
    ``<copy>.lock``. Rows reach the operating system with each ``write``; ``flush`` brings them to the disk.

    Raises StorageError if a file cannot be opened, ConfigError if a copy is not a file's name.
    """

    def __init__(self, path: Path, run_id: str, copies: Iterable[Path] = ()) -> None:
        self.path = Path(path)
        self.run_id = run_id
        self.messages: list[str] = []
        """Sentences about the file for the user, since they were last taken out."""
        self._mutex = threading.Lock()
        self._file: _AppendFile | None = None
        file = _AppendFile(self.path)
        try:
            file.cut_torn_line()
            own = self.path.resolve()
            self._copies = [
                _SharedFile(copy) for copy in dict.fromkeys(Path(c).resolve() for c in copies) if copy != own
            ]
        except BaseException:
            file.close()
            raise
        self._file = file

    def write(self, event: str, step: int, **fields: Any) -> None:
        """Append one row. Values are numbers, strings, booleans, None, paths, and lists or dicts of those.

        A number that is not finite becomes null, and its field's name is added to ``nonfinite``. Raises StorageError if
        a file cannot be written; then that file ends with the row before. Raises TypeError for a value without a JSON
        form and ValueError for a reserved field name or a closed writer; nothing is written then.
        """
        line = encode_row(self.run_id, event, step, fields)
        with self._mutex:
            if self._file is None:
                raise ValueError(f"{self.path}: the metrics writer is closed")
            if self._file.is_gone():
                self._file = self._made_again(self._file)
            self._file.append(line)
            for copy in self._copies:
                copy.append(line)

    def _made_again(self, lost: _AppendFile) -> _AppendFile:
        """A file in the place of one that was deleted or replaced, with all its rows as long as we have it open."""
        file = _AppendFile(self.path)
        try:
            if file.is_empty():
                file.append(lost.content())
                self.messages.append(f"{self.path} was deleted while the run went on: it was written again")
            else:
                file.cut_torn_line()
                self.messages.append(f"{self.path} was replaced while the run went on: rows go on in the new file")
        except BaseException:
            file.close()
            raise
        lost.close()
        return file

    def flush(self) -> None:
        """Bring everything written so far to the disk. Raises StorageError."""
        with self._mutex:
            if self._file is not None:
                self._file.sync()

    def close(self) -> None:
        """Flush and close; further calls have no effect. Raises StorageError if flushing fails, but is closed then."""
        with self._mutex:
            file, self._file = self._file, None
        if file is None:
            return
        try:
            file.sync()
        finally:
            file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encode_row(run_id: str, event: str, step: int, fields: Mapping[str, Any]) -> bytes:
    """One row as a line of UTF-8 JSON with its newline. Raises TypeError or ValueError, see ``MetricsWriter.write``."""
    reserved = sorted(set(fields) & ENVELOPE.keys())
    if reserved:
        raise ValueError(f"{', '.join(reserved)}: reserved, the writer sets it; use another field name")
    nonfinite: list[str] = []
    row: dict[str, Any] = {"ts": now_iso(), "run_id": run_id, "event": event, "step": int(step)}
    for name, value in fields.items():
        plain, all_finite = _plain(name, value)
        row[name] = plain
        if not all_finite:
            nonfinite.append(name)
    if nonfinite:
        row["nonfinite"] = nonfinite
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half a surrogate pair has no UTF-8 form; a question mark instead loses nothing that could be shown.
    return text.encode("utf-8", errors="replace") + b"\n"


def _plain(name: str, value: Any) -> tuple[Any, bool]:
    """``value`` as JSON can hold it, and whether all its numbers were finite."""
    if value is None or isinstance(value, bool | str):
        return value, True
    if isinstance(value, numbers.Integral):
        return int(value), True
    if isinstance(value, numbers.Real):
        number = float(value)
        return (number, True) if math.isfinite(number) else (None, False)
    if isinstance(value, os.PathLike):
        return str(Path(value)), True
    if isinstance(value, Mapping):
        pairs = {str(key): _plain(name, inner) for key, inner in value.items()}
        return {key: plain for key, (plain, _) in pairs.items()}, all(ok for _, ok in pairs.values())
    if isinstance(value, list | tuple):
        items = [_plain(name, inner) for inner in value]
        return [plain for plain, _ in items], all(ok for _, ok in items)
    raise TypeError(f"field {name}: a {type(value).__name__} has no JSON form; pass numbers, text, lists or dicts")


class _AppendFile:
    """A file that only grows by whole lines: what fails half-way is cut off again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_regular(path, "a+b", follow=False)

    def is_gone(self) -> bool:
        """Whether the file was deleted, or another one has taken its name."""
        return os.fstat(self._file.fileno()).st_nlink == 0 or not os.path.lexists(self.path)

    def is_empty(self) -> bool:
        return os.fstat(self._file.fileno()).st_size == 0

    def content(self) -> bytes:
        """All of the file, also of one that was deleted."""
        with storing(self.path, doing="read"):
            self._file.seek(0)
            return self._file.readall()

    def append(self, line: bytes) -> None:
        with storing(self.path, doing="append to"):
            before = self._file.seek(0, os.SEEK_END)
            try:
                done = self._file.write(line)
                while done < len(line):  # a disk that fills up takes a part first, and says why on the next call
                    done += self._file.write(line[done:])
            except BaseException:
                with suppress(OSError):
                    self._file.truncate(before)
                raise

    def cut_torn_line(self, beginning: bytes = b"") -> bool:
        """Remove what follows the last newline if it begins so; True if something else is left there."""
        with storing(self.path, doing="repair"):
            end = position = self._file.seek(0, os.SEEK_END)
            while position > 0:
                start = max(0, position - _BLOCK_BYTES)
                self._file.seek(start)
                newline = self._file.read(position - start).rfind(b"\n")
                if newline >= 0:
                    position = start + newline + 1
                    break
                position = start
            self._file.seek(position)
            if position == end or self._file.read(len(beginning)) != beginning:
                return position < end
            self._file.truncate(position)
            return False

    def sync(self) -> None:
        with storing(self.path, doing="flush"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _SharedFile:
    """A file to which several processes append whole lines, each under the lock ``<file>.lock``."""

    def __init__(self, path: Path) -> None:
        if not path.name:
            raise ConfigError(f"--log-file {path} is not the name of a file: give a file")
        self.path = path
        self.append(b"")  # a target that cannot be written shows now, not at the first row

    def append(self, line: bytes) -> None:
        cure = "stop it, or choose another --log-file"
        with locked(self.path, Path(f"{self.path}.lock"), timeout_s=_COPY_LOCK_TIMEOUT_S, cure=cure):
            # Opened each time, so that a file which was moved away meanwhile is not written to for ever.
            file = _AppendFile(self.path)
            try:
                if file.cut_torn_line(ROW_START) and line:
                    line = b"\n" + line
                if line:
                    file.append(line)
            finally:
                file.close()
