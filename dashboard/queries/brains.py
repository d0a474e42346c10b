"""Text models of a workspace, as their small files describe them; no weights are read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboard.queries.fields import whole_number
from dashboard.queries.filecache import FileCache, Signature, signature
from hrm_engine.config import kinds
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.store.attached import Attached, listed_experts
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import CONFIG_FILE, METADATA_FILE, Workspace
from hrm_engine.store.runs import printable, run_id

_KEPT = 512


@dataclass(frozen=True)
class Brain:
    """A bundle that writes text."""

    id: str
    path: Path
    arch: str
    segments: int
    """Segments at most in its training; with one there is no halting head."""
    context: int
    """Tokens of prompt and text together."""
    experts: tuple[str, ...]
    """Ids of attached experts."""
    version: Signature
    """Changes when the bundle is saved again."""


class Brains:
    """The text models of one workspace; their files are read once for each state of them. Safe to share."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._configs: FileCache[dict[str, Any]] = FileCache(readable_json, _KEPT)
        self._experts: FileCache[tuple[Attached, ...]] = FileCache(listed_experts, _KEPT)

    def all(self, run_dirs: Sequence[Path]) -> list[Brain]:
        """Every complete bundle of text, the one saved last first."""
        brains = [brain for path in run_dirs if (brain := self.of(path)) is not None]
        return sorted(brains, key=lambda brain: (-brain.version[1], brain.id))

    def of(self, run_dir: Path) -> Brain | None:
        """The text model in a run folder; None if it is another kind of run, or has not been saved yet."""
        version = signature(run_dir / METADATA_FILE)
        config = self._configs.get(run_dir / CONFIG_FILE) or {}
        segments = whole_number(config.get("halt_max_steps"), MAX_SEGMENTS)
        context = whole_number(config.get("max_seq_len"), 1 << 24) or 0
        if version is None or kinds.named(config.get("kind")) is not kinds.TEXT or not segments or context < 2:
            return None
        return Brain(
            id=run_id(run_dir, self.workspace),
            path=run_dir,
            arch=printable(str(config.get("arch")))[:40],
            segments=segments,
            context=context,
            experts=tuple(sorted({entry.expert_id for entry in self._experts.get(run_dir / METADATA_FILE) or ()})),
            version=version,
        )
