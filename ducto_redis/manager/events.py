"""Events of a manager: told to handlers in this process, and refusals to event workers in others."""

import functools
import inspect
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast, overload

from msgspec import Struct, structs

from ducto_redis.errors import ConfigError, CreditError, LeaseExpiredError
from ducto_redis.events.from_result import CHARGE_REFUSED, REFUND_REFUSED, Call, refusal_events, result_events
from ducto_redis.events.handlers import EventHandler, Handlers, check_event_type, is_coroutine, name_of
from ducto_redis.events.throttle import RefusalThrottle
from ducto_redis.events.types import SIGNALS, CreditEvent
from ducto_redis.store.contract import CreditStore

H = TypeVar("H", bound=EventHandler)
Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])

HandlerFailed: TypeAlias = Callable[[EventHandler, CreditEvent, BaseException], None]

_LONGEST_QUEUE = 10_000

_log = logging.getLogger("ducto_redis.events")


class EventCounts(Struct):
    """The counts of events that were told, and of failures to tell them.

    Attributes:
        handler_errors: calls of handlers that raised; each is logged.
        dropped: calls of coroutine handlers that never ran, because 10,000 waited or the manager was closed.
        signals: refusals that were sent to other processes.
        signal_errors: refusals that could not be sent.
    """

    handler_errors: int = 0
    dropped: int = 0
    signals: int = 0
    signal_errors: int = 0


