"""``lab data build-maze``: a dataset of mazes, generated or from CSV files, in the reference format.

A group is one maze; its puzzles are that maze and, in the training split, some of its seven other orientations.
Ratings are the number of steps from start to goal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.config.datasets import COUNT, MAZE_LOOPS, MAZE_SIZE, MAZE_TESTS, SEED, MazeConfig
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.maze.board import VOCAB_SIZE, Maze
from hrm_engine.data.puzzles.maze.generate import MazeSettings, canonical_keys, generate_mazes
from hrm_engine.data.puzzles.maze.published import PublishedMazes, read_mazes
from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.puzzles.symmetries import Symmetries
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.data.random import permutation, stream
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.store.paths import Workspace

# The side of the published mazes: generated ones of that size stand in for them.
_PUBLISHED_SIZE = 30
_CHUNK_MAZES = 1024


@dataclass(frozen=True)
class MazeReport:
    """A built dataset. ``shortest``, ``mean``, ``longest``: steps from start to goal.

    ``num_several`` mazes have several shortest paths, ``num_skipped`` bad rows were left out, and ``num_left_out``
    training mazes, because they are test mazes as well (generated ones never are).
    """

    folder: Path
    description: str
    is_proxy: bool
    num_train_mazes: int
    num_train_rows: int
    num_test_mazes: int
    shortest: int
    mean: float
    longest: int
    seconds: float
    num_left_out: int = 0
    num_several: int = 0
    num_skipped: int = 0


def build_mazes(settings: MazeConfig, workspace: Workspace, *, progress: Progress | None = None) -> MazeReport:
    """What the settings describe: mazes of their CSV files, else generated ones. Raises what those raise."""
    generated, files, folder = settings.generated, settings.files, workspace.resolve(settings.output_dir)
    common: dict[str, Any] = {
        "seed": settings.seed,
        "num_aug": settings.num_orientations,
        "replace": settings.replace,
    }
    if files.csv:
        return build_from_csv(
            folder,
            csv=[workspace.resolve(file) for file in files.csv],
            test_csv=[workspace.resolve(file) for file in files.test_csv],
            test_count=settings.test_count or 0,
            subsample_size=files.subsample_size,
            size=settings.size,
            skip_bad=files.skip_bad_records,
            **common,
        )
    return build_generated(
        folder,
        size=MAZE_SIZE if settings.size is None else settings.size,
        test_count=MAZE_TESTS if settings.test_count is None else settings.test_count,
        progress=progress,
        **dict(generated),
        **common,
    )


def build_generated(
    folder: Path,
    *,
    size: int = MAZE_SIZE,
    count: int = COUNT,
    test_count: int = MAZE_TESTS,
    seed: int = SEED,
    min_path: int | None = None,
    loops: float = MAZE_LOOPS,
    num_aug: int = 1,
    replace: bool = False,
    progress: Progress | None = None,
) -> MazeReport:
    """Generate mazes with one shortest path each; see ``generate.py``. ``min_path`` is the size if not given.

    The test mazes depend on the seed, the size, ``min_path``, ``loops`` and their number alone, not on the number of
    training mazes, of which none is a rotation or reflection of a test maze.

    Raises:
        ConfigError: a setting is out of its range.
        DataError: ``folder`` exists and ``replace`` is not given; such mazes are too rare.
        StorageError: ``folder`` cannot be written.
    """
    begun = time.perf_counter()
    _check(count, test_count, num_aug)
    min_path = size if min_path is None else min_path
    settings = MazeSettings(size=size, min_path=min_path, loops=loops, seed=seed)
    about = About(
        kind=Maze.kind,
        height=size,
        width=size,
        seed=seed,
        is_proxy=size == _PUBLISHED_SIZE,
        description=f"generated {size}x{size} mazes, one shortest path of at least {min_path} steps, loops {loops}",
    )
    with _writer(folder, about, replace) as writer:
        seen: set[bytes] = set()
        test = None
        if test_count:
            test = generate_mazes(settings, count=test_count, name="test", seen=seen, progress=progress)
        train = generate_mazes(settings, count=count, name="train", seen=seen, progress=progress)
        _write(writer, train, test, num_aug, seed)
    return _report(folder, about, train, test, num_aug, begun)


def build_from_csv(
    folder: Path,
    *,
    csv: Sequence[Path],
    test_csv: Sequence[Path] = (),
    test_count: int = 0,
    subsample_size: int | None = None,
    size: int | None = None,
    seed: int = SEED,
    num_aug: int = 1,
    skip_bad: bool = False,
    replace: bool = False,
) -> MazeReport:
    """Mazes from files in the published form; see ``published.py``.

    Args:
        test_csv: files of the test split; without them ``test_count`` mazes are drawn from ``csv`` and held out.
        subsample_size: how many training mazes are drawn; all, if not given.
        skip_bad: leave bad rows out and count them.

    Raises:
        ConfigError: a setting is out of its range, or there are too few mazes for it.
        DataError: a bad file or row; ``folder`` exists and ``replace`` is not given.
        StorageError: ``folder`` cannot be written.
    """
    begun = time.perf_counter()
    _check(1, test_count, num_aug)
    published = read_mazes(csv, size=size, skip_bad=skip_bad)
    size = math.isqrt(published.mazes.inputs.shape[1])
    held_out: PublishedMazes | None = None
    train, test = published.mazes, None
    if test_csv:
        held_out = read_mazes(test_csv, size=size, skip_bad=skip_bad)
        test = held_out.mazes
    elif test_count:
        if test_count >= len(train):
            raise ConfigError(f"--test-count {test_count}: the files hold {len(train)} mazes, and some must remain")
        drawn = permutation(seed, "maze/held-out", 0, len(train))
        train, test = train[np.sort(drawn[test_count:])], train[np.sort(drawn[:test_count])]
    train, num_left_out = _without(train, test)
    if subsample_size is not None:
        if not 1 <= subsample_size <= len(train):
            raise ConfigError(f"--subsample-size {subsample_size}: there are {len(train)} training mazes")
        train = train[np.sort(permutation(seed, "maze/subsample", 0, len(train))[:subsample_size])]
    names = ", ".join(path.name for path in (*csv, *test_csv))
    about = About(kind=Maze.kind, height=size, width=size, seed=seed, description=f"mazes from {names}")
    with _writer(folder, about, replace) as writer:
        _write(writer, train, test, num_aug, seed)
    parts = [published, held_out] if held_out else [published]
    return _report(
        folder,
        about,
        train,
        test,
        num_aug,
        begun,
        num_skipped=sum(part.num_skipped for part in parts),
        num_several=sum(part.num_several for part in parts),
        num_left_out=num_left_out,
    )


def _check(count: int, test_count: int, num_aug: int) -> None:
    if count < 1:
        raise ConfigError(f"--count {count}: at least 1 training maze is needed")
    if test_count < 0:
        raise ConfigError(f"--test-count {test_count}: give 0 or more")
    if not 1 <= num_aug <= NUM_DIHEDRAL:
        raise ConfigError(f"--num-aug {num_aug}: a maze has 1 to {NUM_DIHEDRAL} orientations, itself included")


def _writer(folder: Path, about: About, replace: bool) -> DatasetWriter:
    return DatasetWriter(folder, about=about, vocab_size=VOCAB_SIZE, seq_len=about.height**2, replace=replace)


def _write(writer: DatasetWriter, train: Puzzles, test: Puzzles | None, num_aug: int, seed: int) -> None:
    cells = dihedral_cells(writer.about.height)
    for name, mazes, num in (("train", train, num_aug), ("test", test, 1)):
        if mazes is None:
            continue
        drawn = orientations(len(mazes), num, seed)
        for first in range(0, len(mazes), _CHUNK_MAZES):
            part, numbers = mazes[first : first + _CHUNK_MAZES], drawn[first : first + _CHUNK_MAZES]
            symmetries = Symmetries(cells[numbers.reshape(-1)])
            inputs, labels = (symmetries.apply(np.repeat(rows, num, axis=0)) for rows in (part.inputs, part.labels))
            writer.split(name).add_puzzles(inputs, labels, np.repeat(part.ratings, num), group_size=num)


def orientations(num: int, num_aug: int, seed: int) -> npt.NDArray[np.int64]:
    """Symmetries to write each of ``num`` mazes in, int64 (num, num_aug): 0 first, then different drawn ones."""
    bits = stream(seed, "maze/orientations", 0).bit_generator
    others = np.argsort(np.asarray(bits.random_raw(num * (NUM_DIHEDRAL - 1))).reshape(num, -1), kind="stable") + 1
    return np.concatenate([np.zeros((num, 1), np.int64), np.sort(others[:, : num_aug - 1], axis=1)], axis=1)


def _without(train: Puzzles, test: Puzzles | None) -> tuple[Puzzles, int]:
    """Training mazes that are no rotation or reflection of a test maze, and how many were."""
    if test is None:
        return train, 0
    held_out = set(canonical_keys(test.inputs))
    kept = np.array([key not in held_out for key in canonical_keys(train.inputs)], dtype=bool)
    if not kept.any():
        raise DataError("every training maze is also a test maze: give other files")
    return train[kept], int((~kept).sum())


def _report(
    folder: Path, about: About, train: Puzzles, test: Puzzles | None, num_aug: int, begun: float, **counts: int
) -> MazeReport:
    lengths = train.ratings if test is None else np.concatenate([train.ratings, test.ratings])
    return MazeReport(
        folder=folder,
        description=about.description,
        is_proxy=about.is_proxy,
        num_train_mazes=len(train),
        num_train_rows=len(train) * num_aug,
        num_test_mazes=0 if test is None else len(test),
        shortest=int(lengths.min()),
        mean=float(lengths.mean()),
        longest=int(lengths.max()),
        seconds=time.perf_counter() - begun,
        **counts,
    )
