"""Writing files so that a reader finds the old or the new content, never a part of either.

Everything is written under a temporary name in the same folder, flushed to the disk and renamed. Temporary names begin
with ``.tmp-`` or ``.old-`` and hold the id of the writing process, so that ``clean_temporaries`` can put away what a
killed process left behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hrm_engine.errors import BundleError, HRMError, StorageError
from hrm_engine.reading import LINK, load_json
from hrm_engine.store.processes import is_alive

_TEMPORARY = re.compile(r"\.(?P<kind>tmp|old)-(?P<pid>[0-9]{1,9})-[0-9a-f]{8}-(?P<name>.+)", re.DOTALL)
_OS_ERROR = re.compile(r"\(os error (\d{1,4})\)")
_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, or choose another folder",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: choose a folder that you may write, or change its permissions",
    errno.EPERM: "permission denied: choose a folder that you may write, or change its permissions",
    errno.ENOTDIR: "a file stands where a folder is needed: move the file, or choose another folder",
    errno.EEXIST: "something of that name is in the way: move it, or choose another name",
    errno.EISDIR: "a folder stands where a file is needed: move the folder, or choose another name",
    errno.ELOOP: LINK,
    errno.ENAMETOOLONG: "the name is too long for this file system: choose a shorter one",
}
if hasattr(errno, "EDQUOT"):
    _REASONS[errno.EDQUOT] = "the disk quota is used up: free some space, or choose another folder"


OBJECT_LIMIT = 64 << 20
"""Most bytes of a JSON object in one of our files; a registry of 10,000 experts has 20 MB."""


def storage_error(problem: OSError, path: Path, *, doing: str = "write") -> StorageError:
    """The StorageError for a failed operation on ``path``: what, where, why, and what to do about it."""
    reason = _REASONS.get(problem.errno or 0, problem.strerror or str(problem))
    return StorageError(f"cannot {doing} {path}: {reason}")


@contextmanager
def storing(path: Path, *, doing: str = "write") -> Iterator[None]:
    """Raise an OSError of the block as the StorageError of :func:`storage_error`; so too what libraries make of one."""
    try:
        yield
    except OSError as problem:
        raise storage_error(problem, path, doing=doing) from problem
    except Exception as problem:  # those in Rust raise exceptions of their own, or bare ones, with such words
        if isinstance(problem, HRMError) or not (match := _OS_ERROR.search(str(problem))):
            raise
        number = int(match[1])
        raise storage_error(OSError(number, os.strerror(number)), path, doing=doing) from problem


def finite(value: Any) -> Any:
    """``value`` with every number that is not finite replaced by None, also inside lists and dicts (JSON has none)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def write_json(path: Path, obj: Any) -> None:
    """Write ``obj`` as indented JSON, atomically.

    Raises StorageError if the target cannot be written; ValueError or TypeError if ``obj`` has no JSON form (for
    numbers that may be non-finite, pass ``finite(obj)``). In both cases the old file is untouched.
    """
    write_bytes(path, json_bytes(obj))


def json_bytes(obj: Any) -> bytes:
    """``obj`` as :func:`write_json` writes it. Raises ValueError or TypeError where it has no JSON form."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half a surrogate pair, as a damaged file name can hold, is written escaped, which is how JSON has it.
    return text.encode("utf-8", errors="backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically; newlines stay as they are. Raises StorageError."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``, atomically and through to the disk; the folder is made if needed. Raises StorageError."""
    path = Path(path)
    temporary = _temporary_name(path, "tmp")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _new_file(temporary, data):
            _replace(temporary, path)
        _fsync_folder(path.parent)


def read_json(path: Path, error: type[HRMError] = BundleError) -> dict[str, Any]:
    """The JSON object in ``path``. Missing, unreadable, damaged or not an object: ``error``, with file and line."""
    value = load_json(Path(path), error, limit=OBJECT_LIMIT)
    if not isinstance(value, dict):
        raise error(f"{path}, line 1: a JSON object is expected, found {type(value).__name__}")
    return value


def readable_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; an empty one where it cannot be read."""
    try:
        return read_json(path)
    except BundleError:
        return {}


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content as 64 hexadecimal digits, read in blocks. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; when the block ends well it is flushed to the disk and renamed to it.

    If the block raises, the temporary folder is removed and nothing else has changed. An existing ``path`` is refused
    with StorageError, unless ``replace`` is given: then a folder (or a link, not what it leads to) is moved aside, and
    removed once the new one stands; a file, which is nothing of ours, is refused. Killed between those two renames,
    ``clean_temporaries`` brings the old one back. Raises StorageError.
    """
    path = Path(path)
    with temporary_folder(path) as temporary, storing(path):
        yield temporary
        _open_to_others(temporary)
        _fsync_tree(temporary)
        _move_into_place(temporary, path, replace=replace)
        _fsync_folder(path.parent)


