"""``config.json``: what rebuilds the model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hrm_engine.config import Config, CoreConfig, kinds
from hrm_engine.errors import CheckpointError, HRMError
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.manifest import schema_problem
from hrm_engine.store.paths import CONFIG_FILE

CONFIG_SCHEMA = 1

C = TypeVar("C", bound=Config)


def write_core_config(folder: Path, config: Config, kind: str) -> None:
    """Write ``config.json``. Raises StorageError."""
    write_json(folder / CONFIG_FILE, {"schema_version": CONFIG_SCHEMA, "kind": kind, **config.model_dump()})


def read_kind(folder: Path, *, error: type[HRMError] = CheckpointError) -> str | None:
    """The kind of bundle that ``config.json`` describes, if it does. Raises ``error`` where it cannot be read."""
    kind = read_json(folder / CONFIG_FILE, error).get("kind")
    return kind if isinstance(kind, str) else None


def read_core_config(folder: Path, *, kind: str | None = None, error: type[HRMError] = CheckpointError) -> CoreConfig:
    """Read ``config.json`` of a recurrent core.

    Args:
        kind: the one that is needed; None takes any whose network is such a core.

    Raises:
        ``error``: another kind, a newer version, or fields that do not fit.
    """
    return read_config(folder, CoreConfig, kind=kind, error=error)


def read_config(
    folder: Path, network: type[C], *, kind: str | None = None, error: type[HRMError] = CheckpointError
) -> C:
    """Read ``config.json`` as a network of this sort; else as :func:`read_core_config`."""
    path = folder / CONFIG_FILE
    content = read_json(path, error)
    if too_new := schema_problem(content.pop("schema_version", None), known=CONFIG_SCHEMA, where=path):
        raise error(f"{folder}: {too_new}")
    recorded, known = content.pop("kind", None), kinds.table()
    fitting = [row.name for row in known.values() if row.network is network] if kind is None else [kind]
    if recorded not in fitting:
        needed = known[fitting[0]].words.makes if len(fitting) == 1 else ""
        raise error(
            f"{path} describes a bundle of kind {recorded!r}; this command needs kind {' or '.join(fitting)!r}"
            + (f", {needed}" if needed else "")
        )
    try:
        return network.model_validate(content)
    except ValidationError as problem:
        fields = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problem.errors())
        raise error(f"{path} does not describe a model that this version knows: {fields}") from problem
