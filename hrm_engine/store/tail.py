"""Following a file that grows: whole new lines since the last look, and whether it is still the same file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BOM = b"\xef\xbb\xbf"
_FINGERPRINT_BYTES = 1024


class LineTail:
    """Position in a growing file of lines.

    ``begin`` and then ``blocks`` are called on the freshly opened file at every look. ``offset`` is the number of bytes
    consumed; a torn last line stays unconsumed until the rest of it has been written. A line longer than
    ``max_line_bytes`` is passed over in blocks, so that memory stays bounded, and counted in ``overlong_lines``.
    """

    def __init__(self, path: Path, *, block_bytes: int = 8 << 20, max_line_bytes: int = 64 << 20) -> None:
        self.path = Path(path)
        self.block_bytes = block_bytes
        self.max_line_bytes = max_line_bytes
        self.overlong_lines = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew at the start of the file."""
        self.offset = 0
        self._first = b""
        self._last = b""
        self._in_overlong = False

    def begin(self, file: BinaryIO) -> bool:
        """Whether the content read so far is gone (truncated, rotated, replaced); then the next blocks start at 0.

        Compared are the first and the last bytes consumed: unlike the number of the file on its disk they also show a
        file that was cut and has grown beyond the old length, and they do not mind a copy brought back unchanged.
        """
        file.seek(0)
        same = file.read(len(self._first)) == self._first
        if same and self._last:
            file.seek(self.offset - len(self._last))
            same = file.read(len(self._last)) == self._last
        if same:
            return False
        self.restart()
        return True

    def blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield blocks of whole lines up to the present end of the file. A block counts as consumed when the next one
        is asked for, so that a failure in between loses nothing."""
        end = file.seek(0, 2)
        while self.offset < end:
            file.seek(self.offset)
            data = file.read(min(self.block_bytes, end - self.offset))
            if not data:
                return
            if self._in_overlong:
                cut = data.find(b"\n") + 1
                self._in_overlong = not cut
                self.overlong_lines += bool(cut)
                self._consume(data[:cut] if cut else data)
                continue
            data = self._extend_to_newline(file, data, end)
            cut = data.rfind(b"\n") + 1
            if cut == 0 and len(data) >= self.max_line_bytes:
                self._in_overlong = True
                self._consume(data)
                continue
            if cut == 0 and not _is_whole_row(data):
                return
            lines = data[:cut] if cut else data
            yield lines.removeprefix(_BOM) if self.offset == 0 else lines
            self._consume(lines)

    def _extend_to_newline(self, file: BinaryIO, data: bytes, end: int) -> bytes:
        parts, size = [data], len(data)
        while b"\n" not in parts[-1] and size < min(self.max_line_bytes, end - self.offset):
            more = file.read(min(self.block_bytes, end - self.offset - size))
            if not more:
                break
            parts.append(more)
            size += len(more)
        return b"".join(parts)

    def _consume(self, data: bytes) -> None:
        if len(self._first) < _FINGERPRINT_BYTES:
            self._first += data[: _FINGERPRINT_BYTES - len(self._first)]
        self._last = (self._last + data[-_FINGERPRINT_BYTES:])[-_FINGERPRINT_BYTES:]
        self.offset += len(data)


def _is_whole_row(data: bytes) -> bool:
    """Whether an unterminated last line is complete: no proper beginning of a JSON object is one itself."""
    if not data.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(json.loads(data.decode("utf-8-sig", errors="replace")), dict)
    except (ValueError, RecursionError):
        return False