def move_folder(source: Path, target: Path) -> None:
    """Give a folder another name in one step, through to the disk. An existing ``target`` is refused.

    Raises StorageError.
    """
    with storing(target, doing=f"move {source.name} to"):
        if target.exists() or target.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        _replace(source, target)
        _fsync_folder(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder: first its name, in one step, then what is in it, which ``clean_temporaries`` finishes.

    Raises StorageError: it is still there, whole, or a part of it is left under a temporary name.
    """
    temporary = _temporary_name(path, "tmp")
    move_folder(path, temporary)
    with storing(temporary, doing="remove"):
        shutil.rmtree(temporary)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that is gone at the end; what kills left of others for it is put away first.

    Raises StorageError.
    """
    folder = _temporary_name(path, "tmp")
    clean_temporaries(path.parent, name=path.name, own=False)
    with storing(path, doing="create the folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_temporaries(folder: Path, *, name: str | None = None, own: bool = True) -> list[str]:
    """Put away what killed writers left in ``folder``, or only what they left of ``name``; one sentence for each.

    A folder that was moved aside and never replaced gets its name back; everything else temporary is removed. Leftovers
    of processes that still run are not touched. Call it while holding the folder's lock.

    Args:
        own: also what this very process has written: for whoever holds the lock that is the leftover of an attempt
            that failed. Without a lock another thread may be writing it.
    """
    done: list[str] = []
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError:
        return done
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        if match is None or name not in (None, match["name"]):
            continue
        pid = int(match["pid"])
        if (pid != os.getpid() or not own) and _is_written_by(pid, entry):
            continue
        original = entry.with_name(match["name"])
        with suppress(OSError):
            if match["kind"] == "old" and not original.exists():
                entry.rename(original)
                done.append(f"{original.name} was brought back: its replacement was interrupted")
            else:
                remove_entry(entry)
                done.append(f"{entry.name}, left by an interrupted save, was removed")
    return done


def remove_entry(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a name is one of the temporary names of this module."""
    return _TEMPORARY.fullmatch(Path(path).name) is not None


def ensure_writable(folder: Path) -> None:
    """Make ``folder`` if needed and prove that a file can be written in it. Raises StorageError."""
    folder = Path(folder)
    with storing(folder, doing="write in"):
        folder.mkdir(parents=True, exist_ok=True)
        with _new_file(_temporary_name(folder / "probe", "tmp"), bytes(4096)):
            pass


def _is_written_by(pid: int, entry: Path) -> bool:
    """Whether that process runs and is the one that made or renamed ``entry``: numbers are used again."""
    seen = None
    if os.name != "nt":  # where a rename changes no time of the file
        try:
            seen = entry.lstat().st_ctime
        except OSError:
            return False
    return is_alive(pid, seen=seen)


@contextmanager
def _new_file(path: Path, data: bytes) -> Iterator[None]:
    """Write a file that does not exist, through to the disk; it is gone when the block ends, unless it was moved."""
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _temporary_name(path: Path, kind: str) -> Path:
    return path.with_name(f".{kind}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _replace(source: Path, target: Path) -> None:
    # Windows refuses to replace a file that somebody is reading at this moment; readers here hold files only briefly.
    for attempt in range(20):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == 19:
                raise
            time.sleep(0.05)


def _move_into_place(temporary: Path, path: Path, *, replace: bool) -> None:
    if not (path.exists() or path.is_symlink()):
        _replace(temporary, path)
        return
    if not replace or not (path.is_dir() or path.is_symlink()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    aside = _temporary_name(path, "old")
    _replace(path, aside)
    try:
        _replace(temporary, path)
    except OSError:
        _replace(aside, path)
        raise
    with suppress(OSError):
        remove_entry(aside)


def _open_to_others(folder: Path) -> None:
    """Give every file the mode that the umask gives; some libraries write files that their owner alone may read."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def _fsync_tree(folder: Path) -> None:
    for current, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(current) / name
            if not file.is_symlink():
                # Windows flushes only a handle that may write.
                with file.open("r+b") as handle:
                    os.fsync(handle.fileno())
        _fsync_folder(Path(current))


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there; NTFS journals the rename itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network file systems know no fsync of a folder; the data of the files is safe already.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
