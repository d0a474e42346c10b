"""Copy, rename and delete run folders: each leaves the old or the new, whenever it is killed.

What a finished bundle says of itself is never changed. A copy is a new bundle that names its parent; a rename moves the
folder with all that is in it, its run id and its history included; a deletion takes the name away first, in one step.
A folder that a training works in is refused, and what killed commands left beside it is put away by the next one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hrm_engine.bundles.child import Origin, child_facts, home_of, read_origin, seal_child, write_beside
from hrm_engine.bundles.listing import parent_record
from hrm_engine.bundles.save import TOP_LEVEL
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.disk_usage import folder_bytes
from hrm_engine.store.files import (
    clean_temporaries,
    is_temporary,
    move_folder,
    read_json,
    readable_json,
    remove_folder,
    write_bytes,
    write_json,
)
from hrm_engine.store.locks import HOLDER_FILE, LOCK_FILE, FolderLock
from hrm_engine.store.manifest import list_checkpoints, write_manifest
from hrm_engine.store.paths import (
    ARGS_FILE,
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    METADATA_FILE,
    METRICS_FILE,
    STATE_FILE,
    STATUS_FILE,
    WANDB_FOLDER,
    Workspace,
    check_name,
    inside,
)
from hrm_engine.store.runs import find_run, free_folder

# Not the metrics: a copy of these may lie in any folder (--log-file).
_MARKS = (ARGS_FILE, METADATA_FILE, STATUS_FILE)
# Of another run, of this moment, or written anew in a copy. wandb/ belongs to the parent's run at that service.
_NOT_COPIED = frozenset({LOCK_FILE, HOLDER_FILE, STATUS_FILE, METADATA_FILE, METRICS_FILE, WANDB_FOLDER})


def copy_bundle(
    bundle: str | Path, name: str, *, with_checkpoints: bool = False, workspace: Workspace | None = None
) -> Path:
    """Write a new bundle with the files of a finished one, and return its folder, which lies beside it.

    It has a run id of its own, and its metadata names the parent and the hash of the parent's metadata. Weights,
    ``best/``, metrics and log come along.

    Args:
        with_checkpoints: its checkpoints too, so that the copy can be resumed; damaged ones are left out. Without
            them it is no run to resume.

    Raises:
        BundleError: no such bundle, not finished, or damaged. ConfigError: the name is taken or not allowed.
        LockedError: a training works in it. StorageError: the copy cannot be written.
    """
    workspace = workspace or Workspace.find()
    path = find_changeable(bundle, workspace)
    check_name(name, "new name")
    with FolderLock(path):
        origin = read_origin(path)
        target = free_folder(home_of(origin, workspace), name, "new name")
        run_id = f"{name}-{secrets.token_hex(4)}"
        fill = partial(_fill_copy, origin=origin, run_id=run_id, with_checkpoints=with_checkpoints)
        return write_beside(origin, [target], fill, workspace, what="new name")


def rename_bundle(bundle: str | Path, name: str, *, workspace: Workspace | None = None) -> Path:
    """Give a run folder another name in the same place; nothing in it changes. Returns where it is now.

    Raises:
        BundleError: no such run folder. ConfigError: the name is taken or not allowed.
        LockedError: a training works in it. StorageError: it cannot be moved.
    """
    workspace = workspace or Workspace.find()
    path = find_changeable(bundle, workspace)
    target = free_folder(path.parent, name, "new name")
    clean_temporaries(path.parent, own=False)
    with _held(path):
        move_folder(path, target)
    return target


def delete_bundle(bundle: str | Path, *, workspace: Workspace | None = None) -> int:
    """Delete a run folder with everything in it, for good; returns how many bytes that were.

    Raises:
        BundleError: no such run folder. LockedError: a training works in it.
        StorageError: it cannot be removed.
    """
    workspace = workspace or Workspace.find()
    path = find_changeable(bundle, workspace)
    clean_temporaries(path.parent, own=False)
    num_bytes = folder_bytes(path)
    with _held(path):
        remove_folder(path)
    return num_bytes


def delete_old_checkpoints(bundle: str | Path, *, workspace: Workspace | None = None) -> tuple[list[Path], int]:
    """Delete all checkpoints of a run but the newest whole one; returns which, and how many bytes that were.

    Damaged ones go as well, unless no whole one is left: then nothing is deleted.

    Raises:
        BundleError: no such run folder. LockedError: a training works in it. StorageError: one cannot be removed.
    """
    path = find_changeable(bundle, workspace or Workspace.find())
    with FolderLock(path):
        checkpoints = list_checkpoints(path)
        whole = [info for info in checkpoints if not info.problems]
        old = [info for info in checkpoints if whole and info is not whole[-1]]
        for info in old:
            if info.path.is_symlink():
                info.path.unlink()
            else:
                remove_folder(info.path)
        return [info.path for info in old], sum(info.bytes for info in old)


def made_of(path: Path, workspace: Workspace) -> list[Path]:
    """Other run folders of a workspace that say they came from ``path`` or from something in it, sorted.

    They are told by the path in their metadata or their ``--student-init``, or by the hash of its metadata, which a
    rename does not change.
    """
    digest = parent_record(path)["sha256"] if (path / METADATA_FILE).is_file() else None
    return [
        folder
        for folder in workspace.run_dirs()
        if folder.resolve() != path and any(_is_from(origin, path, digest, workspace) for origin in _origins(folder))
    ]


def find_changeable(bundle: str | Path, workspace: Workspace) -> Path:
    """The run folder inside the workspace that a user means; archived ones only by path.

    Raises:
        BundleError: there is none, or it is an expert, a checkpoint, no run folder at all, or holds other runs.
        ConfigError: several have that name, or it leads out of the workspace.
    """
    inside(workspace.root, Path(bundle))
    path = inside(workspace.root, find_run(bundle, workspace))
    if path.is_relative_to(workspace.experts.resolve()):
        raise BundleError(f"{path} is an expert: 'lab experts' has the commands for these")
    if (path / MANIFEST_FILE).is_file():
        raise BundleError(f"{path} is a checkpoint or a best/ folder: name the run folder itself")
    if not any((path / name).is_file() for name in _MARKS):
        raise BundleError(f"{path} is no run folder: 'lab bundle list' shows those of this workspace")
    if inner := [folder for folder in workspace.run_dirs() if path in folder.resolve().parents]:
        raise BundleError(f"{path} holds other runs, such as {inner[0]}: change these first")
    return path


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that loses its name within."""
    lock = FolderLock(folder).acquire()
    try:
        (folder / HOLDER_FILE).unlink(missing_ok=True)  # it would go along, and be taken for a holder that died
        if os.name == "nt":  # where a folder in which a file is open cannot be moved
            lock.release()
        yield
    finally:
        lock.release()


