"""Folders of data that users give: one rule for every reader about which of their files count.

Names that begin with a dot and those that systems leave behind are passed over. A link is followed, what is reached
twice is read once, and the own files of a folder come before those that a link leads to.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hrm_engine.errors import DataError

_SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found", "@eadir"}
)


@dataclass(frozen=True)
class DataFolder:
    """One folder: its files with an accepted suffix, by name, and how many others lie beside them."""

    path: Path
    files: list[Path]
    num_others: int


def data_folders(folder: Path, suffixes: Collection[str]) -> list[DataFolder]:
    """A folder and those below it, each before its own subfolders, these by name.

    ``suffixes`` are in lower case; those of the files are compared without case.

    Raises:
        DataError: a folder cannot be read, or a link with an accepted suffix or none leads nowhere.
    """
    try:
        return _without_second_links(_walk(folder, suffixes))
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror or error}).") from error


def broken_link(path: Path) -> str | None:
    """A sentence if ``path`` is a link that leads nowhere."""
    if not path.is_symlink() or path.exists():
        return None
    return f"{path} is a broken link: it leads to {path.readlink()}, which is not there."


def _walk(folder: Path, suffixes: Collection[str]) -> list[DataFolder]:
    found: list[DataFolder] = []
    walked: set[str] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if real in walked:  # a link may lead to a folder that was read, also to one above it
            continue
        walked.add(real)
        files, below, num_others = [], [], 0
        for name in sorted(os.listdir(current)):  # noqa: PTH208  -- names are needed, not paths
            path = current / name
            if name.startswith(".") or name.lower() in _SYSTEM_NAMES:
                continue
            if path.is_dir():
                (links if path.is_symlink() else below).append(path)
            elif path.suffix.lower() in suffixes and path.is_file():
                files.append(path)
            elif path.suffix.lower() in {"", *suffixes} and (broken := broken_link(path)):  # perhaps to a folder
                raise DataError(f"{broken} Bring its target back or remove the link.")
            else:
                num_others += 1
        waiting += reversed(below)
        found.append(DataFolder(current, files, num_others))
    return found


def _without_second_links(found: list[DataFolder]) -> list[DataFolder]:
    """The folders without links to files that are in the list anyway."""
    taken = {os.path.realpath(file) for folder in found for file in folder.files if not file.is_symlink()}
    kept = []
    for folder in found:
        files = []
        for file in folder.files:
            if file.is_symlink():
                real = os.path.realpath(file)
                if real in taken:
                    continue
                taken.add(real)
            files.append(file)
        kept.append(DataFolder(folder.path, files, folder.num_others))
    return kept
