"""Values made ahead in a thread: the right ones, errors where they belong, and no thread that stays."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from hrm_engine.data.ahead import Ahead

NAME = "hrm-lab-test-ahead"
LONG_S = 30


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]


class Squares:
    """Makes squares; tells what it was asked for, and waits or fails where it is told to."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.threads: set[str] = set()
        self.waits_at: int | None = None
        self.may_go_on = threading.Event()
        self.fails_at: int | None = None

    def __call__(self, number: int) -> int:
        self.threads.add(threading.current_thread().name)
        self.begun.put(number)
        if number == self.waits_at:
            assert self.may_go_on.wait(LONG_S)
        if number == self.fails_at:
            raise ValueError(f"no square of {number}")
        return number * number


@pytest.fixture
def squares() -> Squares:
    return Squares()


@pytest.fixture
def ahead(squares: Squares) -> Iterator[Ahead[int, int]]:
    made = Ahead(squares, name=NAME)
    yield made
    squares.may_go_on.set()
    made.close()
    assert not running()


def test_each_value_is_made_once_in_one_other_thread(ahead: Ahead[int, int], squares: Squares) -> None:
    assert [ahead.take(number, then=number + 1) for number in range(5)] == [0, 1, 4, 9, 16]
    assert [squares.begun.get(timeout=LONG_S) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert squares.begun.empty()
    assert len(squares.threads) == 1
    assert squares.threads.pop().startswith(NAME)


def test_the_next_one_is_made_before_anybody_asks_and_nobody_waits_for_it(
    ahead: Ahead[int, int], squares: Squares
) -> None:
    squares.waits_at = 4
    assert ahead.take(3, then=4) == 9
    assert [squares.begun.get(timeout=LONG_S) for _ in range(2)] == [3, 4]
    squares.may_go_on.set()
    assert ahead.take(4, then=5) == 16


def test_what_is_not_wanted_is_thrown_away(ahead: Ahead[int, int]) -> None:
    assert ahead.take(1, then=2) == 1
    assert ahead.take(7, then=8) == 49
    assert ahead.take(1, then=2) == 1
    assert ahead.take(2, then=3) == 4


def test_an_error_comes_to_whoever_asks_for_that_value(ahead: Ahead[int, int], squares: Squares) -> None:
    squares.fails_at = 3
    assert ahead.take(2, then=3) == 4  # it fails beside this one, which is right
    with pytest.raises(ValueError, match="no square of 3"):
        ahead.take(3, then=4)
    squares.fails_at = None
    assert ahead.take(3, then=4) == 9


def test_an_error_ahead_that_nobody_asks_for_is_no_error(ahead: Ahead[int, int], squares: Squares) -> None:
    squares.fails_at = 3
    assert ahead.take(2, then=3) == 4
    assert ahead.take(5, then=6) == 25


def test_closing_ends_the_thread_whatever_it_does(squares: Squares) -> None:
    for use in (lambda made: None, lambda made: made.take(1, then=2)):
        made = Ahead(squares, name=NAME)
        use(made)
        made.close()
        made.close()
        assert not running()
