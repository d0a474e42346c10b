"""Bundles that are made of other bundles: read the parent, write the child beside it, whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from hrm_engine.bundles.core_config import read_core_config, read_kind, write_core_config
from hrm_engine.bundles.listing import folder_problems, parent_record
from hrm_engine.bundles.save import TOP_LEVEL, seal_bundle
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.config import CoreConfig, kinds
from hrm_engine.errors import BundleError, ConfigError, HRMError
from hrm_engine.store.attached import EXPERTS_FIELD, Attached, parse_attached
from hrm_engine.store.clock import now_iso
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import clean_temporaries, new_folder, read_json, write_json
from hrm_engine.store.paths import ARGS_FILE, MANIFEST_FILE, METADATA_FILE, Workspace, check_name
from hrm_engine.store.processes import library_version
from hrm_engine.store.runs import find_run, free_folder
from hrm_engine.store.status import RunStatus, write_status

_LONGEST_NAME = 64
# What was measured of the parent is not so of a child with another network; the rest of its history is.
_NOT_OF_ANOTHER_NETWORK = ("metrics", "last_metrics", "first_metrics", "full_evaluation", "trained_s")


@dataclass(frozen=True)
class Origin:
    """A bundle as it was when it was read."""

    path: Path
    kind: str
    metadata: dict[str, Any]
    record: dict[str, str]


@dataclass(frozen=True)
class Parent(Origin):
    """One whose network becomes another one."""

    config: CoreConfig
    tensors: dict[str, Tensor]
    attached: list[Attached]


class _TakenError(HRMError):
    """Somebody else has just taken the name."""


def read_origin(path: Path) -> Origin:
    """Look at a finished bundle in a folder, every hash compared. Raises BundleError."""
    if (path / MANIFEST_FILE).is_file():
        raise BundleError(f"{path} is a checkpoint or a best/ folder: name the finished bundle, the run folder itself")
    record = parent_record(path) if (path / METADATA_FILE).is_file() else {}
    if problems := folder_problems(path):
        raise BundleError(f"{path} cannot be loaded: {'; '.join(problems)}")
    if not (path / ARGS_FILE).is_file():
        raise BundleError(f"{path} is no finished run: {ARGS_FILE} is missing")
    metadata = read_json(path / METADATA_FILE, BundleError)
    return Origin(path, read_kind(path, error=BundleError) or "unknown", metadata, record)


def load_parent(bundle: str | Path, workspace: Workspace) -> Parent:
    """Read a finished bundle with its weights, every hash compared. Raises BundleError, ConfigError."""
    origin = read_origin(find_run(bundle, workspace))
    config = read_core_config(origin.path, error=BundleError)
    attached = parse_attached(origin.metadata, config, origin.path)
    return Parent(**vars(origin), config=config, tensors=load_tensors(origin.path, "model"), attached=attached)


def write_child(
    parent: Parent,
    config: CoreConfig,
    tensors: dict[str, Tensor],
    attached: Sequence[Attached],
    suffix: str,
    name: str | None,
    workspace: Workspace,
    still_there: Callable[[RegistryContent], None] | None = None,
) -> Path:
    """Write a bundle with another network and return its folder; nothing is left of it when something fails.

    Args:
        suffix: of the default name, which is the parent's with it, or the next free number.
        name: taken in the place of that.
        still_there: looks, under the registry's lock, whether what is attached is still what it was, else raises.

    Raises:
        ConfigError: the name is taken or not allowed. BundleError: the parent has changed meanwhile.
        StorageError, LockedError, RegistryError: as they say.
    """
    targets = _targets(parent, suffix, name, workspace)
    fill = partial(_fill, parent=parent, config=config, tensors=tensors, attached=attached)
    return write_beside(parent, targets, fill, workspace, what="--name", still_there=still_there)


def write_beside(
    parent: Origin,
    targets: Iterable[Path],
    fill: Callable[[Path], None],
    workspace: Workspace,
    *,
    what: str,
    still_there: Callable[[RegistryContent], None] | None = None,
) -> Path:
    """Write a bundle made of ``parent`` as the first of ``targets`` that nobody takes meanwhile, and return it.

    What killed processes left beside it is put away first.

    Args:
        fill: writes everything into the folder that it is given, ``metadata.json`` last.
        what: the name's word in messages.
        still_there: as in :func:`write_child`.
    """
    for target in targets:
        clean_temporaries(target.parent, own=False)
        try:
            with ExitStack() as unfinished:
                folder = unfinished.enter_context(new_folder(target))
                fill(folder)
                # Large files are written by now. From here to the rename nobody can delete a card: who does looks for
                # bundles that it is attached to, and finds either this one or, before it, no reason to refuse.
                with ExpertRegistry(workspace).changing() as content:
                    if still_there is not None:
                        still_there(content)
                    if not (parent.path / METADATA_FILE).is_file() or parent_record(parent.path) != parent.record:
                        raise BundleError(f"{parent.path} was changed while it was read: try again")
                    if target.exists():
                        raise _TakenError
                    unfinished.close()
            return target
        except _TakenError:
            continue
    raise ConfigError(f"{target} exists: choose another {what}")


def home_of(parent: Origin, workspace: Workspace) -> Path:
    """Home of a child: beside its parent, where that is a place for runs of this workspace."""
    if parent.path.resolve() in {path.resolve() for path in workspace.run_dirs()}:
        return parent.path.parent
    kind = kinds.named(parent.kind)
    return workspace.runs if kind is None else workspace.resolve(kind.home)


def _targets(parent: Origin, suffix: str, name: str | None, workspace: Workspace) -> Iterator[Path]:
    home = home_of(parent, workspace)
    if name is not None:
        yield free_folder(home, name, "--name")
        return
    number = 1
    while True:
        end = suffix if number == 1 else f"{suffix}-{number}"
        target = home / check_name(
            (parent.path.name[: max(1, _LONGEST_NAME - len(end))] + end)[-_LONGEST_NAME:], "name"
        )
        if not (target.exists() or target.is_symlink()):
            yield target
        number += 1


def _fill(
    folder: Path, parent: Parent, config: CoreConfig, tensors: dict[str, Tensor], attached: Sequence[Attached]
) -> None:
    """Everything that makes the bundle; ``metadata.json`` last."""
    write_core_config(folder, config, parent.kind)
    files = save_tensors(folder, "model", tensors)
    for listed in parent.metadata["files"]:
        is_new = listed in ("config.json", ARGS_FILE) or (listed.startswith("model") and ".safetensors" in listed)
        if is_new or "/" in listed:
            continue
        shutil.copyfile(parent.path / listed, folder / listed)
        if listed not in TOP_LEVEL:
            files.append(listed)
    names = ", ".join(f"{entry.expert_id} in {entry.layer}" for entry in attached) or "none"
    facts = child_facts(parent, f"experts-{secrets.token_hex(6)}", leave_out=_NOT_OF_ANOTHER_NETWORK)
    facts[EXPERTS_FIELD] = [asdict(entry) for entry in attached]
    seal_child(folder, parent, files, facts, message=f"made of {parent.path.name}; attached experts: {names}")


def seal_child(
    folder: Path, parent: Origin, files: list[str], facts: dict[str, Any], *, message: str, is_run: bool = False
) -> None:
    """Write arguments, status, and last the metadata of a child, whose weights and companions are ``files``."""
    if not is_run:  # --resume refuses what says so: it would begin the parent's training again in this folder
        arguments = read_json(parent.path / ARGS_FILE, BundleError)
        write_json(folder / ARGS_FILE, {**arguments, "made_of": str(parent.path)})
    step = parent.metadata.get("step")
    write_status(folder, RunStatus.of_this_process("finished", step if isinstance(step, int) else 0, message))
    seal_bundle(folder, parent.kind, files, facts)


def child_facts(parent: Origin, run_id: str, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Metadata of a child: its origin, and the rest of its parent's history."""
    now, code = now_iso(), library_version("hrm-lab")
    new = {"run_id": run_id, "created": now, "updated": now, "parent": parent.record, "code_version": code}
    not_inherited = {"schema_version", "kind", "files", *leave_out}
    return {**{field: value for field, value in parent.metadata.items() if field not in not_inherited}, **new}
