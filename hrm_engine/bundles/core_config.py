"""``config.json``: what rebuilds the model."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hrm_engine.config import CoreConfig
from hrm_engine.errors import CheckpointError, HRMError
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.manifest import schema_problem

KIND = "actv1"
CONFIG_SCHEMA = 1


def write_core_config(folder: Path, config: CoreConfig) -> None:
    """Write ``config.json``. Raises StorageError."""
    write_json(folder / "config.json", {"schema_version": CONFIG_SCHEMA, "kind": KIND, **config.model_dump()})


def read_core_config(folder: Path, *, error: type[HRMError] = CheckpointError) -> CoreConfig:
    """Read ``config.json``. Raises ``error`` for another kind, a newer version or fields that do not fit."""
    path = folder / "config.json"
    content = read_json(path, error)
    if problem := schema_problem(content.pop("schema_version", None), known=CONFIG_SCHEMA, where=path):
        raise error(f"{folder}: {problem}")
    if (kind := content.pop("kind", None)) != KIND:
        raise error(f"{path} describes a bundle of kind {kind!r}; this command needs kind {KIND!r}")
    try:
        return CoreConfig.model_validate(content)
    except ValidationError as problem:
        fields = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problem.errors())
        raise error(f"{path} does not describe a model that this version knows: {fields}") from problem
