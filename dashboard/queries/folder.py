"""Parameters, checkpoints and log of a run folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.queries.fields import has_words, written
from dashboard.queries.filecache import FileCache, signature
from hrm_engine.errors import BundleError
from hrm_engine.reading import open_regular
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import CheckpointInfo, check_manifest, list_checkpoints
from hrm_engine.store.paths import ARGS_FILE
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd


LOG_LINES = 500
LOG_BYTES = 256 << 10
HASH_AT_ONCE_BYTES = 200_000_000
_KEPT = 512
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Parameters:
    """``training_args.json`` as (group, name, value) lines in its order; ``problem`` if it cannot be read."""

    lines: tuple[tuple[str, str, str], ...] = ()
    problem: str | None = None
    values: tuple[tuple[str, Any], ...] = ()

    def value(self, name: str) -> Any:
        """The value of the first parameter of that name, or None."""

        return next((value for key, value in self.values if key == name), None)

    def frame(self, search: str = "") -> pd.DataFrame:
        """Columns ``name``, ``value``, ``group``; those of which some column holds every word of ``search``."""
        import pandas as pd

        rows = [
            (name, value, group) for group, name, value in self.lines if has_words(f"{group} {name} {value}", search)
        ]
        return pd.DataFrame(rows, columns=["name", "value", "group"], dtype="str")


def read_parameters(path: Path) -> Parameters:
    """The parameters in one ``training_args.json``."""
    try:
        raw = read_json(path)
    except BundleError as problem:
        return Parameters(problem=str(problem))
    inner = raw.pop("parameters", {})
    # What was set comes first, then what else the file says; the name of the whole is no group.
    leaves = [*_leaves(inner if isinstance(inner, dict) else {"parameters": inner}, ""), *_leaves(raw, "")]
    return Parameters(
        lines=tuple(
            (printable(group), printable(name), printable(written(value, " "))) for group, name, value in leaves
        ),
        values=tuple((name, value) for _, name, value in leaves),
    )


_PARAMETERS: FileCache[Parameters] = FileCache(read_parameters, _KEPT)


def parameters(run_dir: Path) -> Parameters:
    """The parameters of a run; ``problem`` says so where there is no file of them."""
    return _PARAMETERS.get(run_dir / ARGS_FILE) or Parameters(problem=f"There is no {ARGS_FILE} in {run_dir}")


def _leaves(value: dict[str, Any], group: str) -> Any:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{group}.{name}" if group else name)
        else:
            yield group, name, inner


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as it is shown. ``hashed``: its files were read and compared, not only their sizes."""

    name: str
    step: int
    bytes: int
    saved: datetime
    hashed: bool
    problems: tuple[str, ...]


class Checkpoints:
    """Validity of checkpoints; hashes are remembered for as long as size and time of every file stay the same.

    Checkpoints of at most ``hash_at_once_bytes`` are hashed as soon as they are listed, larger ones when asked for.
    """

    def __init__(self, hash_at_once_bytes: int = HASH_AT_ONCE_BYTES) -> None:
        self._hash_at_once_bytes = hash_at_once_bytes
        self._verified: dict[tuple[object, ...], tuple[str, ...]] = {}

    def of(self, run_dir: Path, *, hash_all: bool = False) -> list[Checkpoint]:
        """The checkpoints of a run, newest first. ``hash_all`` also reads the large ones."""
        checkpoints = []
        for info in list_checkpoints(run_dir, hashes=False):
            problems, hashed = self._problems(info, hash_all or info.bytes <= self._hash_at_once_bytes)
            # The trainer deletes old ones while we look; what is gone is not damaged.
            if state := signature(info.path):
                saved = datetime.fromtimestamp(state[1] / 1e9, UTC)
                checkpoints.append(Checkpoint(info.path.name, info.step, info.bytes, saved, hashed, problems))
        return checkpoints[::-1]

    def _problems(self, info: CheckpointInfo, hash_all: bool) -> tuple[tuple[str, ...], bool]:
        if info.problems:
            return tuple(info.problems), True
        key = _state_of(info.path)
        problems = self._verified.get(key)
        if problems is None and hash_all:
            problems = tuple(check_manifest(info.path))
            if len(self._verified) >= _KEPT:
                self._verified.clear()
            self._verified[key] = problems
        return problems or (), problems is not None


CHECKPOINTS = Checkpoints()
"""Those of all runs."""


def _state_of(folder: Path) -> tuple[object, ...]:
    files = [Path(current) / name for current, _, names in os.walk(folder) for name in names]
    return folder, *((path, signature(path)) for path in sorted(files))


@dataclass(frozen=True)
class LogTail:
    """The end of a log: its text, how many lines that is, and whether earlier ones are left out."""

    text: str
    num_lines: int
    cut: bool
    total_bytes: int


def log_tail(path: Path) -> LogTail | None:
    """The last 500 lines of a log, at most 256 KiB; None if there is none."""
    try:
        with BufferedReader(open_regular(path, follow=False)) as file:
            total = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, total - LOG_BYTES))
            raw = file.read(LOG_BYTES)
    except OSError:
        return None
    text = _TERMINAL_CODES.sub("", raw.decode("utf-8", errors="replace")).replace("\r\n", "\n").replace("\0", "")
    # A progress bar rewrites its line with carriage returns: the last state of it is what one would see.
    lines = [line.rsplit("\r", 1)[-1] for line in text.removesuffix("\n").split("\n")] if text else []
    if start > 0:
        lines = lines[1:]
    cut = start > 0 or len(lines) > LOG_LINES
    lines = lines[-LOG_LINES:]
    return LogTail("\n".join(lines), len(lines), cut, total)
