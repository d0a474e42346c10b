"""``lab data build-maze``: a dataset of mazes, generated or from CSV files, in the reference format.

A group is one maze; its puzzles are that maze and, in the training split, some of its seven other orientations.
Ratings are the number of steps from start to goal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hrm_engine.config.datasets import MAZE_SIZE, MAZE_TESTS, MazeConfig
from hrm_engine.config.keywords import takes
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.maze.board import VOCAB_SIZE, Maze
from hrm_engine.data.puzzles.maze.generate import MazeSettings, canonical_keys, generate_mazes
from hrm_engine.data.puzzles.maze.published import read_mazes
from hrm_engine.data.puzzles.rated import BuildReport, Progress, Puzzles
from hrm_engine.data.puzzles.symmetries import Symmetries
from hrm_engine.data.puzzles.writer import DatasetWriter
from hrm_engine.data.random import permutation, stream
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.store.paths import Workspace

# Mazes of each split.
Parts = Iterator[tuple[str, Puzzles]]
# The side of the published mazes: generated ones of that size stand in for them.
_PUBLISHED_SIZE = 30
_CHUNK_MAZES = 1024


@takes(MazeConfig)
def build_mazes(
    *, settings: MazeConfig, workspace: Workspace | None = None, progress: Progress | None = None
) -> BuildReport:
    """Build the dataset that the settings describe.

    Generated mazes (``generate.py``) have one shortest path each. The test mazes depend on the seed, the size,
    ``min_path``, ``loops`` and their number alone, not on the number of training mazes. Of CSV files in the published
    form (``published.py``) ``subsample_size`` mazes are drawn for training; without ``test_csv``, ``test_count`` of
    them are drawn and held out. No training maze is a rotation or reflection of a test maze.

    Args:
        workspace: relative paths start from its root; by default that of the current folder.

    Raises:
        ConfigError: a setting is out of its range, or there are too few mazes for it.
        DataError: the folder exists and ``replace`` is not given; such mazes are too rare; a bad file or row.
        StorageError: the folder cannot be written.
    """
    begun, workspace = time.monotonic(), workspace or Workspace.find()
    counts: dict[str, int] = {}
    if settings.files.csv:
        about, parts, counts = _of_files(settings, workspace)
    else:
        about, parts = _generated(settings, progress)
    cells, folder = dihedral_cells(about.height), workspace.resolve(settings.output_dir)
    vocabulary = {"vocab_size": VOCAB_SIZE, "seq_len": about.height**2}
    with DatasetWriter(folder, about=about, replace=settings.replace, **vocabulary) as writer:
        for split, mazes in parts:
            num = settings.num_orientations if split == "train" else 1
            drawn = orientations(len(mazes), num, settings.seed)
            for first in range(0, len(mazes), _CHUNK_MAZES):
                part, numbers = mazes[first : first + _CHUNK_MAZES], drawn[first : first + _CHUNK_MAZES]
                symmetries = Symmetries(cells[numbers.reshape(-1)])
                inputs, labels = (symmetries.apply(np.repeat(rows, num, axis=0)) for rows in (part.inputs, part.labels))
                writer.split(split).add_puzzles(inputs, labels, np.repeat(part.ratings, num), group_size=num)
    return BuildReport.of(writer, begun, **counts)


def _generated(settings: MazeConfig, progress: Progress | None) -> tuple[About, Parts]:
    size = MAZE_SIZE if settings.size is None else settings.size
    test_count = MAZE_TESTS if settings.test_count is None else settings.test_count
    min_path, loops = settings.generated.min_path or size, settings.generated.loops
    mazes = MazeSettings(size=size, min_path=min_path, loops=loops, seed=settings.seed)

    def parts() -> Parts:
        seen: set[bytes] = set()
        for split, count in (("test", test_count), ("train", settings.generated.count)):
            if count:
                yield split, generate_mazes(mazes, count=count, name=split, seen=seen, progress=progress)

    what = f"generated {size}x{size} mazes, one shortest path of at least {min_path} steps, loops {loops}"
    return _about(size, settings.seed, what, is_proxy=size == _PUBLISHED_SIZE), parts()


def _of_files(settings: MazeConfig, workspace: Workspace) -> tuple[About, Parts, dict[str, int]]:
    files, test_count, seed = settings.files, settings.test_count or 0, settings.seed
    csv, test_csv = ([workspace.resolve(file) for file in names] for names in (files.csv, files.test_csv))
    published = [read_mazes(csv, size=settings.size, skip_bad=files.skip_bad_records)]
    train = published[0].mazes
    size = math.isqrt(train.inputs.shape[1])
    test = train[:0]
    if test_csv:
        published.append(read_mazes(test_csv, size=size, skip_bad=files.skip_bad_records))
        test = published[1].mazes
    elif test_count:
        if test_count >= len(train):
            raise ConfigError(f"--test-count {test_count}: the files hold {len(train)} mazes, and some must remain")
        drawn = permutation(seed, "maze/held-out", 0, len(train))
        train, test = train[np.sort(drawn[test_count:])], train[np.sort(drawn[:test_count])]
    held_out = set(canonical_keys(test.inputs))
    is_new = np.array([key not in held_out for key in canonical_keys(train.inputs)], dtype=bool)
    if not is_new.any():
        raise DataError("every training maze is also a test maze: give other files")
    train, num_left_out = train[is_new], int((~is_new).sum())
    if files.subsample_size is not None:
        if files.subsample_size > len(train):
            raise ConfigError(f"--subsample-size {files.subsample_size}: there are {len(train)} training mazes")
        train = train[np.sort(permutation(seed, "maze/subsample", 0, len(train))[: files.subsample_size])]
    counts = {
        "num_left_out": num_left_out,
        "num_several": sum(part.num_several for part in published),
        "num_skipped": sum(part.num_skipped for part in published),
    }
    about = _about(size, seed, f"mazes from {', '.join(file.name for file in (*csv, *test_csv))}")
    return about, iter([("train", train), *([("test", test)] if len(test) else [])]), counts


def _about(size: int, seed: int, description: str, *, is_proxy: bool = False) -> About:
    return About(kind=Maze.kind, height=size, width=size, description=description, seed=seed, is_proxy=is_proxy)


def orientations(num: int, num_aug: int, seed: int) -> npt.NDArray[np.int64]:
    """Symmetries to write each of ``num`` mazes in, int64 (num, num_aug): 0 first, then different drawn ones."""
    bits = stream(seed, "maze/orientations", 0).bit_generator
    others = np.argsort(np.asarray(bits.random_raw(num * (NUM_DIHEDRAL - 1))).reshape(num, -1), kind="stable") + 1
    return np.concatenate([np.zeros((num, 1), np.int64), np.sort(others[:, : num_aug - 1], axis=1)], axis=1)
