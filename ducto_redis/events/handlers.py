"""Handlers of events: functions that are called with the events that they ask for."""

import inspect
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TypeAlias, TypeVar, overload

from ducto_redis.errors import ConfigError
from ducto_redis.events.types import CreditEvent, EventType

EventHandler: TypeAlias = Callable[[CreditEvent], Awaitable[None] | None]
"""A function of an event. It may be a coroutine function if an event loop runs it."""

H = TypeVar("H", bound=EventHandler)

EVERY_EVENT = ("*", "credits.*")
"""The patterns of all types of events."""

_TYPES = frozenset(event_type.value for event_type in EventType)


class Handlers:
    """Handlers, in the order in which they were registered. Threads may share them.

    Attributes:
        registered: types of events and their handlers, in order.

    >>> handlers = Handlers()
    >>> @handlers.on("credits.low_balance")
    ... def warn(event):
    ...     print(f"{event.account} is down to {event.data.balance_after}")
    """

    def __init__(self) -> None:
        self.registered: tuple[tuple[str, EventHandler], ...] = ()
        self._matching: dict[str, tuple[EventHandler, ...]] = {}
        self._lock = Lock()

    @overload
    def on(self, event_type: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event_type: str, handler: H) -> H: ...
    def on(self, event_type: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Register a handler of a type of events. Without a handler, `on` is a decorator.

        Args:
            event_type: such as `credits.low_balance`; `credits.*` or `*` for all.
            handler: called with the event.

        Returns:
            The handler.

        Raises:
            ConfigError: if there is no such type, or the handler is not callable.
        """
        check_event_type(event_type)
        if handler is None:
            return lambda decorated: self.on(event_type, decorated)
        if not callable(handler):
            raise ConfigError(f"a handler is a function that takes an event, not {type(handler).__name__}")
        with self._lock:
            self.registered = (*self.registered, (event_type, handler))
            self._matching = {}
        return handler

    def off(self, event_type: str, handler: EventHandler) -> bool:
        """Unregister a handler. Return True if it was registered.

        Raises:
            ConfigError: if there is no such type.
        """
        check_event_type(event_type)
        with self._lock:
            before = self.registered
            self.registered = tuple(pair for pair in before if pair != (event_type, handler))
            self._matching = {}
        return len(self.registered) < len(before)

    def __bool__(self) -> bool:
        return bool(self.registered)

    def all(self) -> tuple[EventHandler, ...]:
        """Return every handler."""
        return tuple(handler for _, handler in self.registered)

    def of(self, event_type: EventType) -> tuple[EventHandler, ...]:
        """Return the handlers of a type of events."""
        matching = self._matching
        found = matching.get(event_type)
        if found is None:
            found = tuple(
                handler for wanted, handler in self.registered if wanted == event_type or wanted in EVERY_EVENT
            )
            matching[event_type] = found
        return found


def check_event_type(event_type: str) -> str:
    """Return the type of events. Raises ConfigError, which lists the types, if there is no such type."""
    if event_type not in EVERY_EVENT and event_type not in _TYPES:
        raise ConfigError(f"there is no event {event_type!r:.60}; there are {', '.join(EventType)} and credits.*")
    return event_type


def is_coroutine(handler: EventHandler) -> bool:
    """Return True if calling the handler makes a coroutine, which needs an event loop."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def name_of(handler: EventHandler) -> str:
    """Return a handler's name, for messages."""
    name = getattr(handler, "__qualname__", None)
    return name if isinstance(name, str) else repr(handler)
