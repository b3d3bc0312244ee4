"""An HTTP client for event loops that meters what it sends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

from ducto_redis.clients.answering import AnswerAboutWork, MeteredAnswer, ReadAnswer, logger
from ducto_redis.clients.metering import ClientMetering
from ducto_redis.clients.payer import found_payer
from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.manager import AsyncCreditManager, AsyncMeter
from ducto_redis.middleware.background import find_work
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.payer import payer_of
from ducto_redis.middleware.recognisers import Recogniser
from ducto_redis.payer import Payer


class AsyncClient:
    """The metered client, in place of the one that it wraps, whose settings and connections it uses."""

    def __init__(self, inner: Any, metering: ClientMetering, manager: AsyncCreditManager) -> None:
        self.__dict__.update(inner.__dict__)
        self.metered_inner = inner
        self._metering = metering
        self._manager = manager

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and charge what its answer used.

        A request that is refused is answered as the provider would refuse it.
        """
        recogniser = self._metering.recogniser(request)
        if recogniser is not None:
            return await self._send_metered(recogniser, request, stream=stream, **options)
        asked = self._metering.asks(request)
        if asked is not None:
            return await self._send_about_work(*asked, request, stream=stream, **options)
        refused = self._metering.refused_unknown(request)
        if refused is not None:
            return refused
        return await self.metered_inner.send(request, stream=stream, **options)

    async def _send_metered(self, recogniser: Recogniser, request: Any, *, stream: bool, **options: Any) -> Any:
        try:
            await request.aread()
            read = self._metering.read(recogniser, request)
            payer = await self._payer(request)
            meter = AsyncMeter(
                self._manager,
                payer.account,
                read.metered.estimate,
                **self._metering.meter_options(payer, recogniser),
            )
            await meter.open()
        except ConfigError:
            raise  # a mistake of the program's, and no refusal
        except (BadRequestError, CreditError) as error:
            return self._metering.refused(recogniser, request, error)
        try:
            answer = await self.metered_inner.send(self._metering.to_send(request, read), stream=True, **options)
        except BaseException:
            await _give_up(meter)
            raise
        metered = MeteredAnswer(read, payer, meter, answer)

        async def conclude(complete: bool) -> None:
            metered.record(complete=complete)
            if metered.goes_on is None:
                await meter.close_in_task()
            else:
                meter.leave_open()
                await metered.leave_open(self._manager, self._metering.background_ttl_seconds)

        response = await self._response(answer, metered, conclude, whole=not stream)
        if not stream:
            metered.show_charge(response.headers)
        elif not metered.is_error:
            metered.show_hold(response.headers)
        return response

    async def _send_about_work(
        self, recogniser: Recogniser, work_id: str, request: Any, *, stream: bool, **options: Any
    ) -> Any:
        try:
            work = await find_work(self._manager, work_id)
        except CreditError as error:
            logger.warning("the engine can't say whether %r is to be charged: %s", work_id, error)
            work = None
        if work is None:
            return await self.metered_inner.send(request, stream=stream, **options)
        reader = self._metering.read_about_work(recogniser, work, work_id)
        answer = await self.metered_inner.send(request, stream=True, **options)
        about_work = AnswerAboutWork(reader, work, answer)

        async def conclude(complete: bool) -> None:
            await about_work.conclude(self._manager, complete=complete)

        return await self._response(answer, about_work, conclude, whole=not stream)

    async def _payer(self, request: Any) -> Payer:
        payer = found_payer(self._metering.account, request)
        return payer if isinstance(payer, Payer) else payer_of(await payer)

    async def _response(
        self, answer: Any, reading: ReadAnswer, conclude: Callable[[bool], Awaitable[None]], *, whole: bool
    ) -> Any:
        stream = _stream_class(self._metering.http)(answer, reading, conclude, self._manager, whole=whole)
        response = self._metering.answered(answer, stream)
        if reading.is_error:
            # Whoever sees the error and tries again must find the hold released.
            try:
                await stream.end(complete=True)
            except asyncio.CancelledError:
                await response.aclose()
                raise
        if whole:
            try:
                await response.aread()
            finally:
                await response.aclose()
            with suppress(RuntimeError):  # an answer that some transport had in memory took no time
                response.elapsed = answer.elapsed
        return response

    @property
    def is_closed(self) -> bool:
        """True once the client was closed."""
        closed: bool = self.metered_inner.is_closed
        return closed

    async def aclose(self) -> None:
        """Close the client that is wrapped, with its connections."""
        await self.metered_inner.aclose()

    async def __aenter__(self) -> "AsyncClient":
        await self.metered_inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.metered_inner.__aexit__(*error)


class AsyncStream:
    """The bytes of one answer. It is concluded when it ends, is closed, or is dropped without being closed.

    Args:
        answer: the provider's answer.
        reading: what reads it.
        conclude: charges it; called once, with whether it came to its end, in a task that no cancellation stops.
        manager: owns that task.
        whole: whether the caller gets all of the answer at once, or nothing.
    """

    def __init__(
        self,
        answer: Any,
        reading: ReadAnswer,
        conclude: Callable[[bool], Awaitable[None]],
        manager: AsyncCreditManager,
        *,
        whole: bool,
    ) -> None:
        self._answer = answer
        self._reading = reading
        self._conclude = conclude
        self._manager = manager
        self._whole = whole
        self._ended = False
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.aiter_bytes():
                passed = self._reading.feed(chunk)
                if passed:
                    yield passed
        except Exception:
            if self._whole:
                self._reading.forget()
            raise
        if rest := self._reading.finish():
            yield rest
        await self.end(complete=True)

    async def aclose(self) -> None:
        """Close the connection; charge what was delivered."""
        try:
            await self._answer.aclose()
        finally:
            await self.end(complete=False)

    async def end(self, *, complete: bool) -> None:
        """Charge what was delivered, once."""
        if not self._ended:
            self._ended = True
            await asyncio.shield(self._manager.settle_task(self._concluded(complete)))

    async def _concluded(self, complete: bool) -> None:
        try:
            await self._conclude(complete)
        except Exception:
            logger.exception("the charge for an answer failed; its lease is left to expire")

    def __del__(self) -> None:
        if not self._ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._manager.settle_task(self._concluded(False)))


@cache
def async_client_class(http: ModuleType) -> type[Any]:
    """Return the class of metered clients that are an `httpx.AsyncClient` to whoever asks."""
    return type("AsyncMeteredClient", (AsyncClient, http.AsyncClient), {})


@cache
def _stream_class(http: ModuleType) -> type[Any]:
    return type("AsyncMeteredStream", (AsyncStream, http.AsyncByteStream), {})


async def _give_up(meter: AsyncMeter) -> None:
    """Release what is held for a request that was not answered."""
    try:
        await meter.close()
    except CreditError as error:
        logger.info("lease %s of a request without an answer was not released: %s", meter.lease_id, error)
