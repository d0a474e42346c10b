"""Every row is given to a slot exactly once an epoch, in the order of the epoch, however the slots halt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.config import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.data.puzzles.description import About, DatasetInfo
from hrm_engine.data.puzzles.format import PuzzleDataset, PuzzleSet
from hrm_engine.data.puzzles.order import PuzzleOrder
from hrm_engine.data.puzzles.row_arrays import RowArrays
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Rows, Slots, empty_slots, refill
from hrm_engine.training.tasks import puzzle_rows
from hrm_engine.training.tasks.puzzle_rows import RowQueue

CELLS = 4
CPU = torch.device("cpu")

# Rows of the puzzles of each group: [[2, 1], [3]] is a group whose two variants have 2 and 1 rows, and one of a single
# puzzle.
Groups = list[list[int]]


@pytest.fixture(autouse=True, scope="module")
def short_ring() -> Iterator[None]:
    """A ring that goes round many times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzle_rows, "RING_BYTES", 2 * CELLS * 30)
        yield


groups = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=6)


def dataset_of(parts: list[Groups]) -> PuzzleDataset:
    """A split with these sets; row r of the split has the number r written into its cells."""
    sets, first = [], 0
    for number, part in enumerate(parts):
        puzzles = [rows for group in part for rows in group]
        count = sum(puzzles)
        inputs = np.stack([row_cells(row) for row in range(first, first + count)])
        sets.append(
            PuzzleSet(
                f"set-{number}",
                inputs,
                inputs[:, ::-1].copy(),
                np.arange(len(puzzles), dtype=np.int64),
                np.cumsum([0, *puzzles]),
                np.cumsum([0, *(len(group) for group in part)]),
                None,
            )
        )
        first += count
    info = DatasetInfo(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=16,
        seq_len=CELLS,
        num_puzzle_identifiers=max(part.num_puzzles for part in sets),
        total_groups=sum(part.num_groups for part in sets),
        mean_puzzle_examples=1.0,
        sets=[part.name for part in sets],
    )
    return PuzzleDataset(Path("none"), "train", info, About(kind="other", height=2, width=2), sets, None)


def row_cells(row: int) -> np.ndarray:
    return np.array([row >> 12 & 15, row >> 8 & 15, row >> 4 & 15, row & 15], dtype=np.uint8)


def row_number(cells: torch.Tensor) -> int:
    return int(sum(int(cell) << shift for cell, shift in zip(cells, (12, 8, 4, 0), strict=True)))


def slots_for(num_slots: int, queue: Rows) -> Slots:
    network = PuzzleNetworkConfig(hidden_size=8, num_heads=1, h_layers=1, l_layers=1, intermediate_size=8)
    core = RecurrentCore(resolve_puzzle_core(network, vocab_size=16, seq_len=CELLS, num_identifiers=64))
    return empty_slots(core, num_slots, queue)


def with_halts(slots: Slots, halted: list[bool]) -> Slots:
    return Slots(slots.carry, slots.rows, slots.segments, torch.tensor(halted))


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(groups, min_size=1, max_size=2),
    num_slots=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    draws=st.lists(st.integers(0, 2**5 - 1), min_size=1, max_size=100),
    unread=st.integers(0, 4),
)
def test_the_slots_take_every_row_of_an_epoch_once(
    parts: list[Groups], num_slots: int, seed: int, draws: list[int], unread: int
) -> None:
    """The counter is looked at only every so many steps, as training does."""
    dataset = dataset_of(parts)
    queue = RowQueue(dataset, num_slots=num_slots, seed=seed, symmetries=False, device=CPU)
    slots, cursor = slots_for(num_slots, queue.ring), torch.zeros((), dtype=torch.int64)
    halted = [True] * num_slots
    taken, known, pending = [], 0, 0
    for draw in draws:
        if pending > unread or not queue.lasts(pending):
            known, pending = int(cursor), 0
        queue.fill(known, pending)
        before = slots
        slots, cursor = refill(with_halts(slots, halted), queue.ring, cursor)
        for place, fresh in enumerate(halted):
            if fresh:
                taken.append(row_number(slots.rows.inputs[place]))
                assert torch.equal(slots.rows.labels[place], slots.rows.inputs[place].flip(0))
            else:
                assert torch.equal(slots.rows.inputs[place], before.rows.inputs[place])
                assert slots.rows.identifiers[place] == before.rows.identifiers[place]
        halted = [bool(draw >> place & 1) for place in range(num_slots)]
        pending += 1
    assert int(cursor) == len(taken)
    assert taken == PuzzleOrder(dataset, seed=seed).rows(0, len(taken)).tolist()


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(groups, min_size=1, max_size=3), seed=st.integers(0, 2**32), epochs=st.integers(1, 4))
def test_an_epoch_has_one_variant_of_every_group(parts: list[Groups], seed: int, epochs: int) -> None:
    dataset = dataset_of(parts)
    order = PuzzleOrder(dataset, seed=seed)
    start = 0
    for number in range(epochs):
        epoch = order.epoch_of(start)
        assert (epoch.number, epoch.start) == (number, start)
        rows = sorted(order.rows(start, len(epoch.rows)).tolist())
        assert len(set(rows)) == len(rows)
        first = 0
        for part in parts:
            for group in part:
                ends = np.cumsum([first, *group]).tolist()
                own = [row for row in rows if first <= row < ends[-1]]
                assert own in [list(range(a, b)) for a, b in pairwise(ends)]
                first = ends[-1]
        assert first == dataset.num_rows
        start = epoch.end


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(groups, min_size=1, max_size=2),
    seed=st.integers(0, 2**32),
    first=st.integers(0, 40),
    count=st.integers(1, 30),
)
def test_rows_do_not_depend_on_what_was_asked_before(parts: list[Groups], seed: int, first: int, count: int) -> None:
    """A resumed run takes up in the middle of an epoch and sees the rows that a straight one sees."""
    dataset = dataset_of(parts)
    straight = PuzzleOrder(dataset, seed=seed)
    wanted = straight.rows(0, first + count)[first:].tolist()
    place = straight.epoch_of(first)
    queue = RowQueue(dataset, num_slots=1, seed=seed, symmetries=False, device=CPU)
    queue.restart(first, place.number, place.start)
    got = []
    for row in range(first, first + count):
        queue.fill(row, 0)
        got.append(row_number(queue.ring.inputs[row % queue.capacity]))
    assert got == wanted


def test_rows_of_several_sets_are_numbered_through() -> None:
    dataset = dataset_of([[[1, 2]], [[3]], [[1], [1]]])
    rows = np.array([7, 0, 3, 2, 5, 6], dtype=np.int64)
    inputs, labels, identifiers = RowArrays(dataset).take(rows)
    assert [row_number(torch.from_numpy(cells)) for cells in inputs] == rows.tolist()
    np.testing.assert_array_equal(labels, inputs[:, ::-1])
    assert identifiers.tolist() == [1, 0, 0, 1, 0, 0]
