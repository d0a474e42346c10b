"""ARC grids as rows of tokens, and augmentations with their exact inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm_engine.data.puzzles.arc.augment import (
    IDENTITY,
    Augmentation,
    augmented,
    draw_augmentations,
    parse_identifier,
)
from hrm_engine.data.puzzles.arc.build import demonstration_order
from hrm_engine.data.puzzles.arc.grids import END, PAD, SIDE, crop, crop_sizes, encode, encode_many, parse_grid
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.errors import DataError

SIDES = st.integers(1, SIDE)
GRIDS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 9)))
AUGMENTATIONS = st.builds(
    Augmentation, st.integers(0, 7), st.permutations("123456789").map(lambda colours: "0" + "".join(colours))
)
NAMES = st.text("019at_", min_size=1, max_size=12)


@given(GRIDS, AUGMENTATIONS)
def test_augmentations_have_exact_inverses(grid: np.ndarray, augmentation: Augmentation) -> None:
    there = augmentation.apply(grid)
    assert there.dtype == np.uint8
    np.testing.assert_array_equal(augmentation.undo(there), grid)
    np.testing.assert_array_equal(augmentation.apply(augmentation.undo(grid)), grid)
    np.testing.assert_array_equal(there == 0, Augmentation(augmentation.dihedral).apply(grid) == 0)


@given(NAMES, AUGMENTATIONS)
def test_identifiers_carry_the_augmentation(name: str, augmentation: Augmentation) -> None:
    assert parse_identifier(augmentation.identifier(name)) == (name, augmentation)
    assert parse_identifier(name) == (name, IDENTITY)
    symmetry, colours = augmentation.dihedral, augmentation.colours
    if augmentation != IDENTITY:
        assert augmentation.identifier(name) == f"{name}_t{symmetry}_{colours}"
    assert parse_identifier(f"{name}|||t{symmetry}|||{colours}") == (name, augmentation)  # as TRM writes them


def test_what_only_looks_like_an_augmentation_is_a_name() -> None:
    for name in ("a_t8_0123456789", "a_t1_1023456789", "a_t1_0112345678", "a_t1_012345678", "t1_0123456789"):
        assert parse_identifier(name) == (name, IDENTITY)
    assert parse_identifier("a_b_t1_0987654321") == ("a_b", Augmentation(1, "0987654321"))


@given(GRIDS, AUGMENTATIONS, st.data())
def test_a_grid_comes_back_from_its_row(grid: np.ndarray, augmentation: Augmentation, data: st.DataObject) -> None:
    there = augmentation.apply(grid)
    np.testing.assert_array_equal(augmentation.undo(crop(encode(there))), grid)
    height, width = there.shape
    row = data.draw(st.integers(0, SIDE - height))
    column = data.draw(st.integers(0, SIDE - width))
    board = encode(there, row, column)
    assert board.dtype == np.uint8
    assert (board > END).sum() == height * width
    # Moved back to the corner it is the row that was not moved, as far as the end marks stayed on the board.
    moved = np.zeros((SIDE, SIDE), dtype=np.uint8)
    moved[: SIDE - row, : SIDE - column] = board.reshape(SIDE, SIDE)[row:, column:]
    np.testing.assert_array_equal(crop(moved.reshape(-1)), there)
    assert (board == END).sum() == (width if row + height < SIDE else 0) + (height if column + width < SIDE else 0)


def test_the_row_of_a_grid_as_the_reference_writes_it() -> None:
    lines = encode(np.array([[0, 1, 2], [9, 8, 7]], dtype=np.uint8), 1, 2).reshape(SIDE, SIDE)
    assert lines[:4, :7].tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 2, 3, 4, 1, 0],
        [0, 0, 11, 10, 9, 1, 0],
        [0, 0, 1, 1, 1, 0, 0],
    ]
    assert not lines[4:].any()
    assert not lines[:, 7:].any()
    whole = encode(np.full((SIDE, SIDE), 3, dtype=np.uint8))
    assert whole.tolist() == [5] * 900
    assert BOARDS["arc"].to_text(whole[:3]) == "333"


@given(st.lists(GRIDS, min_size=1, max_size=4))
def test_many_at_once_are_each_alone(grids: list[np.ndarray]) -> None:
    boards = np.stack([encode(grid) for grid in grids])
    assert crop_sizes(boards).tolist() == [list(grid.shape) for grid in grids]
    tokens = np.stack([grids[0] + 2, grids[0][::-1] + 2])
    corners = np.zeros(2, dtype=np.int64)
    together = encode_many(tokens, corners, corners)
    np.testing.assert_array_equal(together, np.stack([encode(token - 2) for token in tokens]))


def test_crop_of_boards_that_a_model_might_predict() -> None:
    assert crop(np.full(900, PAD)).shape == crop(np.full(900, END)).shape == (0, 0)
    board = encode(np.full((3, 4), 7, dtype=np.uint8)).reshape(SIDE, SIDE)
    stray = board.copy()
    stray[10:20, 10:20] = 5  # beyond the end marks
    assert crop(stray.reshape(-1)).shape == (3, 4)
    hole = board.copy()
    hole[2, 1] = PAD  # 2 x 4 = 8 cells are more than 3 x 1
    assert crop(hole.reshape(-1)).shape == (2, 4)
    hole[1, 0] = END
    assert crop(hole.reshape(-1)).shape == (1, 4)
    unended = board.copy()
    unended[3, :4] = 9  # the lower end is missing: the right one still tells the width
    assert crop(unended.reshape(-1)).shape == (4, 4)
    with pytest.raises(ValueError, match="900 tokens"):
        crop(board)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "list of rows"),
        ([[]], "list of rows"),
        ("grid", "list of rows"),
        ([[1, 2], [3]], "row 2: 1 cells, but row 1 has 2"),
        ([[1, 10]], "row 1, column 2: 10 is not a colour"),
        ([[1], [-1]], "row 2, column 1: -1 is not a colour"),
        ([[True]], "True is not a colour"),
        ([[1.0]], "1.0 is not a colour"),
        ([[None]], "None is not a colour"),
        ([[0] * 31], "1 x 31 is too large, at most 30 x 30"),
        ([[0]] * 31, "31 x 1 is too large, at most 30 x 30"),
    ],
)
def test_what_is_no_grid(value: object, told: str) -> None:
    with pytest.raises(DataError, match=f"file.json, input.*{told}"):
        parse_grid(value, "file.json, input")


class TestDrawing:
    PAIR = (np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([[7, 8, 9, 6]], dtype=np.uint8))

    @given(seed=st.integers(0, 50), num_aug=st.integers(0, 30))
    def test_distinct_and_by_the_seed(self, seed: int, num_aug: int) -> None:
        drawn = draw_augmentations([self.PAIR], task="a", num_aug=num_aug, seed=seed)
        assert drawn[0] == IDENTITY
        assert len(drawn) == num_aug + 1 == len({augmentation.identifier("a") for augmentation in drawn})
        results = {tuple(augmentation.apply(grid).tobytes() for grid in self.PAIR) for augmentation in drawn}
        assert len(results) == num_aug + 1
        assert drawn == draw_augmentations([self.PAIR], task="a", num_aug=num_aug, seed=seed)
        if num_aug > 3:
            assert drawn != draw_augmentations([self.PAIR], task="b", num_aug=num_aug, seed=seed)
            assert drawn != draw_augmentations([self.PAIR], task="a", num_aug=num_aug, seed=seed + 1)

    def test_equal_results_come_once(self) -> None:
        # One colour, the same in every orientation: nine colours it can become, and one of them is its own.
        square = np.full((2, 2), 4, dtype=np.uint8)
        drawn = draw_augmentations([(square, square)], task="a", num_aug=100, seed=0)
        assert sorted(int(augmentation.table[4]) for augmentation in drawn) == list(range(1, 10))
        black = np.zeros((3, 3), dtype=np.uint8)
        assert draw_augmentations([(black, black)], task="a", num_aug=100, seed=0) == [IDENTITY]
        # The order of the pairs does not make another puzzle of the same pairs: a turn by half exchanges these two.
        left, right = np.array([[1, 0]], dtype=np.uint8), np.array([[0, 1]], dtype=np.uint8)
        drawn = draw_augmentations([(left, left), (right, right)], task="a", num_aug=200, seed=0)
        assert len(drawn) == 18  # nine colours, lying or standing

    def test_all_at_once_is_each_alone(self) -> None:
        drawn = draw_augmentations([self.PAIR], task="a", num_aug=40, seed=5)
        found: dict[int, np.ndarray] = {}
        for positions, grids in augmented(self.PAIR[0], drawn):
            found.update(zip(positions.tolist(), grids, strict=True))
        assert sorted(found) == list(range(41))
        for position, augmentation in enumerate(drawn):
            np.testing.assert_array_equal(found[position], augmentation.apply(self.PAIR[0]))


@given(st.integers(1, 10), st.integers(0, 5))
def test_orders_of_demonstrations_are_permutations_of_their_own(num: int, seed: int) -> None:
    orders = [demonstration_order(f"a_t{number}_0123456789", num, seed) for number in range(8)]
    for order in orders:
        np.testing.assert_array_equal(order[np.argsort(order)], np.arange(num))
        np.testing.assert_array_equal(np.arange(num)[order][np.argsort(order)], np.arange(num))
    if num > 6:
        assert len({order.tobytes() for order in orders}) > 1
