"""Generate Sudokus with exactly one solution.

Candidate number i of a seed is a pure function of (size, blanks, seed, i), so the sequence does not depend on how many
are made at once, nor on the number of threads. A candidate fails if ``blanks`` cells cannot be emptied in its order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hrm_engine.data.puzzles.rated import Progress, Puzzles
from hrm_engine.data.puzzles.sudoku.rules import BLANK, BOX_SHAPES
from hrm_engine.data.random import row_words
from hrm_engine.errors import ConfigError, DataError

# A puzzle with one solution has at least 4 givens of 16, 8 of 36, 17 of 81 (the last: McGuire et al. 2012).
MAX_BLANKS = {4: 12, 6: 28, 9: 64}
_BLOCK = {4: 4096, 6: 2048, 9: 256}  # a block takes about a tenth of a second, so that Ctrl-C is heard
_GIVE_UP = 100_000


def generate(
    size: int,
    count: int,
    *,
    blanks: int | None = None,
    seed: int,
    min_difficulty: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Puzzles]:
    """``count`` different puzzles in blocks, in the order of their candidates.

    ``blanks`` cells are empty; without it as many as the candidate's order allows, until no given can be spared.
    ``progress`` gets (puzzles found, ``count``) after each block.

    Raises:
        ConfigError: ``blanks`` beyond what a puzzle with one solution can have.
        DataError: 100,000 candidates in a row brought no new puzzle.
    """
    check_blanks(size, blanks)
    if count < 1:
        raise ConfigError(f"{count} puzzles are asked for: give 1 or more")
    seen: set[bytes] = set()
    idle = 0
    for block in candidate_blocks(size, blanks=blanks, seed=seed, workers=workers):
        fresh = []
        for row in np.flatnonzero(block.ratings >= max(0, min_difficulty)):
            key = block.inputs[row].tobytes()
            if key not in seen:
                seen.add(key)
                fresh.append(row)
            if len(seen) == count:
                break
        idle = 0 if fresh else idle + len(block)
        if fresh:
            yield block[np.array(fresh)]
        if progress is not None:
            progress(len(seen), count)
        if len(seen) == count:
            return
        if idle >= _GIVE_UP:
            what = f"with {blanks} blanks" if blanks else "without a spare given"
            raise DataError(
                f"the last {idle:,} candidates brought no new {size}x{size} puzzle {what} and {min_difficulty} guesses "
                f"or more; {len(seen):,} of {count:,} were found: ask for fewer puzzles, for fewer blanks or guesses"
            )


def check_blanks(size: int, blanks: int | None) -> None:
    """Refuse a number of blanks that no puzzle with one solution has. Raises ConfigError."""
    if size not in BOX_SHAPES:
        raise ConfigError(f"--size {size}: Sudokus of size 4, 6 and 9 are known")
    if blanks is not None and not 1 <= blanks <= MAX_BLANKS[size]:
        raise ConfigError(f"--blanks {blanks}: a {size}x{size} Sudoku with one solution has 1 to {MAX_BLANKS[size]}")


def candidate_blocks(
    size: int, *, blanks: int | None, seed: int, workers: int = 1, num_candidates: int | None = None
) -> Iterator[Puzzles]:
    """All candidates in order, without end or up to ``num_candidates``; failed ones have rating -1."""
    starts = itertools.count(0, _BLOCK[size]) if num_candidates is None else range(0, num_candidates, _BLOCK[size])

    def make(start: int) -> Puzzles:
        end = start + _BLOCK[size] if num_candidates is None else min(start + _BLOCK[size], num_candidates)
        return make_block(size, start, end, blanks=blanks, seed=seed)

    if workers == 1:
        yield from map(make, starts)
        return
    with ThreadPoolExecutor(workers) as pool:  # the search releases the interpreter's lock
        waiting: deque[Future[Puzzles]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(make, start))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def make_block(size: int, start: int, end: int, *, blanks: int | None, seed: int) -> Puzzles:
    """The candidates ``start`` to ``end`` (not included); failed ones have rating -1 and no meaning else."""
    from hrm_engine.data.puzzles.sudoku.search import board_arrays, make_candidates

    words = row_words(seed, f"sudoku-{size}", np.arange(start, end), 2 * size * size).reshape(-1, 2, size * size)
    orders = np.argsort(words, axis=2, kind="stable")
    boards = np.zeros((end - start, size * size), dtype=np.uint8)
    solutions = np.zeros_like(boards)
    ratings = np.zeros(end - start, dtype=np.int64)
    make_candidates(
        np.ascontiguousarray(words[:, 0]), orders, blanks or 0, *board_arrays(size), boards, solutions, ratings
    )
    return Puzzles(boards + np.uint8(BLANK), solutions + np.uint8(BLANK), ratings)
