"""Find, list and verify bundles. Reads headers and metadata; loads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrm_engine.errors import BundleError, HRMError
from hrm_engine.store.disk_usage import folder_bytes
from hrm_engine.store.files import readable_json, sha256_file
from hrm_engine.store.manifest import (
    SEAL,
    check_entries,
    check_manifest,
    checkpoint_folders,
    has_checkpoint,
    list_checkpoints,
    read_versioned,
    seal_problem,
)
from hrm_engine.store.paths import BEST_FOLDER, CHECKPOINTS_FOLDER, CONFIG_FILE, MANIFEST_FILE, METADATA_FILE, Workspace
from hrm_engine.store.status import live_state

METADATA_SCHEMA = 2
_FIRST_SEALED = 2
_MOST_PARENTS = 100


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


def list_bundles(workspace: Workspace) -> list[BundleInfo]:
    """All run folders of a workspace, newest first; damaged ones included, with their problems; no experts."""
    folders = [folder for folder in workspace.run_dirs() if not folder.is_relative_to(workspace.experts)]
    rows = [row for folder in folders if (row := _info(folder)).path.is_dir()]  # not deleted or renamed meanwhile
    return sorted(rows, key=lambda row: row.created or "", reverse=True)


def verify_bundle(path: Path) -> list[str]:
    """Everything that is wrong with a bundle, one sentence each; hashes of all files and checkpoints are taken."""
    if (path / MANIFEST_FILE).is_file():
        problems = check_manifest(path)
    else:
        problems = metadata_problems(path)
        if not problems and (path / BEST_FOLDER).exists():  # one that was damaged when the bundle was sealed
            problems = [f"{BEST_FOLDER}/{problem}" for problem in check_manifest(path / BEST_FOLDER)]
    if not problems:
        from hrm_engine.bundles.checking import bundle_problems  # with torch, which a list of bundles does without

        problems = bundle_problems(path)
    for info in list_checkpoints(path):
        problems += [f"{info.path.name}: {problem}" for problem in info.problems]
    return problems


def folder_problems(path: Path) -> list[str]:
    """Reasons why a bundle or a checkpoint cannot be loaded; the files that are loaded are hashed."""
    if (path / MANIFEST_FILE).is_file():
        return check_manifest(path)
    # A run that goes on replaces best/ while the bundle of its last session still stands.
    return metadata_problems(path, best=False)


def parent_record(path: Path) -> dict[str, str]:
    """Record of a parent for the metadata of a new bundle: its path, and a hash that covers all its files.

    Of a folder it is the hash of the file in which the hashes of all others stand.
    """
    seals = (path / MANIFEST_FILE, path / METADATA_FILE)
    return {"path": str(path), "sha256": sha256_file(next((file for file in seals if file.is_file()), path))}


def descends_from(folder: Path, sha256: str) -> bool:
    """Whether a folder has this hash (:func:`parent_record`) or was made of what has it, if its parents are there."""
    for _ in range(_MOST_PARENTS):
        if parent_record(folder)["sha256"] == sha256:
            return True
        parent = readable_json(folder / METADATA_FILE).get("parent")
        if not isinstance(parent, dict) or not isinstance(parent.get("path"), str):
            return False
        if parent.get("sha256") == sha256:
            return True
        folder = Path(parent["path"])
        try:
            if not (folder / METADATA_FILE).is_file() or parent_record(folder)["sha256"] != parent.get("sha256"):
                return False
        except (OSError, ValueError):
            return False
    return False


def metadata_problems(path: Path, *, hashes: bool = True, best: bool = True) -> list[str]:
    """Problems of the files that ``metadata.json`` lists; without ``best``, those in ``best/`` aside."""
    if not (path / METADATA_FILE).is_file():
        if live_state(path) == "running":
            steps = checkpoint_folders(path)
            newest = f"; its newest checkpoint is {path.name}/{CHECKPOINTS_FOLDER}/{steps[-1][1].name}" if steps else ""
            return [f"its training is still running: wait until it ends{newest}"]
        if has_checkpoint(path):
            cure = "the run has not finished or was killed; continue it with --resume, or load one of its checkpoints"
        else:
            cure = "the run has not finished or was killed, and has no checkpoint yet; --resume begins it again"
        return [f"{METADATA_FILE} is missing: {cure}"]
    try:
        metadata = read_versioned(path / METADATA_FILE, known=METADATA_SCHEMA, error=BundleError)
        is_sealed = SEAL in metadata or metadata["schema_version"] >= _FIRST_SEALED
        broken = seal_problem(path / METADATA_FILE, BundleError) if hashes and is_sealed else None
    except BundleError as problem:
        return [str(problem)]
    files = metadata.get("files")
    if not best and isinstance(files, dict):
        files = {name: entry for name, entry in files.items() if not name.startswith("best/")}
    problems = ([broken] if broken else []) + check_entries(path, files, hashes=hashes)
    if problems:
        cure = "--resume rebuilds them from a checkpoint" if has_checkpoint(path) else "there is no checkpoint of it"
        problems.append(f"the last save was interrupted or files were changed; {cure}")
    return problems


def _info(path: Path) -> BundleInfo:
    state = live_state(path)  # before its files: one that ends meanwhile has replaced them
    metadata = readable_json(path / METADATA_FILE)
    config = readable_json(path / CONFIG_FILE)
    parent = metadata.get("parent")
    return BundleInfo(
        name=path.name,
        path=path,
        kind=_text(metadata.get("kind")) or _text(config.get("kind")),
        arch=_text(config.get("arch")),
        step=step if isinstance(step := metadata.get("step"), int) else None,
        state=state,
        bytes=folder_bytes(path),
        num_parameters=_num_parameters(path),
        created=_text(metadata.get("created")),
        parent=_text(parent.get("path")) if isinstance(parent, dict) else None,
        # a run that goes on writes these files one after the other
        problems=[] if state == "running" and metadata else metadata_problems(path, hashes=False),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _num_parameters(path: Path) -> int | None:
    from hrm_engine.bundles.weights import meta_tensors

    try:
        tensors = meta_tensors(path, "model")
    except HRMError:
        return None
    return sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(("_init", "balance_bias")))
