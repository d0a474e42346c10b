"""Lists of the files of a checkpoint or bundle with size and SHA-256, and checks against them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.errors import CheckpointError, ConfigError, HRMError
from hrm_engine.reading import JSON_LIMIT, read_regular
from hrm_engine.store.disk_usage import folder_bytes
from hrm_engine.store.files import (
    is_temporary,
    json_bytes,
    read_json,
    sha256_file,
    storing,
    write_bytes,
    write_json,
)
from hrm_engine.store.paths import CHECKPOINTS_FOLDER, MANIFEST_FILE, inside

SCHEMA_VERSION = 1
SEAL = "seal"
"""Last key of a sealed file."""
_NO_DIGEST = "0" * 64
_END = '"\n}\n'

_CHECKPOINT_NAME = re.compile(r"step_([0-9]{1,18})")
# File managers leave these in any folder that is looked at.
_NOT_OURS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint folder: its optimizer step, size in bytes, and what is wrong with it (empty: nothing)."""

    path: Path
    step: int
    bytes: int
    problems: list[str]


def schema_problem(number: object, *, known: int, where: Path) -> str | None:
    """A sentence if a file's ``schema_version`` is not one that this version reads; older ones are read."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        return f"{where.name} has no usable schema_version (found {number!r}): the file is damaged"
    if number > known:
        return (
            f"{where.name} has schema_version {number}, this version of HRM Lab reads up to {known}: "
            "it was written by a newer one; update HRM Lab to read it"
        )
    return None


def read_versioned(path: Path, *, known: int, error: type[HRMError]) -> dict[str, Any]:
    """The JSON object in ``path``, as far as this version reads it. Raises ``error``."""
    content = read_json(path, error)
    if problem := schema_problem(content.get("schema_version"), known=known, where=path):
        raise error(f"{path.parent}: {problem}")
    return content


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whose last entry is the SHA-256 of all that stands before it. Raises StorageError."""
    rest = {name: value for name, value in content.items() if name != SEAL}
    body = json_bytes({**rest, SEAL: _NO_DIGEST})[: -len(_NO_DIGEST + _END)]
    write_bytes(path, body + hashlib.sha256(body).hexdigest().encode() + _END.encode())


def seal_problem(path: Path, error: type[HRMError]) -> str | None:
    """A sentence if a file is not what :func:`write_sealed` wrote. Raises ``error`` where it cannot be read."""
    content = read_regular(path, error, limit=JSON_LIMIT)
    body, end = content[: -len(_NO_DIGEST + _END)], content[-len(_NO_DIGEST + _END) :]
    if hashlib.sha256(body).hexdigest() + _END == end.decode("ascii", errors="replace"):
        return None
    return f"{path.name} has changed: it does not hold what was written"


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``{name: {"sha256", "bytes"}}`` of files in ``folder``; names are relative, with ``/``. Raises StorageError."""
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        path = Path(folder) / name
        with storing(path, doing="read"):
            entries[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    return entries


def check_entries(folder: Path, entries: object, *, hashes: bool = True) -> list[str]:
    """One sentence per file that is missing, cut off or changed; an empty list if all are what was written.

    ``entries`` is what ``file_entries`` gave, as read back from a file that may itself be damaged. Without ``hashes``
    only presence and size are compared, which costs nothing for large files but cannot see a flipped byte.
    """
    if not isinstance(entries, Mapping):
        return ["the list of files is damaged: it is not an object"]
    problems = (_check_file(Path(folder), str(name), entry, hashes=hashes) for name, entry in sorted(entries.items()))
    return [problem for problem in problems if problem is not None]


def write_manifest(folder: Path) -> None:
    """Write MANIFEST.json about every other file in ``folder``. Raises StorageError."""
    folder = Path(folder)
    write_json(
        folder / MANIFEST_FILE, {"schema_version": SCHEMA_VERSION, "files": file_entries(folder, _files_in(folder))}
    )


def check_manifest(folder: Path, *, hashes: bool = True) -> list[str]:
    """Problems of a folder that has a manifest, one sentence each naming the file; empty if valid."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder.name} is not a folder or does not exist"]
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return [f"{MANIFEST_FILE} is missing: the save was interrupted, or the file was deleted"]
    try:
        manifest = read_json(path, CheckpointError)
    except CheckpointError as problem:
        return [f"{MANIFEST_FILE} is damaged: {problem}"]
    if problem_text := schema_problem(manifest.get("schema_version"), known=SCHEMA_VERSION, where=path):
        return [problem_text]
    entries = manifest.get("files")
    if not isinstance(entries, dict):
        return [f"{MANIFEST_FILE} is damaged: it has no list of files"]
    problems = check_entries(folder, entries, hashes=hashes)
    extra = sorted(set(_files_in(folder)) - set(entries))
    return problems + [f"{name} is not in {MANIFEST_FILE}: it was added after the save" for name in extra]


def list_checkpoints(run_dir: Path, *, hashes: bool = True) -> list[CheckpointInfo]:
    """The checkpoints of a run, sorted by step, damaged ones included with their problems.

    Only folders named ``step_<number>`` count; temporary ones of a save in progress do not. Without ``hashes`` the
    check is quick but not complete, see ``check_entries``.
    """
    checkpoints: list[CheckpointInfo] = []
    for step, path in checkpoint_folders(run_dir):
        if path.is_symlink():
            problem = f"{path.name} is a link, not a folder of this run"
            checkpoints.append(CheckpointInfo(path, step, 0, [problem]))
        else:
            checkpoints.append(CheckpointInfo(path, step, folder_bytes(path), check_manifest(path, hashes=hashes)))
    return checkpoints


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run has a checkpoint to go on from; presence and sizes of its files are looked at."""
    folders = reversed(checkpoint_folders(run_dir))
    return any(not path.is_symlink() and not check_manifest(path, hashes=False) for _, path in folders)


def checkpoint_folders(run_dir: Path) -> list[tuple[int, Path]]:
    """Step and folder of each checkpoint, sorted; nothing in them is looked at, and no link to others is followed."""
    folder = Path(run_dir) / CHECKPOINTS_FOLDER
    try:
        entries = [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:
        return []
    named = ((_CHECKPOINT_NAME.fullmatch(path.name), path) for path in entries)
    return sorted((int(match[1]), path) for match, path in named if match and path.is_dir())


def _check_file(folder: Path, name: str, entry: object, *, hashes: bool) -> str | None:
    entry = entry if isinstance(entry, Mapping) else {}
    if not isinstance(entry.get("bytes"), int) or not re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))):
        return f"{name}: its entry is damaged, size or sha256 is missing"
    path = folder / name
    try:
        if path.parent != folder or path.is_symlink():  # else there is no way out to follow
            inside(folder, path.absolute())
    except (ConfigError, OSError):
        return f"{name!r} is listed, but leads out of the folder"
    try:
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size < entry["bytes"]:
            return f"{name} is cut off: {size} of {entry['bytes']} bytes"
        if size > entry["bytes"]:
            return f"{name} has changed: {size} bytes instead of {entry['bytes']}"
        if hashes and sha256_file(path) != entry["sha256"]:
            return f"{name} has changed: its sha256 is not the one that was written"
    except OSError as problem:
        return f"{name} cannot be read: {problem.strerror or problem}"
    return None


def _files_in(folder: Path) -> list[str]:
    names: list[str] = []
    for current, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(current) / name).is_symlink()]  # not walked into, and not ours
        for path in (Path(current) / name for name in files + links):
            if path != folder / MANIFEST_FILE and path.name not in _NOT_OURS and not is_temporary(path):
                names.append(path.relative_to(folder).as_posix())
    return sorted(names)
