"""The search over Sudokus, compiled: bit masks of candidates, naked and hidden singles, then guessing.

Boards here are digits (0 blank) in reading order, uint8 (S,); bit d - 1 of a mask stands for digit d. ``solve`` and
``generate`` alone import this module, and only when they are used: numba takes half a second to load, and some seconds
to compile the first time (the result is cached on the disk). Signatures are spelled out, so that it compiles once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from hrm_engine.data.puzzles.sudoku.rules import units as units_of

Array = npt.NDArray[Any]
_NUM_BITS = np.array([bin(mask).count("1") for mask in range(512)], dtype=np.uint8)


@cache
def board_arrays(size: int) -> tuple[Array, Array, Array, Array]:
    """Tables for a search over boards of this size: order, turns, units, peers.

    The reading order of the cells (S,), turns of zero (S,), the cells of every unit (3 * size, size), for every cell
    also the others in its units (S, peers).
    """
    units = units_of(size)
    peers = [np.setdiff1d(units[(units == cell).any(axis=1)], [cell]) for cell in range(size * size)]
    order, turns = np.arange(size * size, dtype=np.int64), np.zeros(size * size, dtype=np.uint64)
    return order, turns, units.astype(np.int64), np.array(peers, dtype=np.int64)


@njit(
    "boolean(uint16[::1], uint8[::1], int64[::1], int64, int64[:, ::1], int64[:, ::1], int64)",
    cache=True,
    nogil=True,
)
def _propagate(marks: Array, fixed: Array, queue: Array, waiting: int, units: Array, peers: Array, full: int) -> bool:
    """Fix the ``waiting`` cells of the queue and all that follows by singles; False if a cell or unit is left without.

    ``marks`` (S,) candidates, ``fixed`` (S,) whether a cell's digit has been taken from its peers: both are changed.
    """
    while True:
        while waiting > 0:
            waiting -= 1
            cell = queue[waiting]
            if fixed[cell]:
                continue
            fixed[cell] = 1
            digit = marks[cell]
            for peer in peers[cell]:
                if marks[peer] & digit:
                    left = marks[peer] & ~digit
                    if left == 0:
                        return False
                    marks[peer] = left
                    if left & (left - 1) == 0:
                        queue[waiting] = peer
                        waiting += 1
        for unit in range(units.shape[0]):
            once = 0
            twice = 0
            for place in range(units.shape[1]):
                mask = marks[units[unit, place]]
                twice |= once & mask
                once |= mask
            if once != full:
                return False
            hidden = once & ~twice
            if hidden == 0:
                continue
            for place in range(units.shape[1]):
                cell = units[unit, place]
                digits = marks[cell] & hidden
                if digits != 0 and not fixed[cell]:
                    if digits & (digits - 1) != 0:
                        return False
                    if marks[cell] != digits:
                        marks[cell] = digits
                        queue[waiting] = cell
                        waiting += 1
        if waiting == 0:
            return True


@njit("int64(uint16[::1], int64[::1])", cache=True, nogil=True)
def _choose(marks: Array, order: Array) -> int:
    """The cell with the fewest candidates, at least two, the earliest in ``order`` of several; -1 if all are fixed."""
    best = -1
    fewest = 99
    for cell in order:
        count = _NUM_BITS[marks[cell]]
        if 1 < count < fewest:
            best = cell
            fewest = count
            if count == 2:
                break
    return best


@njit(
    "UniTuple(int64, 2)(uint8[::1], int64, int64, int64, "
    "int64[::1], uint64[::1], int64[:, ::1], int64[:, ::1], uint8[::1])",
    cache=True,
    nogil=True,
)
def _search(
    board: Array,
    barred: int,
    barred_mask: int,
    limit: int,
    order: Array,
    turns: Array,
    units: Array,
    peers: Array,
    solution: Array,
) -> tuple[int, int]:
    """Count the solutions of ``board`` up to ``limit``, writing the first to ``solution``; also the guesses tried.

    Cell ``barred`` may not hold the digits of ``barred_mask``. ``order`` breaks ties between cells to guess in; from
    ``turns`` (S,) comes which candidate of a cell is tried first. A guess is one digit tried in one cell: a puzzle that
    singles solve has 0 of them.
    """
    num_cells = board.shape[0]
    full = (1 << units.shape[1]) - 1
    marks = np.empty((num_cells + 1, num_cells), dtype=np.uint16)
    fixed = np.empty((num_cells + 1, num_cells), dtype=np.uint8)
    queue = np.empty(2 * num_cells, dtype=np.int64)
    cells = np.empty(num_cells + 1, dtype=np.int64)
    left = np.empty(num_cells + 1, dtype=np.uint16)
    waiting = 0
    for cell in range(num_cells):
        marks[0, cell] = full
        fixed[0, cell] = 0
        if board[cell]:
            marks[0, cell] = 1 << (board[cell] - 1)
            queue[waiting] = cell
            waiting += 1
    if barred >= 0:
        marks[0, barred] &= ~barred_mask
    num_solutions = 0
    guesses = 0
    if not _propagate(marks[0], fixed[0], queue, waiting, units, peers, full):
        return 0, 0
    depth = 0
    cells[0] = _choose(marks[0], order)
    if cells[0] < 0:
        for cell in range(num_cells):
            solution[cell] = _NUM_BITS[marks[0, cell] - 1] + 1
        return 1, 0
    left[0] = marks[0, cells[0]]
    while depth >= 0:
        if left[depth] == 0:
            depth -= 1
            continue
        cell = cells[depth]
        mask = left[depth]
        for _ in range(turns[cell] % np.uint64(_NUM_BITS[mask])):
            mask &= mask - 1
        mask &= ~(mask - 1)
        left[depth] &= ~mask
        guesses += 1
        for place in range(num_cells):  # assigning a slice would triple the time to compile
            marks[depth + 1, place] = marks[depth, place]
            fixed[depth + 1, place] = fixed[depth, place]
        marks[depth + 1, cell] = mask
        queue[0] = cell
        if not _propagate(marks[depth + 1], fixed[depth + 1], queue, 1, units, peers, full):
            continue
        following = _choose(marks[depth + 1], order)
        if following >= 0:
            depth += 1
            cells[depth] = following
            left[depth] = marks[depth, following]
            continue
        if num_solutions == 0:
            for place in range(num_cells):
                solution[place] = _NUM_BITS[marks[depth + 1, place] - 1] + 1
        num_solutions += 1
        if num_solutions >= limit:
            break
    return num_solutions, guesses


@njit(
    "void(uint8[:, ::1], int64, int64[::1], uint64[::1], int64[:, ::1], int64[:, ::1], uint8[:, ::1], int64[::1], "
    "int64[::1])",
    cache=True,
    nogil=True,
)
def count_solutions(
    boards: Array,
    limit: int,
    order: Array,
    turns: Array,
    units: Array,
    peers: Array,
    solutions: Array,
    counts: Array,
    guesses: Array,
) -> None:
    """``_search`` for boards (n, S); fills solutions (n, S), counts (n,) and guesses (n,)."""
    for row in range(boards.shape[0]):
        counts[row], guesses[row] = _search(boards[row], -1, 0, limit, order, turns, units, peers, solutions[row])


@njit(
    "void(uint64[:, ::1], int64[:, :, ::1], int64, int64[::1], uint64[::1], "
    "int64[:, ::1], int64[:, ::1], uint8[:, ::1], uint8[:, ::1], int64[::1])",
    cache=True,
    nogil=True,
)
def make_candidates(
    turns: Array,
    orders: Array,
    blanks: int,
    order: Array,
    no_turns: Array,
    units: Array,
    peers: Array,
    boards: Array,
    solutions: Array,
    guesses: Array,
) -> None:
    """A puzzle of each row of random words: boards (n, S), solutions (n, S), guesses (n,), -1 if there is none.

    A grid is filled by the search, ``turns`` (n, S) and the first of ``orders`` (n, 2, S) making its choices. Then
    cells are emptied in the second order wherever the puzzle keeps a single solution, until ``blanks`` are empty. With
    ``blanks`` 0 every cell is tried: no given can then be spared. The number of guesses is that of a full search, which
    proves once more that the solution is the only one.
    """
    num_cells = units.shape[1] * units.shape[1]
    other = np.empty(num_cells, dtype=np.uint8)
    for row in range(turns.shape[0]):
        board = boards[row]
        for cell in range(num_cells):
            board[cell] = 0
        _search(board, -1, 0, 1, orders[row, 0], turns[row], units, peers, solutions[row])
        for cell in range(num_cells):
            board[cell] = solutions[row, cell]
        emptied = 0
        for cell in orders[row, 1]:
            if emptied == blanks and blanks > 0:
                break
            digit = board[cell]
            board[cell] = 0
            num_others, _ = _search(board, cell, 1 << (digit - 1), 1, order, no_turns, units, peers, other)
            if num_others:
                board[cell] = digit
            else:
                emptied += 1
        guesses[row] = -1
        if emptied == blanks or blanks == 0:
            count, tried = _search(board, -1, 0, 2, order, no_turns, units, peers, other)
            if count == 1:
                guesses[row] = tried