class Events:
    """The part of a manager that tells the events of its operations.

    Attributes:
        handlers: the handlers of this process.
        event_counts: counts of what was told, and of failures.
        signals: controls if refusals are sent to other processes: None, while some event worker or `ducto events tail`
            listens; True, always; False, never.
    """

    store: CreditStore

    _runs_coroutines = False

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.event_counts = EventCounts()
        self.signals: bool | None = None
        self._throttle = RefusalThrottle()

    @overload
    def on(self, event_type: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event_type: str, handler: H) -> H: ...
    def on(self, event_type: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Register a handler of the events of a type that this manager brings about. Without a handler, a decorator.

        Handlers are called after the operation, in order of registration. An error of a handler is logged and counted,
        and never reaches the caller. Coroutine handlers of an `AsyncCreditManager` are awaited in a task of the
        manager, one after the other: the operation does not wait for them, `close` does. The result of an earlier call
        (`replayed`) is not told again.

        Args:
            event_type: such as `credits.low_balance`; `credits.*` or `*` for all.
            handler: called with the `CreditEvent`.

        Returns:
            The handler.

        Raises:
            ConfigError: if there is no such type, or the handler needs an event loop and there is none.
        """
        if handler is None:
            check_event_type(event_type)
            return lambda decorated: self.on(event_type, decorated)
        if not self._runs_coroutines and is_coroutine(handler):
            raise ConfigError(
                f"the handler {name_of(handler)} is a coroutine function, but there is no event loop to run it: use"
                " AsyncCreditManager, or a plain function"
            )
        return self.handlers.on(event_type, handler)

    def off(self, event_type: str, handler: EventHandler) -> bool:
        """Unregister a handler. Return True if it was registered."""
        return self.handlers.off(event_type, handler)

    def _tell_refusal(self, operation: str, error: CreditError, call: Call) -> None:
        """Call handlers with the events of a refusal, and send them to other processes. Raises nothing."""
        if not self.handlers and (self.signals is False or not self._throttle.open):
            return
        for event in self._tell(lambda: refusal_events(operation, error, call)):
            if event.type in SIGNALS:
                self._signal(event)

    def _tell_result(self, operation: str, result: Any, call: Call) -> None:
        """Call handlers with the events of a result, unless an earlier call told them. Raises nothing."""
        if not getattr(result, "replayed", False):
            self._tell(lambda: result_events(operation, result, call))

    def _tell(self, make: Callable[[], Iterable[CreditEvent]]) -> list[CreditEvent]:
        """Call handlers with the events that `make` makes, and return the events. Raises nothing."""
        try:
            events = list(make())
        except Exception:
            _log.exception("the events of an operation could not be made")
            return []
        for event in events:
            for handler in self.handlers.of(event.type):
                try:
                    result = handler(event)
                except Exception as error:
                    self._handler_failed(handler, event, error)
                    continue
                if inspect.isawaitable(result):
                    self._await_later(handler, event, result)
        return events

    def _handler_failed(self, handler: EventHandler, event: CreditEvent, error: BaseException) -> None:
        self.event_counts.handler_errors += 1
        _log.error("the handler %s of %s failed", name_of(handler), event.type, exc_info=error)

    def _await_later(self, handler: EventHandler, event: CreditEvent, result: Awaitable[None]) -> None:
        _drop(result)
        self._handler_failed(handler, event, ConfigError("it returned a coroutine, but there is no event loop"))

    def _signal(self, event: CreditEvent) -> None:
        if self.signals is False:
            return
        suppressed = self._throttle.admit(event)
        if suppressed is None:
            return
        if suppressed:
            event = structs.replace(event, data=structs.replace(event.data, suppressed=suppressed))
        self._in_background(partial(self._send_signal, event))

    async def _send_signal(self, event: CreditEvent) -> None:
        try:
            if await self.store.signal(event.account, event.to_json(), unheard=self.signals is True):
                self.event_counts.signals += 1
            else:
                self._throttle.pause()
        except CreditError as error:
            if not self.event_counts.signal_errors:
                _log.warning("a refusal could not be sent to event workers; further ones are only counted: %s", error)
            self.event_counts.signal_errors += 1

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start work, and do not wait for it."""
        raise NotImplementedError


class HandlerQueue:
    """A bounded queue of what coroutine handlers returned, to be awaited in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[EventHandler, CreditEvent, Awaitable[None]]] = deque()

    def put(self, handler: EventHandler, event: CreditEvent, result: Awaitable[None]) -> bool:
        """Add a handler's result. Return False, and drop it, if too many wait."""
        if len(self._waiting) >= _LONGEST_QUEUE:
            _drop(result)
            return False
        self._waiting.append((handler, event, result))
        return True

    async def run(self, failed: HandlerFailed) -> None:
        """Await all, one after the other. Call `failed` with each error."""
        while self._waiting:
            handler, event, result = self._waiting.popleft()
            try:
                await result
            except Exception as error:
                failed(handler, event, error)

    def close(self) -> int:
        """Drop all, and return their number."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, result in waiting:
            _drop(result)
        return len(waiting)


def _drop(result: Awaitable[None]) -> None:
    # A coroutine that is closed does not warn that it was never awaited.
    if inspect.iscoroutine(result):
        result.close()


_LINES_ABOVE = sys._getframe().f_lineno + 1
_TELLING = """\
async def call({parameters}):
    try:
        _result = await _method({passed})
    except _refusals as _error:
        self._tell_refusal(_operation, _error, {arguments})
        raise
    if self.handlers.registered:
        self._tell_result(_operation, _result, {arguments})
    return _result
"""


def tells(operation: str, refusals: tuple[type[CreditError], ...] = ()) -> Callable[[Method], Method]:
    """Return a decorator for a manager's method that tells its results and refusals.

    The wrapper has the method's own parameters, compiled once, as those of a dataclass are. It is on the way of every
    charge: without a handler it costs a frame, and one that packs `*args` and `**kwargs` would cost four times as much.

    Args:
        operation: the operation, as journal entries call it.
        refusals: the errors that are told.
    """

    def decorate(method: Method) -> Method:
        parameters = inspect.signature(method).parameters.values()
        positional = [it.name for it in parameters if it.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        keywords = [it.name for it in parameters if it.kind is inspect.Parameter.KEYWORD_ONLY]
        if len(positional) + len(keywords) != len(parameters):
            raise TypeError(f"{method.__qualname__} has parameters that cannot be told by name")
        source = _TELLING.format(
            parameters=", ".join([*positional, *(["*"] if keywords else []), *keywords]),
            passed=", ".join([*positional, *(f"{name}={name}" for name in keywords)]),
            arguments="{" + ", ".join(f"{name!r}: {name}" for name in (*positional[1:], *keywords)) + "}",
        )
        namespace: dict[str, Any] = {"_method": method, "_operation": operation, "_refusals": refusals}
        # In this file, on the template's lines: profilers count the frame as ours, and tracebacks show the template.
        exec(compile("\n" * _LINES_ABOVE + source, __file__, "exec"), namespace)
        call = namespace["call"]
        call.__defaults__, call.__kwdefaults__ = method.__defaults__, method.__kwdefaults__
        return cast("Method", functools.wraps(method)(call))

    return decorate


tells_added = tells("add_credits")
tells_adjusted = tells("adjust_credits")
tells_deducted = tells("deduct", CHARGE_REFUSED)
tells_reserved = tells("reserve", CHARGE_REFUSED)
tells_extended = tells("extend", (*CHARGE_REFUSED, LeaseExpiredError))
tells_renewed = tells("renew", (LeaseExpiredError,))
tells_settled = tells("settle")
tells_released = tells("release")
tells_refunded = tells("refund", REFUND_REFUSED)
tells_plan = tells("set_plan")
tells_pricing = tells("publish_pricing")
tells_swept = tells("expire_grant")
