"""``config.json``: what rebuilds the model; and the experts that are attached to it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hrm_engine.config import Config, CoreConfig, kinds
from hrm_engine.config.base import validated
from hrm_engine.errors import BundleError, CheckpointError, HRMError
from hrm_engine.store.attached import EXPERTS_FIELD, Attached, parse_attached, snapshot_metadata
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.manifest import read_versioned
from hrm_engine.store.paths import CONFIG_FILE, METADATA_FILE

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
    content = read_versioned(path, known=CONFIG_SCHEMA, error=error)
    del content["schema_version"]
    recorded, known = content.pop("kind", None), kinds.table()
    fitting = [row.name for row in known.values() if row.network is network] if kind is None else [kind]
    if recorded not in fitting:
        needed = known[fitting[0]].words.makes if len(fitting) == 1 else ""
        raise error(
            f"{path} describes a bundle of kind {recorded!r}; this command needs kind {' or '.join(map(repr, fitting))}"
            + (f", {needed}" if needed else "")
        )
    return validated(network, content, error, f"{path} does not describe a model that this version knows")


def attached_experts(folder: Path) -> list[Attached]:
    """The experts of a bundle, checkpoint or ``best/``, in the order of attaching; checked against its network.

    Raises:
        BundleError: the list is damaged, or does not fit the model.
    """
    is_bundle = (folder / METADATA_FILE).is_file()
    metadata = read_json(folder / METADATA_FILE) if is_bundle else snapshot_metadata(folder)
    if not metadata.get(EXPERTS_FIELD):
        return []
    return parse_attached(metadata, read_core_config(folder, error=BundleError), folder)
