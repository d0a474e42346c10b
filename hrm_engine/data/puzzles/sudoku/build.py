"""``lab data build-sudoku``: puzzles of CSV files, the hard proxy, or generated ones, in the reference format.

A group is one puzzle; its puzzles are that puzzle and, in the training split, its variants by symmetry. No puzzle
stands in both splits, and no variant of a training puzzle is a test puzzle. "The same" means cell for cell: at 4x4
there are so few puzzles that most test puzzles are a relabelled or permuted form of a training puzzle (9 blanks, 1,000
to train on: 382 of 500), so a 4x4 score says little about puzzles of a new kind. At 6x6 none of 100 was.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hrm_engine.config.datasets import SUDOKU_SIZE, SUDOKU_TESTS, SudokuConfig
from hrm_engine.config.keywords import takes
from hrm_engine.data.puzzles.description import SPLITS, About
from hrm_engine.data.puzzles.rated import BuildReport, Progress, Puzzles
from hrm_engine.data.puzzles.sudoku.board import Sudoku
from hrm_engine.data.puzzles.sudoku.csv_files import Selection
from hrm_engine.data.puzzles.sudoku.generate import generate
from hrm_engine.data.puzzles.sudoku.hard import HARD_PROXY, NAME, HardSet, make_hard_set
from hrm_engine.data.puzzles.sudoku.symmetries import draw
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.store.paths import Workspace

Tokens = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.bytes_]
# Blocks of puzzles with the split that they are for; those to test on come first.
Parts = Iterator[tuple[str, Puzzles]]
_VARIANT_ROWS = 1 << 16
_REDRAWS = 50


@takes(SudokuConfig)
def build_sudokus(
    *,
    settings: SudokuConfig,
    workspace: Workspace | None = None,
    workers: int = os.cpu_count() or 1,
    recipe: HardSet = HARD_PROXY,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the dataset that the settings describe.

    Generated puzzles (``generate.py``) do not depend on ``workers``; the test split stays the same when only ``count``
    changes. Of the hard proxy (``hard.py``) ``seed`` draws the variants and nothing else. Of CSV files
    (``csv_files.py``) the test puzzles are those of ``test_csv``, or ``test_count`` of them, drawn; without that file
    ``test_count`` puzzles are drawn from ``csv``. Of the rest ``subsample_size`` are drawn for training. Every line is
    checked, uniqueness is proved for the puzzles that are used, and ratings are those of the files.

    Args:
        workspace: relative paths start from its root; by default that of the current folder.

    Raises:
        ConfigError: a setting out of its range, or nothing to evaluate on beside ``csv``.
        DataError: the folder exists; such puzzles are too rare, or there are too few; a line of a file is not a valid
            puzzle (file and line are named); the hard set is not the frozen one.
        StorageError: the folder cannot be written.
    """
    begun, workspace = time.monotonic(), workspace or Workspace.find()
    if settings.files.csv is not None:
        about, parts = _of_files(settings, workspace, progress)
    elif settings.generated.hard_proxy:
        about, parts = _hard_proxy(settings, recipe, workers, progress)
    else:
        about, parts = _generated(settings, workers, progress)
    tests: list[Keys] = []
    num_left_out = 0
    at_once = max(1, _VARIANT_ROWS // (1 + settings.num_aug))
    size, folder = about.height, workspace.resolve(settings.output_dir)
    with DatasetWriter(folder, about=about, vocab_size=size + 2, seq_len=size**2, replace=settings.replace) as writer:
        train, test = map(writer.split, SPLITS)  # both are there, or the writer refuses to finish
        for split, puzzles in parts:
            if not len(puzzles):
                continue
            if split == "test":
                tests.append(_keys(puzzles.inputs))
                test.add_puzzles(puzzles.inputs, puzzles.labels, puzzles.ratings)
                continue
            held_out = np.concatenate([_keys(puzzles.inputs[:0]), *tests])
            kept = puzzles[~np.isin(_keys(puzzles.inputs), held_out)]
            num_left_out += len(puzzles) - len(kept)
            for start in range(0, len(kept), at_once):
                block = kept[start : start + at_once]
                inputs, labels = _with_variants(block, held_out, settings, first_group=train.num_groups)
                ratings = np.repeat(block.ratings, 1 + settings.num_aug)
                train.add_puzzles(inputs, labels, ratings, group_size=1 + settings.num_aug)
    return BuildReport.of(writer, begun, num_left_out=num_left_out)


def _generated(settings: SudokuConfig, workers: int, progress: Progress | None) -> tuple[About, Parts]:
    size, num_tests = settings.size or SUDOKU_SIZE, settings.test_count or SUDOKU_TESTS
    count, blanks, difficulty = settings.generated.count, settings.generated.blanks, settings.min_difficulty

    def parts() -> Parts:
        num_missing = num_tests
        for block in generate(
            size,
            num_tests + count,
            blanks=blanks,
            seed=settings.seed,
            min_difficulty=difficulty,
            workers=workers,
            progress=progress,
        ):
            yield from (("test", block[:num_missing]), ("train", block[num_missing:]))
            num_missing = max(0, num_missing - len(block))

    emptied = f"{blanks} blanks" if blanks else "no given to spare"
    hard = f", {difficulty} guesses or more" if difficulty else ""
    return _about(size, settings.seed, f"generated {size}x{size} Sudokus, {emptied}{hard}"), parts()


def _hard_proxy(
    settings: SudokuConfig, recipe: HardSet, workers: int, progress: Progress | None
) -> tuple[About, Parts]:
    def parts() -> Parts:
        train, test = make_hard_set(recipe, workers=workers, progress=progress)
        yield from (("test", test), ("train", train))

    what = (
        f"{NAME}: the hardest {recipe.num_train + recipe.num_test:,} of {recipe.num_candidates:,} generated puzzles, a "
        "proxy for the published Sudoku-Extreme; results on it are not comparable with published ones"
    )
    return _about(recipe.size, recipe.seed, what, is_proxy=True), parts()


def _of_files(settings: SudokuConfig, workspace: Workspace, progress: Progress | None) -> tuple[About, Parts]:
    files, test_count, seed = settings.files, settings.test_count, settings.seed
    assert files.csv is not None
    if files.test_csv is None and test_count is None:
        raise ConfigError("--csv alone leaves nothing to evaluate on: add --test-csv FILE or --test-count M")
    source = Selection(workspace.resolve(files.csv), settings.size, settings.min_difficulty, progress)
    side = source.board_size()

    def parts() -> Parts:
        test = rest = source
        if files.test_csv is not None:
            test = Selection(workspace.resolve(files.test_csv), side, settings.min_difficulty, progress)
        if test_count is not None:
            test, others = test.parted(test_count, seed=seed, name="sudoku-test")
            rest = others if files.test_csv is None else rest
        if files.subsample_size is not None:
            rest, _ = rest.parted(files.subsample_size, seed=seed, name="sudoku-subsample")
        for split, selection in (("test", test), ("train", rest)):
            yield from ((split, block) for block in selection.blocks())

    names = " and ".join(file.name for file in (files.csv, files.test_csv) if file is not None)
    return _about(side, seed, f"{side}x{side} Sudokus of {names}"), parts()


def _about(size: int, seed: int, description: str, *, is_proxy: bool = False) -> About:
    return About(kind=Sudoku.kind, height=size, width=size, description=description, seed=seed, is_proxy=is_proxy)


def _with_variants(
    puzzles: Puzzles, held_out: Keys, settings: SudokuConfig, *, first_group: int
) -> tuple[Tokens, Tokens]:
    """Inputs and labels (n * (1 + num_aug), S): each puzzle, then its variants, no ``held_out`` ones. Raises DataError.

    The variants of a puzzle follow from its number in the training split.
    """
    count, size = settings.num_aug, math.isqrt(puzzles.inputs.shape[1])
    if not count:
        return puzzles.inputs, puzzles.labels
    numbers = np.arange(first_group * count, (first_group + len(puzzles)) * count)
    inputs, labels = (np.repeat(rows, count, axis=0) for rows in (puzzles.inputs, puzzles.labels))
    variants, answers = np.empty_like(inputs), np.empty_like(labels)
    waiting = np.arange(len(inputs))
    for attempt in range(_REDRAWS):
        drawn = draw(size, seed=settings.seed, row_numbers=numbers[waiting], name=f"sudoku-variant-{attempt}")
        variants[waiting], answers[waiting] = drawn.apply(inputs[waiting]), drawn.apply(labels[waiting])
        waiting = waiting[np.isin(_keys(variants[waiting]), held_out)]
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


def _keys(inputs: Tokens) -> Keys:
    """Each row as one byte string that numpy can sort and compare; no token is 0, so none is cut off."""
    return np.ascontiguousarray(inputs).view(f"S{inputs.shape[1]}").reshape(-1)
