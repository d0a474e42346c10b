"""Write what a bundle and a checkpoint have in common, and seal a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hrm_engine.bundles.core_config import write_core_config
from hrm_engine.bundles.listing import METADATA_SCHEMA
from hrm_engine.bundles.weights import save_tensors
from hrm_engine.config import Config
from hrm_engine.store.files import write_json
from hrm_engine.store.manifest import file_entries
from hrm_engine.store.paths import BEST_FOLDER, METADATA_FILE

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
    if (folder / BEST_FOLDER).is_dir():
        names += sorted(f"best/{path.name}" for path in (folder / BEST_FOLDER).iterdir() if path.is_file())
    content = {"schema_version": METADATA_SCHEMA, "kind": kind, **facts, "files": file_entries(folder, names)}
    write_json(folder / METADATA_FILE, content)
