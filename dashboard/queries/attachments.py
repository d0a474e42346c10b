"""Brains that hold experts, brains that could take them, and experts that are switched off.

Only small files are read, each once for each state of it; no model is loaded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dashboard.queries.filecache import FileCache, Signature, signature
from hrm_engine.config import CoreConfig
from hrm_engine.errors import HRMError, RegistryError
from hrm_engine.store.attached import Attached, listed_experts
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import CONFIG_FILE, METADATA_FILE, Workspace
from hrm_engine.store.runs import run_id

_KEPT_FILES = 4096

Version = tuple[Signature, tuple[str, ...] | None]
"""State of a bundle: changes when it is saved again, and when an expert that is attached to it is switched on or off.
A model that was loaded before must then be loaded anew."""


@dataclass(frozen=True)
class Taker:
    """A finished brain whose layers have the sizes of an expert."""

    path: Path
    layers: tuple[str, ...]
    """Layers that the expert is not attached to."""
    default_layer: str
    """The layer if nobody chooses."""


def by_expert(run_dirs: Sequence[Path], workspace: Workspace) -> dict[str, list[str]]:
    """Ids of the runs (``run_id``) in which each expert stands."""
    ids: dict[str, list[str]] = {}
    for run_dir in run_dirs:
        for expert_id in dict.fromkeys(entry.expert_id for entry in attached(run_dir)):
            ids.setdefault(expert_id, []).append(run_id(run_dir, workspace))
    return ids


def layers_of(run_dir: Path, expert_id: str) -> list[str]:
    """The layers of a brain that an expert is attached to."""
    return [entry.layer for entry in attached(run_dir) if entry.expert_id == expert_id]


def takers(card: ExpertCard, run_dirs: Sequence[Path], workspace: Workspace) -> dict[str, Taker]:
    """By the id of their runs, the finished brains that an expert fits into, the one written last first."""
    brains = []
    for run_dir in run_dirs:
        metadata = run_dir / METADATA_FILE
        config = _CONFIGS.get(run_dir / CONFIG_FILE) if metadata.is_file() else None
        if config is None or not _fits(card, config):
            continue
        taken, names = layers_of(run_dir, card.expert_id), config.layer_names
        trained_in = card.training_config.get("layer")
        default = trained_in if isinstance(trained_in, str) and trained_in in names else f"H.{config.h_layers - 1}"
        if free := tuple(name for name in names if name not in taken):
            brains.append((metadata.stat().st_mtime, run_dir, Taker(run_dir, free, default)))
    brains.sort(key=lambda entry: (-entry[0], entry[1]))
    return {run_id(run_dir, workspace): taker for _, run_dir, taker in brains}


def version(run_dir: Path, workspace: Workspace) -> Version | None:
    """The state of a bundle; None while it has not been saved."""
    saved = signature(run_dir / METADATA_FILE)
    return None if saved is None else (saved, _switched_off(run_dir, workspace.expert_registry))


def attached(run_dir: Path) -> tuple[Attached, ...]:
    """The experts that are attached to a brain."""
    return _ATTACHED.get(run_dir / METADATA_FILE) or ()


def _switched_off(run_dir: Path, registry: Path) -> tuple[str, ...] | None:
    """Attached experts that get no token now; None if experts are attached and the registry cannot be read."""
    ids = {entry.expert_id for entry in attached(run_dir)}
    if not ids or not registry.exists():
        return ()
    inactive = _INACTIVE.get(registry)
    return None if inactive is None else tuple(sorted(ids & inactive))


def _fits(card: ExpertCard, config: CoreConfig) -> bool:
    sizes = {"hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size}
    return config.activation == "swiglu" and all(
        card.training_config.get(name, size) == size for name, size in sizes.items()
    )


def _core_config(path: Path) -> CoreConfig | None:
    """Network of a brain or a solver; None of anything else."""
    try:
        content = read_json(path)
        return CoreConfig.model_validate(
            {key: content[key] for key in content if key not in ("schema_version", "kind")}
        )
    except (HRMError, ValidationError):
        return None


def _inactive(registry: Path) -> frozenset[str] | None:
    try:
        content = RegistryContent.parse(read_json(registry, RegistryError), registry)
    except RegistryError:
        return None
    return frozenset(card.expert_id for card in content.cards if not card.is_active)


_ATTACHED: FileCache[tuple[Attached, ...]] = FileCache(listed_experts, _KEPT_FILES)
_CONFIGS: FileCache[CoreConfig | None] = FileCache(_core_config, _KEPT_FILES)
_INACTIVE: FileCache[frozenset[str] | None] = FileCache(_inactive, 4)
