"""Telling what a manager does: to handlers in this process, and refusals to those elsewhere."""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar, cast, overload

from msgspec import Struct, structs

from ducto_redis.errors import ConfigError, CreditError, LeaseExpiredError
from ducto_redis.events import from_result
from ducto_redis.events.from_result import CHARGE_REFUSED, REFUND_REFUSED, Call
from ducto_redis.events.handlers import EventHandler, Handlers, check_event_type, is_coroutine, name_of
from ducto_redis.events.throttle import SignalGate
from ducto_redis.events.types import SIGNALS, CreditEvent
from ducto_redis.manager.handler_queue import forget
from ducto_redis.store.contract import CreditStore

H = TypeVar("H", bound=EventHandler)
Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])

_log = logging.getLogger("ducto_redis.events")


class EventCounts(Struct):
    """What became of telling.

    Attributes:
        handler_errors: calls of handlers that raised; each is logged.
        dropped: calls of coroutine handlers that were not made, because 10,000 waited or the manager was closed.
        signals: refusals that were told to other processes.
        signal_errors: refusals that could not be told to other processes.
    """

    handler_errors: int = 0
    dropped: int = 0
    signals: int = 0
    signal_errors: int = 0


class Events:
    """The part of a manager that tells what the others do.

    Attributes:
        handlers: of this process.
        event_counts: what became of telling.
        signals: whether refusals are told to other processes: None, while some event worker or `ducto events tail`
            listens; True, always; False, never.
    """

    store: CreditStore

    _runs_coroutines = False

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.event_counts = EventCounts()
        self.signals: bool | None = None
        self._signal_gate = SignalGate()

    @overload
    def on(self, event_type: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event_type: str, handler: H) -> H: ...
    def on(self, event_type: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Call a handler with every event of a type that this manager brings about.

        It is called after the operation is done, in order of registration; what it raises is logged and counted, and
        never reaches the caller. A coroutine handler, of an `AsyncCreditManager`, is awaited in a task of the manager,
        one after the other: the operation does not wait for it, `close` does. What an earlier call did already
        (`replayed`) is not told again. Without a handler, `on` is a decorator.

        Args:
            event_type: such as `credits.low_balance`; `credits.*` or `*` for all.
            handler: called with the `CreditEvent`.

        Returns:
            The handler.

        Raises:
            ConfigError: if there is no such type, or the handler needs an event loop that there is not.
        """
        if handler is None:
            check_event_type(event_type)
            return lambda decorated: self.on(event_type, decorated)
        if not self._runs_coroutines and is_coroutine(handler):
            raise ConfigError(
                f"the handler {name_of(handler)} is a coroutine function, and there is no event loop to run it: use"
                " AsyncCreditManager, or a plain function"
            )
        return self.handlers.on(event_type, handler)

    def off(self, event_type: str, handler: EventHandler) -> bool:
        """Take back what `on` did with the same arguments. Returns whether it had been done."""
        return self.handlers.off(event_type, handler)

    def _tell(self, make: Callable[[], Iterable[CreditEvent]]) -> list[CreditEvent]:
        """Call handlers with the events that `make` makes, and return these. It raises nothing."""
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

    @property
    def _hears_refusals(self) -> bool:
        return bool(self.handlers) or (self.signals is not False and self._signal_gate.open)

    def _tell_refusal(self, make: Callable[[], Iterable[CreditEvent]]) -> None:
        for event in self._tell(make):
            if event.type in SIGNALS:
                self._signal(event)

    def _handler_failed(self, handler: EventHandler, event: CreditEvent, error: BaseException) -> None:
        self.event_counts.handler_errors += 1
        _log.error("the handler %s of %s failed", name_of(handler), event.type, exc_info=error)

    def _await_later(self, handler: EventHandler, event: CreditEvent, result: Awaitable[None]) -> None:
        forget(result)
        self._handler_failed(handler, event, ConfigError("it returned a coroutine, and there is no event loop"))

    def _signal(self, event: CreditEvent) -> None:
        if self.signals is False:
            return
        suppressed = self._signal_gate.admit(event)
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
                self._signal_gate.nobody_listens()
        except CreditError as error:
            if not self.event_counts.signal_errors:
                _log.warning("a refusal could not be told to event workers, further ones are only counted: %s", error)
            self.event_counts.signal_errors += 1

    def _in_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something soon, and do not wait for it."""
        raise NotImplementedError


def tells(
    done: Callable[[Any, Call], Iterable[CreditEvent]],
    refused: Callable[[Any, Call], Iterable[CreditEvent]] | None = None,
    refusals: tuple[type[CreditError], ...] = (),
) -> Callable[[Method], Method]:
    """A decorator of a manager's method: it tells what the method did, and what refused it.

    Args:
        done: makes events of the result and of the arguments by name.
        refused: makes events of an error and of the arguments by name.
        refusals: the errors that it is called with.
    """

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)

        def arguments(*args: Any, **kwargs: Any) -> Call:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return bound.arguments

        @functools.wraps(method)
        async def call(self: Events, *args: Any, **kwargs: Any) -> Any:
            try:
                result = await method(self, *args, **kwargs)
            except refusals as error:
                if refused is not None and self._hears_refusals:
                    refusal = error  # the name does not outlive the clause
                    self._tell_refusal(lambda: refused(refusal, arguments(self, *args, **kwargs)))
                raise
            if self.handlers.registered and not getattr(result, "replayed", False):
                self._tell(lambda: done(result, arguments(self, *args, **kwargs)))
            return result

        return cast("Method", call)

    return decorate


tells_added = tells(from_result.added)
tells_adjusted = tells(from_result.adjusted)
tells_deducted = tells(from_result.deducted, partial(from_result.charge_refused, operation="deduct"), CHARGE_REFUSED)
tells_reserved = tells(from_result.reserved, partial(from_result.charge_refused, operation="reserve"), CHARGE_REFUSED)
tells_extended = tells(from_result.extended, from_result.extend_refused, (*CHARGE_REFUSED, LeaseExpiredError))
tells_renewed = tells(from_result.nothing, from_result.lease_expired, (LeaseExpiredError,))
tells_settled = tells(from_result.settled)
tells_released = tells(from_result.released)
tells_refunded = tells(from_result.refunded, from_result.refund_refused, REFUND_REFUSED)
tells_plan = tells(from_result.plan_changed)
tells_pricing = tells(from_result.pricing_activated)
tells_swept = tells(from_result.swept)
