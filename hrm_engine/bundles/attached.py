"""The experts that are attached to a bundle in a folder."""

from __future__ import annotations

from pathlib import Path

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.errors import BundleError
from hrm_engine.store.attached import EXPERTS_FIELD, Attached, parse_attached, snapshot_metadata
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import METADATA_FILE


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
