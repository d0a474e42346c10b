"""Load a bundle or a checkpoint as a model that can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from hrm_engine.bundles.bundle import AnyBundle, Bundle, PuzzleBundle
from hrm_engine.bundles.core_config import read_core_config, read_kind
from hrm_engine.bundles.listing import folder_problems
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.steering import steer
from hrm_engine.bundles.weights import check_finite, check_shapes, load_tensors
from hrm_engine.config import CoreConfig
from hrm_engine.config.kinds import PUZZLE, TEXT
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.kernels.device import choose_device
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.attached import snapshot_metadata
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import MANIFEST_FILE, METADATA_FILE, Workspace
from hrm_engine.store.runs import find_run

B = TypeVar("B", bound=AnyBundle)

_TYPES: dict[str, type[AnyBundle]] = {TEXT.name: Bundle, PUZZLE.name: PuzzleBundle}


@overload
def load_bundle(
    path_or_name: str | Path,
    of: type[B],
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> B: ...
@overload
def load_bundle(
    path_or_name: str | Path,
    of: None = None,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> Any: ...
def load_bundle(
    path_or_name: str | Path,
    of: type[AnyBundle] | None = None,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> AnyBundle:
    """Load a bundle by name or folder, or a single checkpoint by its folder: a text model or a solver.

    No token is routed to attached experts that are inactive now, as the workspace's registry says.

    Args:
        of: what is needed, ``Bundle`` or ``PuzzleBundle``; without it, either is taken.
        dtype: type of the weights in memory; by default as they are stored.

    Raises:
        BundleError: missing, unfinished, damaged, of another kind or version, or weights that are not finite. The
            message names the file and the cure.
        RegistryError: experts are attached, and the registry is damaged.
    """
    workspace = workspace or Workspace.find()
    folder = find_run(path_or_name, workspace)
    if problems := folder_problems(folder):
        raise BundleError(f"{folder} cannot be loaded: {'; '.join(problems)}")
    is_checkpoint = (folder / MANIFEST_FILE).is_file()
    metadata = snapshot_metadata(folder) if is_checkpoint else read_json(folder / METADATA_FILE)
    kind = next((name for name, made in _TYPES.items() if made is of), None) or read_kind(folder, error=BundleError)
    config = read_core_config(folder, kind=kind if kind in _TYPES else None, error=BundleError)
    tensors = load_tensors(folder, "model")
    model = build_model(config, tensors, where=folder, dtype=dtype)
    check_finite(tensors, where=folder)
    target, _ = choose_device(device, strict=device != "auto")
    parts: dict[str, Any] = {"config": config, "model": model.to(target).eval(), "metadata": metadata}
    bundle: AnyBundle
    if kind == PUZZLE.name:
        bundle = PuzzleBundle(path=folder, card=PuzzleCard.load(folder), **parts)
    else:
        bundle = Bundle(path=folder, tokenizer=Tokenizer.load(folder), **parts)
        if (count := bundle.tokenizer.vocab_size) > config.vocab_size:
            raise BundleError(
                f"{folder}: its tokenizer has {count} tokens and its model {config.vocab_size}; they do not belong "
                "together"
            )
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
