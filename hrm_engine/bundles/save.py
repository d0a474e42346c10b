"""Write what a bundle and a checkpoint have in common, and seal a bundle; the history of one that was imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hrm_engine.bundles.core_config import write_core_config
from hrm_engine.bundles.listing import METADATA_SCHEMA
from hrm_engine.bundles.weights import save_tensors
from hrm_engine.config import Config
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import sha256_file, write_json
from hrm_engine.store.manifest import check_manifest, file_entries, write_sealed
from hrm_engine.store.paths import ARGS_FILE, BEST_FOLDER, METADATA_FILE
from hrm_engine.store.processes import library_version
from hrm_engine.store.status import RunStatus, write_status

ARGS_SCHEMA = 1
TOP_LEVEL = ("config.json", "training_args.json")
"""What every bundle has beside its weights; its companions come to it."""


class Companions(Protocol):
    """Files of a bundle beside configuration and weights: a tokenizer, a puzzle card."""

    def save_to(self, folder: Path) -> list[str]:
        """Write the files and return their names. Raises StorageError."""
        ...


def write_model(
    folder: Path,
    kind: str,
    config: Config,
    tensors: Mapping[str, Tensor],
    companions: Companions,
    *,
    weights_name: str = "model",
) -> list[str]:
    """Configuration, weights and what belongs to them: what rebuilds the model.

    Returns the names of all files but the configuration, for :func:`seal_bundle`.
    """
    write_core_config(folder, config, kind)
    names = save_tensors(folder, weights_name, tensors)
    return [*names, *companions.save_to(folder)]


def seal_bundle(folder: Path, kind: str, files: list[str], facts: Mapping[str, Any]) -> None:
    """Write ``metadata.json`` last: with sizes and hashes of everything that makes the bundle, ``best/*`` included."""
    names = [name for name in TOP_LEVEL if (folder / name).is_file()] + files
    if not check_manifest(folder / BEST_FOLDER):  # a damaged one must not be taken for what was written
        names += sorted(f"{BEST_FOLDER}/{path.name}" for path in (folder / BEST_FOLDER).iterdir() if path.is_file())
    content = {"schema_version": METADATA_SCHEMA, "kind": kind, **facts, "files": file_entries(folder, names)}
    write_sealed(folder / METADATA_FILE, content)


def write_history(
    folder: Path,
    kind: str,
    source: Mapping[str, str],
    origin: Mapping[str, Any],
    their_parameters: Mapping[str, Any],
    command_line: list[str] | None,
    files: list[str],
) -> None:
    """Write what a run has that has finished elsewhere: its arguments, its state, and last the list of files.

    Args:
        source: path or hub id, and what tells its version: ``sha256`` or ``revision``.
        origin: what an export needs to give back the same; ``imported`` in the metadata.
        files: the weights, which are there already.
    """
    number = Path(source["path"]).name.removeprefix("step_")
    step = int(number) if number.isdecimal() else 0
    write_json(
        folder / ARGS_FILE,
        {
            "schema_version": ARGS_SCHEMA,
            "kind": kind,
            "command_line": command_line,
            "imported_from": source["path"],
            # not "parameters": those are of a training of ours, which --resume could continue
            "their_parameters": their_parameters,
        },
    )
    write_status(folder, RunStatus.of_this_process("finished", step, f"imported from {source['path']}"))
    now = now_iso()
    facts = {
        "run_id": f"import-{source.get('sha256', sha256_file(folder / files[0]))[:12]}",
        "created": now,
        "updated": now,
        "step": step,
        "weights": {"which": "imported", "step": step},
        "parent": dict(source),
        "imported": dict(origin),
        "code_version": library_version("hrm-lab"),
        "library_versions": {"torch": torch.__version__},
    }
    seal_bundle(folder, kind, files, facts)
