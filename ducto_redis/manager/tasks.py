"""Managers whose work runs in tasks of an event loop, as meters for event loops need them."""

import asyncio
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, TypeVar

from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.renewals import Renewals, Renewing

T = TypeVar("T")


class TaskManager(ManagerCore):
    """A manager that owns tasks, so that a charge outlives the caller that a cancellation stops."""

    def settle_task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run a coroutine in a task that the manager owns: it outlives the caller, and `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @cached_property
    def renewals(self) -> Renewals[Renewing]:
        """The renewals of the leases that meters hold."""
        return Renewals(lambda meter: self.settle_task(meter.renew()))

    @cached_property
    def _tasks(self) -> set[asyncio.Task[Any]]:
        return set()
