"""Load a bundle or a checkpoint as a model that can be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hrm_engine.bundles.attached import snapshot_metadata
from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.listing import METADATA_FILE, find_run, folder_problems
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.steering import steer
from hrm_engine.bundles.weights import check_shapes, load_tensors
from hrm_engine.config import CoreConfig
from hrm_engine.config.kinds import PUZZLE, TEXT, Kind
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.kernels.device import choose_device
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import MANIFEST_FILE
from hrm_engine.store.paths import Workspace


@dataclass(frozen=True)
class Bundle:
    """A trained text model ready to use: its folder, configuration, weights, tokenizer and history."""

    path: Path
    config: CoreConfig
    model: RecurrentCore
    tokenizer: Tokenizer
    metadata: dict[str, Any]
    messages: list[str] = field(default_factory=list)
    """What a user should know of its attached experts."""

    @property
    def imported_from_transformers(self) -> dict[str, Any]:
        """What is known of a model that was imported with ``--format hf`` and not trained since; else empty."""
        origin = self.metadata.get("imported")
        return origin if isinstance(origin, dict) and origin.get("format") == "hf" else {}

    @property
    def begins_with_bos(self) -> bool:
        """Whether a prompt follows the begin token, as in all training here."""
        return bool(self.imported_from_transformers.get("adds_bos", True))


@dataclass(frozen=True)
class PuzzleBundle:
    """A trained solver ready to use: its folder, configuration, weights, what its boards are, and history."""

    path: Path
    config: CoreConfig
    model: RecurrentCore
    card: PuzzleCard
    metadata: dict[str, Any]
    messages: list[str] = field(default_factory=list)
    """What a user should know of its attached experts."""


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
    workspace = workspace or Workspace.find()
    folder, config, model, metadata = _load(path_or_name, TEXT, device, dtype, workspace)
    bundle = Bundle(folder, config, model, Tokenizer.load(folder), metadata)
    bundle.messages.extend(steer(bundle, workspace=workspace))
    return bundle


def load_puzzle_bundle(
    path_or_name: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> PuzzleBundle:
    """Load a solver as :func:`load_bundle` loads a text model. Raises BundleError, RegistryError."""
    workspace = workspace or Workspace.find()
    folder, config, model, metadata = _load(path_or_name, PUZZLE, device, dtype, workspace)
    bundle = PuzzleBundle(folder, config, model, PuzzleCard.load(folder), metadata)
    bundle.messages.extend(steer(bundle, workspace=workspace))
    return bundle


def _load(
    path_or_name: str | Path, kind: Kind, device: str, dtype: torch.dtype | None, workspace: Workspace
) -> tuple[Path, CoreConfig, RecurrentCore, dict[str, Any]]:
    folder = find_run(path_or_name, workspace, kind=kind)
    if problems := folder_problems(folder):
        raise BundleError(f"{folder} cannot be loaded: {'; '.join(problems)}")
    is_checkpoint = (folder / MANIFEST_FILE).is_file()
    metadata = snapshot_metadata(folder) if is_checkpoint else read_json(folder / METADATA_FILE, BundleError)
    config = read_core_config(folder, kind=kind.name, error=BundleError)
    model = build_model(config, load_tensors(folder, "model"), where=folder, dtype=dtype)
    target, _ = choose_device(device, strict=device != "auto")
    return folder, config, model.to(target).eval(), metadata


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
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = check_shapes({name: tuple(t.shape) for name, t in tensors.items()}, wanted, where=where)
    if problems:
        raise error("; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else ""))
    model.load_state_dict(tensors, assign=True)
    for router in model.routers.values():
        router.unsteer()
    return model if dtype is None else model.to(dtype)
