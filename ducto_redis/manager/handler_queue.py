"""Coroutine handlers that wait for their turn."""

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ducto_redis.events.handlers import EventHandler
from ducto_redis.events.types import CreditEvent

_LONGEST = 10_000

HandlerFailed: TypeAlias = Callable[[EventHandler, CreditEvent, BaseException], None]


class HandlerQueue:
    """What coroutine handlers returned and is to be awaited, in order; a bounded number."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[EventHandler, CreditEvent, Awaitable[None]]] = deque()

    def put(self, handler: EventHandler, event: CreditEvent, result: Awaitable[None]) -> bool:
        """Take one in. Returns False, and forgets it, where too many wait."""
        if len(self._waiting) >= _LONGEST:
            forget(result)
            return False
        self._waiting.append((handler, event, result))
        return True

    async def run(self, failed: HandlerFailed) -> None:
        """Await all, one after the other. `failed` is called with what one raises."""
        while self._waiting:
            handler, event, result = self._waiting.popleft()
            try:
                await result
            except Exception as error:
                failed(handler, event, error)

    def close(self) -> int:
        """Forget all. Returns how many there were."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, result in waiting:
            forget(result)
        return len(waiting)


def forget(result: Awaitable[None]) -> None:
    """Never await it, without a warning that it never was."""
    if inspect.iscoroutine(result):
        result.close()
