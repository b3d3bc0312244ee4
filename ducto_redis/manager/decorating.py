"""`@manager.metered(...)`: functions that hold credits while they run, and charge the usage that they record."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, Unpack

from ducto_redis.errors import ConfigError, LeaseClosedError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.manager.job_meter import AsyncJobMeter, JobMeter
from ducto_redis.manager.meter import DEFAULT_TTL_SECONDS, AsyncMeter, Meter, MeterCore, RunsLater
from ducto_redis.manager.options import MeteredOptions
from ducto_redis.manager.tasks import TaskManager
from ducto_redis.payer import Payer

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=MeterCore)

_current: ContextVar[MeterCore | None] = ContextVar("ducto_redis.current_meter", default=None)


def current_meter() -> MeterCore:
    """Return the meter of the metered function that runs, to record its usage.

    Raises:
        RuntimeError: outside of such a function.
    """
    meter = _current.get()
    if meter is None:
        raise RuntimeError("there is no current meter: call it inside of a function that is `@manager.metered(...)`")
    return meter


class MeteredWork:
    """The way in which a function is metered, see `MeteredOptions`.

    Raises:
        ConfigError: if an option is wrong.
    """

    def __init__(self, **options: Unpack[MeteredOptions]) -> None:
        lease_id, ttl = options.get("lease_id"), options.get("ttl", DEFAULT_TTL_SECONDS)
        on_error, when_charged = options.get("on_error", "charge"), options.get("when_charged", "raise")
        if lease_id is not None and not callable(lease_id):
            raise ConfigError("lease_id must be a function of the arguments: one id for all calls would charge one")
        if on_error not in ("charge", "release"):
            raise ConfigError(f"on_error must be 'charge' or 'release', not {on_error!r}")
        if when_charged not in ("raise", "run"):
            raise ConfigError(f"when_charged must be 'raise' or 'run', not {when_charged!r}")
        ttl_to_ms(ttl)
        self._account = options["account"]
        self._estimate = options["estimate"]
        self._usage_of = options.get("usage_of")
        self._lease_id = lease_id
        self._operation_type = options.get("operation_type", "default")
        self._ttl = ttl
        self._on_error = on_error
        self._when_charged = when_charged

    def decorate_async(
        self, manager: TaskManager, function: Callable[P, Coroutine[Any, Any, T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return the coroutine function, metered."""
        _refuse_generators(function)
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"{_name(function)} is no coroutine function: meter it with a CreditManager")

        @functools.wraps(function)
        async def metered(*args: P.args, **kwargs: P.kwargs) -> T:
            meter = self._meter(AsyncJobMeter, AsyncMeter, manager, args, kwargs)
            try:
                await meter.open()
            except LeaseClosedError as closed:
                if self._when_charged == "raise" or closed.lease_id != meter.lease_id:
                    raise
            token = _current.set(meter)
            try:
                result = await function(*args, **kwargs)
                self._record(meter, result)
            except BaseException:
                self._failed(meter)
                raise
            finally:
                _current.reset(token)
                await meter.close()
            return result

        return metered

    def decorate(self, manager: RunsLater, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, metered."""
        _refuse_generators(function)
        if inspect.iscoroutinefunction(function):
            raise ConfigError(f"{_name(function)} is a coroutine function: meter it with an AsyncCreditManager")

        @functools.wraps(function)
        def metered(*args: P.args, **kwargs: P.kwargs) -> T:
            meter = self._meter(JobMeter, Meter, manager, args, kwargs)
            try:
                meter.open()
            except LeaseClosedError as closed:
                if self._when_charged == "raise" or closed.lease_id != meter.lease_id:
                    raise
            token = _current.set(meter)
            try:
                result = function(*args, **kwargs)
                self._record(meter, result)
            except BaseException:
                self._failed(meter)
                raise
            finally:
                _current.reset(token)
                meter.close()
            return result

        return metered

    def _meter(self, job: type[M], plain: type[M], manager: Any, args: Any, kwargs: Any) -> M:
        account = self._account(*args, **kwargs) if callable(self._account) else self._account
        payer = Payer(account) if isinstance(account, str) else account
        return (plain if self._lease_id is None else job)(
            manager,
            payer.account,
            self._estimate(*args, **kwargs) if callable(self._estimate) else self._estimate,
            operation_type=payer.operation_type or self._operation_type,
            ttl=self._ttl,
            member=payer.member,
            required_feature=payer.required_feature,
            parent=payer.parent,
            lease_id=None if self._lease_id is None else self._lease_id(*args, **kwargs),
            charges_hold=True,
        )

    def _record(self, meter: MeterCore, result: object) -> None:
        if self._usage_of is not None:
            meter.record(self._usage_of(result))

    def _failed(self, meter: MeterCore) -> None:
        if self._on_error == "release":
            meter.forget()


def _refuse_generators(function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"{_name(function)} is a generator: write `with manager.meter(...)` inside of it")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
