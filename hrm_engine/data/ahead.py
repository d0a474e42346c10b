"""Data prepared ahead: a thread makes the next value while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Argument = TypeVar("Argument")
Made = TypeVar("Made")


class Ahead(Generic[Argument, Made]):
    """Values of ``make``, the next one made in a thread of its own while its caller does something else.

    ``make`` must depend on what it is asked for alone. Then nothing depends on what was made ahead: a value that turns
    out not to be wanted is thrown away, a resumed run asks anew, and neither has anything to save or restore. Only the
    thread calls it, so it may keep a cache of its own.
    """

    def __init__(self, make: Callable[[Argument], Made], *, name: str) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._next: tuple[Argument, Future[Made]] | None = None

    def take(self, argument: Argument, *, then: Argument) -> Made:
        """The value for ``asked``, made ahead or else now; the one for ``then`` is begun.

        Raises:
            Exception: what ``make`` raised for ``asked``; asking again tries again.
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
