"""The registry of handlers."""

from typing import Any

import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.events.handlers import Handlers, is_coroutine, name_of
from ducto_redis.events.types import CreditEvent, EventType


def first(event: CreditEvent) -> None:
    """A handler."""


def second(event: CreditEvent) -> None:
    """Another."""


async def awaited(event: CreditEvent) -> None:
    """A coroutine handler."""


class Callable:
    """A handler that is an object."""

    async def __call__(self, event: CreditEvent) -> None:
        """A coroutine."""


def test_order_is_that_of_registration() -> None:
    """Handlers of one type and of all types are called in the order in which they were registered."""
    handlers = Handlers()
    handlers.on("credits.*", second)
    handlers.on("credits.added", first)
    handlers.on("*", awaited)
    assert handlers.of(EventType.ADDED) == (second, first, awaited)
    assert handlers.of(EventType.SETTLED) == (second, awaited)
    handlers.on("credits.settled", first)
    assert handlers.of(EventType.SETTLED) == (second, awaited, first)


def test_off_takes_back_what_on_did() -> None:
    """A handler that was taken back is not called any more; for other types it stays."""
    handlers = Handlers()
    handlers.on("credits.added", first)
    handlers.on("credits.settled", first)
    assert handlers.of(EventType.ADDED) == (first,)
    assert handlers.off("credits.added", first)
    assert handlers.of(EventType.ADDED) == ()
    assert handlers.of(EventType.SETTLED) == (first,)
    assert not handlers.off("credits.added", first)
    assert handlers
    handlers.off("credits.settled", first)
    assert not handlers


def test_decorates() -> None:
    """Without a handler, `on` decorates one and leaves it as it is."""
    handlers = Handlers()
    decorated = handlers.on("credits.low_balance")(first)
    assert decorated is first
    assert handlers.of(EventType.LOW_BALANCE) == (first,)


@pytest.mark.parametrize("event_type", ["low_balance", "credits.sold", "", "credits"])
def test_an_unknown_type_is_refused(event_type: str) -> None:
    """A misspelt type is an error that says which there are, instead of a handler that is never called."""
    with pytest.raises(ConfigError, match=r"there are credits\.added.*credits\.pricing_activated and credits\.\*"):
        Handlers().on(event_type, first)
    with pytest.raises(ConfigError):
        Handlers().off(event_type, first)


def test_what_cannot_be_called_is_refused() -> None:
    """A handler is a function."""
    wrong: Any = "print"
    with pytest.raises(ConfigError, match="a handler is a function that takes an event, not str"):
        Handlers().on("credits.added", wrong)


def test_coroutines_are_known() -> None:
    """A coroutine function is known as one, also where it is an object's call."""
    assert [is_coroutine(it) for it in (first, awaited, Callable())] == [False, True, True]
    assert name_of(first) == "first"
