"""Build Sudoku datasets: generated, from CSV files, or the hard proxy.

No puzzle stands in both splits, and no variant of a training puzzle is a test puzzle. "The same" means cell for cell:
at 4x4 there are so few puzzles that most test puzzles are a relabelled or permuted form of a training puzzle (9 blanks,
1,000 to train on: 382 of 500), so a 4x4 score says little about puzzles of a new kind. At 6x6 none of 100 was.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.config.datasets import SUDOKU_SIZE, SUDOKU_TESTS, SudokuConfig
from hrm_engine.data.puzzles.description import SPLITS, About
from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.puzzles.sudoku.board import Sudoku
from hrm_engine.data.puzzles.sudoku.csv_files import Selection
from hrm_engine.data.puzzles.sudoku.generate import check_blanks, generate
from hrm_engine.data.puzzles.sudoku.hard import HARD_PROXY, NAME, HardSet, make_hard_set
from hrm_engine.data.puzzles.sudoku.symmetries import augment
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.store.paths import Workspace

Tokens = npt.NDArray[np.uint8]
_VARIANT_ROWS = 1 << 16
_REDRAWS = 50


@dataclass(frozen=True)
class BuildReport:
    """A built dataset; ratings are (smallest, median, greatest) numbers of guesses.

    ``num_left_out`` training puzzles were not taken, because they are test puzzles as well.
    """

    folder: Path
    description: str
    is_proxy: bool
    num_train_puzzles: int
    num_train_rows: int
    num_test_puzzles: int
    num_left_out: int
    train_ratings: tuple[int, int, int]
    test_ratings: tuple[int, int, int]
    seconds: float


def build_sudokus(settings: SudokuConfig, workspace: Workspace, *, progress: Progress | None = None) -> BuildReport:
    """What the settings describe: the puzzles of a CSV file, the hard proxy, or generated ones; raises as those do."""
    generated, files, folder = settings.generated, settings.files, workspace.resolve(settings.output_dir)
    common: dict[str, Any] = {
        "seed": settings.seed,
        "num_aug": settings.num_aug,
        "replace": settings.replace,
        "progress": progress,
    }
    if files.csv is not None:
        return build_from_csv(
            folder,
            workspace.resolve(files.csv),
            test_csv=None if files.test_csv is None else workspace.resolve(files.test_csv),
            test_count=settings.test_count,
            size=settings.size,
            subsample_size=files.subsample_size,
            min_difficulty=settings.min_difficulty,
            **common,
        )
    common["workers"] = os.cpu_count() or 1
    if generated.hard_proxy:
        return build_hard_proxy(folder, **common)
    return build_generated(
        folder,
        size=settings.size or SUDOKU_SIZE,
        count=generated.count,
        test_count=settings.test_count or SUDOKU_TESTS,
        blanks=generated.blanks,
        min_difficulty=settings.min_difficulty,
        **common,
    )


def build_generated(
    folder: Path,
    *,
    size: int,
    count: int,
    test_count: int,
    blanks: int | None = None,
    seed: int = 0,
    min_difficulty: int = 0,
    num_aug: int = 0,
    replace: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Generate different puzzles, see ``generate``: first the test split, so that it stays the same when only
    ``count`` changes, then ``count`` to train on, each with ``num_aug`` variants.

    Raises:
        ConfigError: ``blanks`` or ``size`` cannot be, or a split would be empty.
        DataError: the folder exists, or such puzzles are too rare.
        StorageError: the folder cannot be written.
    """
    check_blanks(size, blanks)
    if min(count, test_count) < 1:
        raise ConfigError(f"--count {count}, --test-count {test_count}: each split needs 1 puzzle or more")
    emptied = f"{blanks} blanks" if blanks else "no given to spare"
    hard = f", {min_difficulty} guesses or more" if min_difficulty else ""
    about = _about(size, seed, f"generated {size}x{size} Sudokus, {emptied}{hard}")
    with _Build(folder, about, seed=seed, num_aug=num_aug, replace=replace) as build:
        for block in generate(
            size,
            test_count + count,
            blanks=blanks,
            seed=seed,
            min_difficulty=min_difficulty,
            workers=workers,
            progress=progress,
        ):
            num_missing = test_count - build.num_test
            build.add_test(block[:num_missing])
            build.add_train(block[num_missing:])
    return build.report()


