"""``puzzle.json``: what a puzzle bundle was trained on, which is what reading and drawing its boards needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hrm_engine.config.base import validated
from hrm_engine.data.puzzles.board import Board
from hrm_engine.data.puzzles.description import IDENTIFIERS_FILE, About, DatasetInfo, read_identifiers
from hrm_engine.data.puzzles.format import PuzzleDataset
from hrm_engine.data.puzzles.kinds import BOARDS, BoardKind
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.store.files import write_json, write_text
from hrm_engine.store.manifest import read_versioned

CARD_FILE = "puzzle.json"
CARD_SCHEMA = 1


class PuzzleCard(BaseModel):
    """Board and vocabulary of a solver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    puzzle: BoardKind = Field(description="Board kind.")
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    vocab_size: int = Field(ge=2)
    pad_id: int = Field(ge=0)
    ignore_label_id: int | None = None
    blank_identifier_id: int = Field(0, ge=0)
    loss: Literal["stablemax", "softmax"] | None = Field(None, description="Cross-entropy it was trained with.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of that cross-entropy.")
    dataset: str = Field("", description="Description of the dataset.")
    is_proxy: bool = Field(False, description="Trained on a stand-in for a published dataset.")
    symmetries: bool = Field(False, description="Trained with a fresh symmetry for each row.")
    identifiers: tuple[str, ...] | None = Field(None, exclude=True, description="Name of each puzzle identifier.")

    @property
    def board(self) -> Board:
        """The object of its board kind."""
        return BOARDS[self.puzzle]

    @classmethod
    def of(cls, info: DatasetInfo, about: About, **facts: Any) -> PuzzleCard:
        """The card of a solver of such rows and boards."""
        board = about.model_dump(include={"height", "width", "is_proxy"})
        cells = info.model_dump(include={"vocab_size", "pad_id", "ignore_label_id", "blank_identifier_id"})
        return cls(puzzle=about.kind, **{**board, **cells, **facts})

    @classmethod
    def of_dataset(cls, dataset: PuzzleDataset, **training: Any) -> PuzzleCard:
        """The card of a solver trained on this dataset, with such ``loss``, ``label_smoothing`` and ``symmetries``."""
        names = None if dataset.identifiers is None else tuple(dataset.identifiers)
        text = dataset.about.description or dataset.folder.name
        return cls.of(dataset.info, dataset.about, dataset=text, identifiers=names, **training)

    def save_to(self, folder: Path) -> list[str]:
        """Write ``puzzle.json`` and, where there are any, ``identifiers.json``; their names. Raises StorageError."""
        write_json(folder / CARD_FILE, {"schema_version": CARD_SCHEMA, **self.model_dump()})
        if self.identifiers is None:
            return [CARD_FILE]
        write_text(folder / IDENTIFIERS_FILE, json.dumps(list(self.identifiers), ensure_ascii=False))
        return [CARD_FILE, IDENTIFIERS_FILE]

    @classmethod
    def load(cls, folder: Path, *, error: type[HRMError] = BundleError) -> PuzzleCard:
        """Read it from a bundle. Raises ``error``: missing, of a newer version, or not a card."""
        path = folder / CARD_FILE
        content = read_versioned(path, known=CARD_SCHEMA, error=error)
        card = validated(cls, content, error, f"{path} is no puzzle card")
        names = read_identifiers(folder / IDENTIFIERS_FILE, error)
        return card if names is None else card.model_copy(update={"identifiers": tuple(names)})
