"""Data prepared ahead: a thread makes the next value while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Argument = TypeVar("Argument")
Made = TypeVar("Made")


class Ahead(Generic[Argument, Made]):
    """Values of ``make``, the next one made in a thread of its own while the caller does something else.

    ``make`` must depend on its argument alone. Then nothing depends on a value made ahead: one that is not needed is
    thrown away, a resumed run makes its own, and there is nothing to save or restore. Only the thread calls ``make``,
    so it may keep a cache.
    """

    def __init__(self, make: Callable[[Argument], Made], *, name: str) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._next: tuple[Argument, Future[Made]] | None = None

    def take(self, argument: Argument, *, then: Argument) -> Made:
        """The value for ``argument``, made ahead or else now; the one for ``then`` is begun.

        Raises:
            Exception: of ``make`` for ``argument``; another call tries again.
        """
        ready, self._next = self._next, None
        if ready is None or ready[0] != argument:
            if ready is not None:
                ready[1].cancel()
            ready = argument, self._thread.submit(self._make, argument)
        value = ready[1].result()
        self._next = then, self._thread.submit(self._make, then)
        return value

    def close(self) -> None:
        """End the thread; a value that it is making is thrown away."""
        self._next = None
        self._thread.shutdown(cancel_futures=True)
