"""``config.json``: what rebuilds the model."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hrm_engine.config import Config, CoreConfig
from hrm_engine.errors import CheckpointError, HRMError
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.manifest import schema_problem

TEXT_KIND = "actv1"
PUZZLE_KIND = "puzzle"
EXPERT_KIND = "expert"
KINDS = (TEXT_KIND, PUZZLE_KIND)
_SAID = {TEXT_KIND: "a text brain", PUZZLE_KIND: "a solver of puzzles"}
CONFIG_SCHEMA = 1


def write_core_config(folder: Path, config: Config, kind: str) -> None:
    """Write ``config.json``. Raises StorageError."""
    write_json(folder / "config.json", {"schema_version": CONFIG_SCHEMA, "kind": kind, **config.model_dump()})


def read_kind(folder: Path, *, error: type[HRMError] = CheckpointError) -> str:
    """The kind of bundle that ``config.json`` describes. Raises ``error`` where it cannot be read."""
    return str(read_json(folder / "config.json", error).get("kind"))


def read_core_config(folder: Path, *, kind: str | None = None, error: type[HRMError] = CheckpointError) -> CoreConfig:
    """Read ``config.json``.

    Args:
        kind: the one that is needed; None takes any that this version knows.

    Raises:
        ``error``: another kind, a newer version, or fields that do not fit.
    """
    path = folder / "config.json"
    content = read_json(path, error)
    if problem := schema_problem(content.pop("schema_version", None), known=CONFIG_SCHEMA, where=path):
        raise error(f"{folder}: {problem}")
    found = content.pop("kind", None)
    if found not in (KINDS if kind is None else (kind,)):
        raise error(
            f"{path} describes a bundle of kind {found!r}; this command needs kind {kind or ' or '.join(KINDS)!r}"
            + (f", {_SAID[kind]}" if kind in _SAID else "")
        )
    try:
        return CoreConfig.model_validate(content)
    except ValidationError as problem:
        fields = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problem.errors())
        raise error(f"{path} does not describe a model that this version knows: {fields}") from problem
