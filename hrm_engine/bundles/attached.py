"""What a bundle's ``metadata.json`` says of the experts that were attached to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.config import CoreConfig
from hrm_engine.errors import BundleError
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import CHECKPOINTS_FOLDER, METADATA_FILE

STATE_FILE = "state.json"
"""Of a checkpoint."""


@dataclass(frozen=True)
class AttachedExpert:
    """One expert in one layer: column ``column`` of the router and of the layer's weights."""

    expert_id: str
    module: str
    """``H`` or ``L``."""
    layer: str
    """Name of the layer, ``H.1``."""
    column: Annotated[int, Field(ge=0)]
    sha256: str
    """Of the expert's file, as it was attached."""


_ENTRIES = TypeAdapter(list[AttachedExpert])


class _Loaded(Protocol):
    @property
    def path(self) -> Path: ...

    @property
    def config(self) -> CoreConfig: ...

    @property
    def metadata(self) -> dict[str, Any]: ...


def attached_experts(bundle: Path | _Loaded) -> list[AttachedExpert]:
    """The experts that are attached to a bundle, loaded or in its folder, in the order of attaching.

    Raises:
        BundleError: the list is damaged, or does not fit the model.
    """
    if isinstance(bundle, Path):
        is_bundle = (bundle / METADATA_FILE).is_file()
        metadata = read_json(bundle / METADATA_FILE, BundleError) if is_bundle else snapshot_metadata(bundle)
        if not metadata.get("experts"):
            return []
        return parse_attached(metadata, read_core_config(bundle, error=BundleError), bundle)
    return parse_attached(bundle.metadata, bundle.config, bundle.path)


def parse_attached(metadata: Mapping[str, Any], config: CoreConfig, where: Path) -> list[AttachedExpert]:
    """The same from the content of ``metadata.json``; ``where`` is named in messages."""
    try:
        found = _ENTRIES.validate_python(metadata.get("experts") or [], strict=False)
    except ValidationError as problem:
        fields = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problem.errors())
        raise BundleError(f"{where / METADATA_FILE}: the list of experts is damaged: {fields}") from problem
    places: set[tuple[str, int]] = set()
    for entry in found:
        first, end = own_columns(config), config.experts_in(entry.layer) if entry.layer in config.layer_names else 0
        if not first <= entry.column < end or (entry.layer, entry.column) in places:
            raise BundleError(
                f"{where / METADATA_FILE}: expert {entry.expert_id!r} is said to be column {entry.column} of layer "
                f"{entry.layer}, where no attached expert is: the file is damaged; attach it to the parent again"
            )
        places.add((entry.layer, entry.column))
    return found


def snapshot_metadata(folder: Path) -> dict[str, Any]:
    """The list of experts as :func:`parse_attached` takes it, for a checkpoint or the ``best/`` of a run.

    A run has the same experts from its beginning to its end: they stand in the state of a checkpoint, and of ``best/``
    in the run above it. Empty where nothing is found.
    """
    run = folder.parent
    for path in (folder / STATE_FILE, run / METADATA_FILE, *sorted(run.glob(f"{CHECKPOINTS_FOLDER}/*/{STATE_FILE}"))):
        try:
            content = read_json(path, BundleError)
        except BundleError:
            continue
        state = content.get("state") if path.name == STATE_FILE else content
        if isinstance(state, dict) and state.get("experts"):
            return {"experts": state["experts"]}
    return {}


def own_columns(config: CoreConfig) -> int:
    """How many columns of a layer are the model's own; attached experts come after them.

    A layer that was dense has its own network in the first column.
    """
    return max(1, config.num_experts)