def _fill_copy(folder: Path, origin: Origin, run_id: str, with_checkpoints: bool) -> None:
    """Everything that makes the copy; ``metadata.json`` last."""
    left_out = _NOT_COPIED if with_checkpoints else _NOT_COPIED | {CHECKPOINTS_FOLDER}

    def skipped(current: str, names: list[str]) -> set[str]:
        source = Path(current)
        odd = {name for name in names if is_temporary(source / name) or (source / name).is_symlink()}
        return odd | (left_out & set(names) if source == origin.path else set())

    shutil.copytree(origin.path, folder, ignore=skipped, copy_function=shutil.copyfile, dirs_exist_ok=True)
    metrics = origin.path / METRICS_FILE
    # As rows of the copy: one that is resumed goes on under its own id.
    if metrics.is_file() and not metrics.is_symlink():
        old, new = (f'"run_id":"{name}"'.encode() for name in (origin.metadata.get("run_id"), run_id))
        write_bytes(folder / METRICS_FILE, metrics.read_bytes().replace(old, new))
    weights = [name for name in origin.metadata["files"] if "/" not in name and name not in TOP_LEVEL]
    facts = child_facts(origin, run_id)
    is_run = _adopt_checkpoints(folder, origin)
    seal_child(folder, origin, weights, facts, message=f"copy of {origin.path.name}", is_run=is_run)


def _adopt_checkpoints(folder: Path, origin: Origin) -> bool:
    """Let the whole checkpoints of a copy name its parent, and drop the others; False if there is none."""
    adopted = False
    for info in list_checkpoints(folder):
        if info.problems:
            shutil.rmtree(info.path)
            continue
        content = read_json(info.path / STATE_FILE, BundleError)
        content["state"]["parent"] = origin.record
        write_json(info.path / STATE_FILE, content)
        write_manifest(info.path)
        adopted = True
    return adopted


def _origins(folder: Path) -> list[dict[str, Any]]:
    """The origins that a run folder names; none where it cannot be read."""
    arguments = readable_json(folder / ARGS_FILE)
    origins: list[Any] = [readable_json(folder / METADATA_FILE).get("parent"), arguments.get("forked_from")]
    start = (arguments.get("parameters") or {}).get("start")
    if isinstance(start, dict):
        origins.append({"path": start.get("student_init")})
    return [origin for origin in origins if isinstance(origin, dict)]


def _is_from(origin: dict[str, Any], path: Path, digest: str | None, workspace: Workspace) -> bool:
    if digest is not None and origin.get("sha256") == digest:
        return True
    named = origin.get("path")
    if not isinstance(named, str):
        return False
    try:
        return workspace.resolve(named).resolve().is_relative_to(path)
    except (ConfigError, OSError, RuntimeError):
        return False
