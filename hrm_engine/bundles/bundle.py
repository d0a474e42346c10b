"""Bundles in memory: finished runs that are ready to use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.config import CoreConfig
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.attached import Attached, parse_attached


@dataclass(frozen=True, kw_only=True)
class AnyBundle:
    """A trained model with its folder, configuration and history."""

    path: Path
    config: CoreConfig
    model: RecurrentCore
    metadata: dict[str, Any]
    messages: list[str] = field(default_factory=list)
    """Sentences for the user about its attached experts."""

    @property
    def attached(self) -> list[Attached]:
        """The attached experts in the order of attaching. Raises BundleError where their list is damaged."""
        return parse_attached(self.metadata, self.config, self.path)


@dataclass(frozen=True, kw_only=True)
class Bundle(AnyBundle):
    """A trained text model."""

    tokenizer: Tokenizer

    @property
    def imported_from_transformers(self) -> dict[str, Any]:
        """Origin of a model that was imported with ``--format hf`` and not trained since; else empty."""
        origin = self.metadata.get("imported")
        return origin if isinstance(origin, dict) and origin.get("format") == "hf" else {}

    @property
    def begins_with_bos(self) -> bool:
        """Whether a prompt follows the begin token, as in all training here."""
        return bool(self.imported_from_transformers.get("adds_bos", True))


@dataclass(frozen=True, kw_only=True)
class PuzzleBundle(AnyBundle):
    """A trained solver; its card says what its boards are."""

    card: PuzzleCard


B = TypeVar("B", bound=AnyBundle)


def checked(bundle: AnyBundle, of: type[B]) -> B:
    """The bundle, which must be ``of`` this kind. Raises BundleError."""
    if isinstance(bundle, of):
        return bundle
    words = {Bundle: "is no text model and writes nothing", PuzzleBundle: "is no solver and solves no puzzle"}
    raise BundleError(f"{bundle.path.name} {words[of]}")
