"""Find, list and verify bundles. Reads headers and metadata; loads no weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.config.kinds import Kind, table
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.store.files import read_json, sha256_file
from hrm_engine.store.manifest import (
    MANIFEST_FILE,
    METADATA_FILE,
    check_entries,
    check_manifest,
    list_checkpoints,
    schema_problem,
)
from hrm_engine.store.paths import Workspace, check_name, inside
from hrm_engine.store.status import live_state

METADATA_SCHEMA = 1
_SHOWN = 20


@dataclass(frozen=True)
class BundleInfo:
    """One row of a bundle list; None where the folder does not say."""

    name: str
    path: Path
    kind: str | None
    arch: str | None
    step: int | None
    state: str
    bytes: int
    num_parameters: int | None
    created: str | None
    parent: str | None
    problems: list[str]


def find_run(path_or_name: str | Path, workspace: Workspace, *, kind: Kind | None = None) -> Path:
    """The run or checkpoint folder that a user means by a name or a path.

    Of runs that share a name it is that of ``kind``, else the one whose kind stands first in the table.

    Raises:
        BundleError: there is none (names that exist are listed), or a model of transformers, which is imported first.
        ConfigError: the name or path is not acceptable, or a name that is a link out of its folder.
    """
    text = str(path_or_name)
    if "/" not in text and "\\" not in text and not isinstance(path_or_name, Path):
        name = check_name(text, "bundle name")
        rows = [row for row in table().values() if row.chosen_by is None]
        for row in sorted(rows, key=lambda row: row is not kind):
            home = workspace.resolve(row.home)
            if (home / name).is_dir():
                inside(home, home / name)
                _check_is_ours(home / name)
                return home / name
    candidate = workspace.resolve(path_or_name)
    if candidate.is_dir() and ((candidate / "config.json").is_file() or (candidate / "training_args.json").is_file()):
        _check_is_ours(candidate)
        return candidate
    raise no_bundle(text, workspace)


def _check_is_ours(folder: Path) -> None:
    content = _read(folder / "config.json")
    if "model_type" not in content or "kind" in content:
        return
    from hrm_engine.bundles.exchange.hf_config import MODEL_TYPE  # with torch, which a list of bundles does without

    found = content["model_type"]
    cure = (
        f"import it first: lab bundle import {folder} --format hf --name NAME"
        if found == MODEL_TYPE
        else f"only models of type {MODEL_TYPE!r} can be imported"
    )
    raise BundleError(f"{folder} is a model of transformers, of type {found!r}, and no bundle of this lab; {cure}")


def no_bundle(text: str, workspace: Workspace) -> BundleError:
    """The error for a name that no run has: it tells the names that there are, a shared one as its paths."""
    runs = [path for path in workspace.run_dirs() if not path.is_relative_to(workspace.experts)]
    names = [path.name for path in runs]
    known = sorted(
        path.name if names.count(path.name) == 1 else path.relative_to(workspace.root).as_posix() for path in runs
    )
    told = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    return BundleError(f"no bundle {text!r} in {workspace.root}. Runs here: {told or 'none; train one first'}")


def list_bundles(workspace: Workspace) -> list[BundleInfo]:
    """All run folders of a workspace, newest first; damaged ones included, with their problems; no experts."""
    rows = [_info(folder) for folder in workspace.run_dirs() if not folder.is_relative_to(workspace.experts)]
    return sorted(rows, key=lambda row: row.created or "", reverse=True)


def verify_bundle(path: Path) -> list[str]:
    """Everything that is wrong with a bundle, one sentence each; hashes of all files and checkpoints are taken."""
    problems = check_manifest(path) if (path / MANIFEST_FILE).is_file() else metadata_problems(path)
    if not problems:
        from hrm_engine.bundles.checking import bundle_problems  # with torch, which a list of bundles does without

        problems += bundle_problems(path)
    for info in list_checkpoints(path):
        problems += [f"{info.path.name}: {problem}" for problem in info.problems]
    return problems


def folder_problems(path: Path) -> list[str]:
    """What keeps a bundle or a checkpoint from being loaded; hashes are taken of the files that are loaded."""
    if (path / MANIFEST_FILE).is_file():
        return check_manifest(path)
    # A run that goes on replaces best/ while the bundle of its last session still stands.
    return metadata_problems(path, best=False)


def parent_record(path: Path) -> dict[str, str]:
    """What the metadata of a new bundle says about the one it came from: path, and a hash that covers all its files.

    Of a folder it is the hash of the file in which the hashes of all others stand.
    """
    seals = (path / MANIFEST_FILE, path / METADATA_FILE)
    return {"path": str(path), "sha256": sha256_file(next((file for file in seals if file.is_file()), path))}


def metadata_problems(path: Path, *, hashes: bool = True, best: bool = True) -> list[str]:
    """What is wrong with the files that ``metadata.json`` lists; without ``best``, those in ``best/`` aside."""
    if not (path / METADATA_FILE).is_file():
        return [
            f"{METADATA_FILE} is missing: the run has not finished or was killed; continue it with --resume, "
            "or load one of its checkpoints"
        ]
    try:
        metadata = read_json(path / METADATA_FILE, BundleError)
    except BundleError as problem:
        return [str(problem)]
    if problem := schema_problem(metadata.get("schema_version"), known=METADATA_SCHEMA, where=path / METADATA_FILE):
        return [problem]
    files = metadata.get("files")
    if not best and isinstance(files, dict):
        files = {name: entry for name, entry in files.items() if not name.startswith("best/")}
    problems = check_entries(path, files, hashes=hashes)
    if problems:
        problems.append("the last save was interrupted or files were changed; --resume rebuilds them from a checkpoint")
    return problems


def _info(path: Path) -> BundleInfo:
    metadata = _read(path / METADATA_FILE)
    config = _read(path / "config.json")
    parent = metadata.get("parent")
    created = metadata.get("created")
    return BundleInfo(
        name=path.name,
        path=path,
        kind=metadata.get("kind") or config.get("kind"),
        arch=config.get("arch"),
        step=metadata.get("step"),
        state=live_state(path),
        bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink()),
        num_parameters=_num_parameters(path),
        created=created if isinstance(created, str) else None,
        parent=parent.get("path") if isinstance(parent, dict) else None,
        problems=metadata_problems(path, hashes=False),
    )


def _num_parameters(path: Path) -> int | None:
    from hrm_engine.bundles.weights import tensor_shapes

    try:
        shapes = tensor_shapes(path, "model")
    except HRMError:
        return None
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(("_init", "balance_bias")))


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, BundleError)
    except BundleError:
        return {}
