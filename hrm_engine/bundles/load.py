"""Load a bundle or a checkpoint as a model that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from hrm_engine.bundles.bundle import AnyBundle, Bundle, PuzzleBundle
from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.listing import folder_problems
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.steering import steer
from hrm_engine.bundles.weights import check_shapes, load_tensors
from hrm_engine.config import CoreConfig
from hrm_engine.config.kinds import PUZZLE, TEXT, Kind
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.kernels.device import choose_device
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.attached import snapshot_metadata
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import MANIFEST_FILE, METADATA_FILE, Workspace
from hrm_engine.store.runs import find_run

B = TypeVar("B", bound=AnyBundle)


def load_bundle(
    path_or_name: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> Bundle:
    """Load a text bundle by name or folder, or a single checkpoint by its folder.

    No token is routed to attached experts that are inactive now, as the workspace's registry says.

    Args:
        dtype: type of the weights in memory; by default as they are stored.

    Raises:
        BundleError: missing, unfinished, damaged, of another kind or version. The message names the file and the cure.
        RegistryError: experts are attached, and the registry is damaged.
    """
    return _load(Bundle, TEXT, {"tokenizer": Tokenizer}, path_or_name, device, dtype, workspace)


def load_puzzle_bundle(
    path_or_name: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> PuzzleBundle:
    """Load a solver as :func:`load_bundle` loads a text model. Raises BundleError, RegistryError."""
    return _load(PuzzleBundle, PUZZLE, {"card": PuzzleCard}, path_or_name, device, dtype, workspace)


def _load(
    bundle_type: type[B],
    kind: Kind,
    companions: Mapping[str, type[Tokenizer | PuzzleCard]],
    path_or_name: str | Path,
    device: str,
    dtype: torch.dtype | None,
    workspace: Workspace | None,
) -> B:
    workspace = workspace or Workspace.find()
    folder = find_run(path_or_name, workspace)
    if problems := folder_problems(folder):
        raise BundleError(f"{folder} cannot be loaded: {'; '.join(problems)}")
    is_checkpoint = (folder / MANIFEST_FILE).is_file()
    metadata = snapshot_metadata(folder) if is_checkpoint else read_json(folder / METADATA_FILE)
    config = read_core_config(folder, kind=kind.name, error=BundleError)
    model = build_model(config, load_tensors(folder, "model"), where=folder, dtype=dtype)
    target, _ = choose_device(device, strict=device != "auto")
    files: dict[str, Any] = {name: companion.load(folder) for name, companion in companions.items()}
    bundle = bundle_type(path=folder, config=config, model=model.to(target).eval(), metadata=metadata, **files)
    bundle.messages.extend(steer(bundle, workspace=workspace))
    return bundle


def build_model(
    config: CoreConfig,
    tensors: dict[str, torch.Tensor],
    *,
    where: Path,
    dtype: torch.dtype | None = None,
    error: type[HRMError] = BundleError,
) -> RecurrentCore:
    """A model with these weights, on the CPU. Raises ``error`` naming every key that does not fit."""
    with torch.device("meta"):
        model = RecurrentCore(config)
    if problems := check_shapes(tensors, model.state_dict(), where=where):
        raise error("; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else ""))
    model.load_state_dict(tensors, assign=True)
    for router in model.routers.values():
        router.unsteer()
    return model if dtype is None else model.to(dtype)