def build_hard_proxy(
    folder: Path,
    *,
    seed: int = 0,
    num_aug: int = 0,
    replace: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
    recipe: HardSet = HARD_PROXY,
) -> BuildReport:
    """Build the frozen hard set, see ``hard.py``; ``seed`` draws the variants of ``num_aug`` and nothing else.

    Raises:
        DataError: the folder exists, or the result is not the frozen set.
        StorageError: the folder cannot be written.
    """
    what = (
        f"{NAME}: the hardest {recipe.num_train + recipe.num_test:,} of {recipe.num_candidates:,} generated puzzles, a "
        "proxy for the published Sudoku-Extreme; results on it are not comparable with published ones"
    )
    about = _about(recipe.size, recipe.seed, what, is_proxy=True)
    with _Build(folder, about, seed=seed, num_aug=num_aug, replace=replace) as build:
        train, test = make_hard_set(recipe, workers=workers, progress=progress)
        build.add_test(test)
        build.add_train(train)
    return build.report()


def build_from_csv(
    folder: Path,
    csv_file: Path,
    *,
    test_csv: Path | None = None,
    test_count: int | None = None,
    size: int | None = None,
    subsample_size: int | None = None,
    min_difficulty: int = 0,
    seed: int = 0,
    num_aug: int = 0,
    replace: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build from CSV files in the published form, see ``csv_files.py``; ratings are those of the files.

    Test puzzles are those of ``test_csv``, or ``test_count`` of them, drawn; without that file ``test_count`` puzzles
    are drawn from ``csv_file``. Of the rest ``subsample_size`` are drawn for training. Every line of the files is
    checked; uniqueness is proved for the puzzles that are used.

    Raises:
        ConfigError: neither ``test_csv`` nor ``test_count``.
        DataError: a line is not a valid puzzle (file and line are named), too few puzzles, or the folder exists.
        StorageError: the folder cannot be written.
    """
    if test_csv is None and test_count is None:
        raise ConfigError("--csv alone leaves nothing to evaluate on: add --test-csv FILE or --test-count M")
    source = Selection(csv_file, size, min_difficulty, progress)
    names = csv_file.name if test_csv is None else f"{csv_file.name} and {test_csv.name}"
    side = source.board_size()
    about = _about(side, seed, f"{side}x{side} Sudokus of {names}")
    with _Build(folder, about, seed=seed, num_aug=num_aug, replace=replace) as build:
        test, rest = source, source
        if test_csv is not None:
            test = Selection(test_csv, side, min_difficulty, progress)
        if test_count is not None:
            test, others = test.parted(test_count, seed=seed, name="sudoku-test")
            rest = others if test_csv is None else rest
        if subsample_size is not None:
            rest, _ = rest.parted(subsample_size, seed=seed, name="sudoku-subsample")
        for block in test.blocks():
            build.add_test(block)
        for block in rest.blocks():
            build.add_train(block)
    return build.report()


class _Build:
    """A dataset in the making: test puzzles first, then training puzzles with their variants."""

    def __init__(self, folder: Path, about: About, *, seed: int, num_aug: int, replace: bool) -> None:
        if num_aug < 0:
            raise ConfigError(f"--num-aug {num_aug}: give 0 or more variants for each puzzle")
        self.num_test = 0
        self._started = time.monotonic()
        self._seed, self._num_aug = seed, num_aug
        self._size = about.height
        self._num_left_out = 0
        self._num_train_rows = 0
        self._ratings: dict[str, list[npt.NDArray[np.int64]]] = {"train": [], "test": []}
        self._test_keys: list[npt.NDArray[np.bytes_]] = []
        self._writer = DatasetWriter(
            folder, about=about, vocab_size=self._size + 2, seq_len=self._size**2, replace=replace
        )

    def __enter__(self) -> _Build:
        self._writer.__enter__()
        for split in SPLITS:  # both are there, or the writer refuses to finish
            self._writer.split(split)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)

    def add_test(self, puzzles: Puzzles) -> None:
        """Puzzles to evaluate on; none may follow after the first for training."""
        if not len(puzzles):
            return
        self._writer.split("test").add_puzzles(puzzles.inputs, puzzles.labels, puzzles.ratings)
        self._test_keys.append(_keys(puzzles.inputs))
        self._ratings["test"].append(puzzles.ratings)
        self.num_test += len(puzzles)

    def add_train(self, puzzles: Puzzles) -> None:
        """Puzzles to train on, each a group with its variants; those that are test puzzles are left out."""
        taken = self._is_test(puzzles.inputs)
        self._num_left_out += int(taken.sum())
        puzzles = puzzles[np.flatnonzero(~taken)]
        at_once = max(1, _VARIANT_ROWS // (1 + self._num_aug))
        for start in range(0, len(puzzles), at_once):
            part = puzzles[start : start + at_once]
            inputs, labels = self._with_variants(part)
            ratings = np.repeat(part.ratings, 1 + self._num_aug)
            self._writer.split("train").add_puzzles(inputs, labels, ratings, group_size=1 + self._num_aug)
            self._ratings["train"].append(part.ratings)
            self._num_train_rows += len(inputs)

    def report(self) -> BuildReport:
        """The report, once the dataset is written."""
        about = self._writer.about
        return BuildReport(
            folder=self._writer.folder,
            description=about.description,
            is_proxy=about.is_proxy,
            num_train_puzzles=sum(map(len, self._ratings["train"])),
            num_train_rows=self._num_train_rows,
            num_test_puzzles=self.num_test,
            num_left_out=self._num_left_out,
            train_ratings=_span(self._ratings["train"]),
            test_ratings=_span(self._ratings["test"]),
            seconds=time.monotonic() - self._started,
        )

    def _with_variants(self, puzzles: Puzzles) -> tuple[Tokens, Tokens]:
        """Inputs and labels (n * (1 + num_aug), S): each puzzle, then its variants. Raises DataError."""
        count = self._num_aug
        if not count:
            return puzzles.inputs, puzzles.labels
        first = self._num_train_rows // (1 + count) * count
        numbers = np.arange(first, first + len(puzzles) * count)
        inputs, labels = (np.repeat(rows, count, axis=0) for rows in (puzzles.inputs, puzzles.labels))
        variants, answers = np.empty_like(inputs), np.empty_like(labels)
        waiting = np.arange(len(inputs))
        for attempt in range(_REDRAWS):
            variants[waiting], answers[waiting] = augment(
                inputs[waiting],
                labels[waiting],
                size=self._size,
                seed=self._seed,
                row_numbers=numbers[waiting],
                name=f"sudoku-variant-{attempt}",
            )
            waiting = waiting[self._is_test(variants[waiting])]
            if not waiting.size:
                break
        else:
            raise DataError(
                f"{len(waiting)} variants are test puzzles however often they are drawn: there are too few puzzles of "
                "this kind; lower --test-count or --num-aug"
            )
        together = [
            np.concatenate([one[:, None], more.reshape(len(puzzles), count, -1)], axis=1).reshape(-1, inputs.shape[1])
            for one, more in ((puzzles.inputs, variants), (puzzles.labels, answers))
        ]
        return together[0], together[1]

    def _is_test(self, inputs: Tokens) -> npt.NDArray[np.bool_]:
        if len(self._test_keys) != 1:
            self._test_keys = [np.concatenate(self._test_keys)] if self._test_keys else [_keys(inputs[:0])]
        return np.isin(_keys(inputs), self._test_keys[0])


def _about(size: int, seed: int, description: str, *, is_proxy: bool = False) -> About:
    return About(kind=Sudoku.kind, height=size, width=size, description=description, seed=seed, is_proxy=is_proxy)


def _keys(inputs: Tokens) -> npt.NDArray[np.bytes_]:
    """Each row as one byte string that numpy can sort and compare; no token is 0, so none is cut off."""
    return np.ascontiguousarray(inputs).view(f"S{inputs.shape[1]}").reshape(-1)


def _span(parts: list[npt.NDArray[np.int64]]) -> tuple[int, int, int]:
    ratings = np.concatenate(parts)
    return int(ratings.min()), int(np.median(ratings)), int(ratings.max())
