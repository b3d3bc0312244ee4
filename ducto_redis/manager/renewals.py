"""Renewals of the leases that meters hold: one timer for all that renew at the same interval.

A request opens a lease and closes it long before it is to be renewed. A timer of its own would cost it more than the
renewal that hardly ever comes; here it costs an entry in a dictionary.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

Lease = TypeVar("Lease", bound=Hashable)


class Renewing(Hashable, Protocol):
    """A meter that renews its lease when it is asked to."""

    def renew(self) -> Coroutine[Any, Any, None]:
        """Renew the lease."""


class Renewals(Generic[Lease]):
    """Calls `renew` with each lease once its interval has passed, unless it was discarded before.

    Leases of one interval fall due in the order in which they were added, so that the first of them sets the timer. It
    belongs to the event loop that runs when a lease is added; leases of a loop that is gone are forgotten with it.

    Args:
        renew: called in the event loop with a lease that is due.
    """

    def __init__(self, renew: Callable[[Lease], object]) -> None:
        self._renew = renew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[float, dict[Lease, float]] = {}

    def add(self, lease: Lease, seconds: float) -> None:
        """Renew a lease `seconds` from now."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._queues = loop, {}
        due = loop.time() + seconds
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
            loop.call_at(due, self._run, loop, seconds)
        queue[lease] = due

    def discard(self, lease: Lease, seconds: float) -> None:
        """Do not renew a lease that was added with `seconds`; one that is not waiting is left alone."""
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.pop(lease, None)

    def _run(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        if loop is not self._loop:
            return
        queue, now = self._queues[seconds], loop.time()
        due = [lease for lease, time in queue.items() if time <= now]
        for lease in due:
            del queue[lease]
        if queue:
            loop.call_at(next(iter(queue.values())), self._run, loop, seconds)
        else:
            del self._queues[seconds]
        for lease in due:
            self._renew(lease)
