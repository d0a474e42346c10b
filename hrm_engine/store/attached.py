"""The experts that are attached to a bundle, as its ``metadata.json`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hrm_engine.config import CoreConfig
from hrm_engine.config.reasons import field_problems
from hrm_engine.errors import BundleError
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import CHECKPOINTS_FOLDER, METADATA_FILE, STATE_FILE

EXPERTS_FIELD = "experts"
"""Of ``metadata.json``, and of the state of a checkpoint."""


@dataclass(frozen=True)
class Attached:
    """One expert in one layer: column ``column`` of the router and of the layer's weights."""

    expert_id: str
    module: str
    """``H`` or ``L``."""
    layer: str
    """Name of the layer, ``H.1``."""
    column: Annotated[int, Field(ge=0)]
    sha256: str
    """Of the expert's file, as it was attached."""


_LIST = TypeAdapter(list[Attached])


def parse_attached(metadata: Mapping[str, Any], config: CoreConfig, folder: Path) -> list[Attached]:
    """The attached experts in the order of attaching; ``folder`` is named in messages.

    Raises:
        BundleError: the list is damaged, or does not fit the model.
    """
    try:
        attached = _LIST.validate_python(metadata.get(EXPERTS_FIELD) or [], strict=False)
    except ValidationError as problem:
        where = f"{folder / METADATA_FILE}: the list of experts is damaged"
        raise BundleError(f"{where}: {field_problems(problem)}") from problem
    places: set[tuple[str, int]] = set()
    for entry in attached:
        first, end = own_columns(config), config.experts_in(entry.layer) if entry.layer in config.layer_names else 0
        if not first <= entry.column < end or (entry.layer, entry.column) in places:
            raise BundleError(
                f"{folder / METADATA_FILE}: expert {entry.expert_id!r} is said to be column {entry.column} of layer "
                f"{entry.layer}, where no attached expert is: the file is damaged; attach it to the parent again"
            )
        places.add((entry.layer, entry.column))
    return attached


def listed_experts(metadata_file: Path) -> tuple[Attached, ...]:
    """The entries of a ``metadata.json``, unchecked, for looking at many bundles; none where it cannot be read.

    Fields that an entry lacks are empty; its column is then -1.
    """
    entries = readable_json(metadata_file).get(EXPERTS_FIELD)
    return tuple(
        Attached(
            expert_id=entry["expert_id"],
            module=str(entry.get("module", "")),
            layer=str(entry.get("layer", "")),
            column=entry["column"] if isinstance(entry.get("column"), int) else -1,
            sha256=str(entry.get("sha256", "")),
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("expert_id"), str)
    )


def snapshot_metadata(folder: Path) -> dict[str, Any]:
    """The list of experts, as :func:`parse_attached` takes it, for a checkpoint or the ``best/`` of a run.

    A run has the same experts from its beginning to its end: they stand in the state of a checkpoint, and of ``best/``
    in the run above it. Empty where neither is there.
    """
    run = folder.parent
    for path in (folder / STATE_FILE, run / METADATA_FILE, *sorted(run.glob(f"{CHECKPOINTS_FOLDER}/*/{STATE_FILE}"))):
        content = readable_json(path)
        state = content.get("state") if path.name == STATE_FILE else content
        if isinstance(state, dict) and state.get(EXPERTS_FIELD):
            return {EXPERTS_FIELD: state[EXPERTS_FIELD]}
    return {}


def own_columns(config: CoreConfig) -> int:
    """Columns of a layer that are the model's own; attached experts come after them.

    A layer that was dense has its own network in the first column.
    """
    return max(1, config.num_experts)
