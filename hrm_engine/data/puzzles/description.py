"""Descriptions of a puzzle dataset: ``dataset.json`` of each split, and our ``about.json`` beside the splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from hrm_engine.config.base import validated, written_as
from hrm_engine.data.puzzles.board import Board
from hrm_engine.data.puzzles.kinds import BOARDS, BoardKind
from hrm_engine.errors import DataError, HRMError
from hrm_engine.reading import load_json
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import schema_problem

INFO_FILE = "dataset.json"
ABOUT_FILE = "about.json"
IDENTIFIERS_FILE = "identifiers.json"
TEST_PUZZLES_FILE = "test_puzzles.json"
SPLITS = ("train", "test")
BLANK_IDENTIFIER = "<blank>"
SCHEMA_VERSION = 1

M = TypeVar("M", bound=BaseModel)


class DatasetInfo(BaseModel):
    """``dataset.json`` of one split, with exactly the fields of the reference implementation; others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pad_id: int = Field(ge=0)
    ignore_label_id: int | None
    blank_identifier_id: int = Field(ge=0)
    vocab_size: int = Field(ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int = Field(ge=0)
    mean_puzzle_examples: float = Field(ge=0)
    sets: list[Annotated[str, written_as(r"[^/\\\0]+", "names are parts of file names")]] = Field(min_length=1)


class About(BaseModel):
    """``about.json``: what the reference format does not say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: BoardKind
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    description: str = ""
    seed: int | None = None
    is_proxy: bool = Field(default=False, description="stands in for a published dataset that is not at hand")
    fingerprints: Mapping[str, str] = Field(
        default_factory=dict, description="SHA-256 by split, as it was written; see PuzzleDataset.fingerprint"
    )
    schema_version: int = SCHEMA_VERSION

    @property
    def board(self) -> Board:
        """The object of its board kind."""
        return BOARDS[self.kind]


def read_info(path: Path) -> DatasetInfo:
    """``dataset.json`` of a split. Raises DataError naming the file and the fields that are missing or wrong."""
    return _read(DatasetInfo, path)


def read_about(path: Path) -> About:
    """``about.json``. Raises DataError naming the file and the fields that are missing or wrong."""
    about = _read(About, path)
    if problem := schema_problem(about.schema_version, known=SCHEMA_VERSION, where=path):
        raise DataError(f"{path.parent}: {problem}")
    return about


def derived_about(info: DatasetInfo) -> About:
    """The board of a dataset without ``about.json``, derived from its vocabulary and sequence length."""
    side = math.isqrt(info.seq_len)
    square = side * side == info.seq_len
    kind = next(kind for kind, board in BOARDS.items() if board.fits(info.vocab_size, info.seq_len))
    return About(kind=kind, height=side if square else 1, width=side if square else info.seq_len)


def read_identifiers(path: Path, error: type[HRMError] = DataError) -> list[str] | None:
    """Names of the puzzle identifiers; None without the file. Raises ``error`` for a file that is no list of names."""
    if not path.exists():
        return None
    names = load_json(path, error)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise error(f"{path}: a list of names is expected; build or copy the dataset again")
    return names


def _read(model: type[M], path: Path) -> M:
    return validated(model, read_json(path, DataError), DataError, f"{path} does not describe a puzzle dataset")
