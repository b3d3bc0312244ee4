"""A runner of coroutines without an event loop."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from ducto_redis.errors import ConfigError

T = TypeVar("T")


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends. Raises ConfigError where it does."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise ConfigError("this store needs an event loop: use AsyncCreditManager")
