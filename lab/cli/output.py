"""Streams that end no command: characters they cannot show are escaped, and a training outlives its readers."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast


def accept_all_characters() -> None:
    """Escape what stdout and stderr cannot encode; where they were closed before the start, drop what is written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf8"))  # noqa: SIM115  -- until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):
                stream.reconfigure(errors="backslashreplace")


def let_go(stream: TextIO) -> None:
    """Drop what ``stream`` still holds and all later output: its reader has left or its disk is full."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Outlived:
    """A stream that drops its output from the first error on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._letting_go():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._letting_go():
            self._stream.flush()

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: it was closed
            let_go(self._stream)


@contextmanager
def outlived_output() -> Iterator[None]:
    """Keep errors of stdout and stderr away from the code that writes to them."""
    out, err = (cast(TextIO, _Outlived(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield
        out.flush()
        err.flush()
