"""An HTTP client for threads that meters what it sends."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

from ducto_redis.clients.answering import AnswerAboutWork, MeteredAnswer, ReadAnswer, logger
from ducto_redis.clients.metering import ClientMetering
from ducto_redis.clients.payer import found_payer
from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.manager import CreditManager, Meter
from ducto_redis.middleware.background import find_work
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.recognisers import Recogniser
from ducto_redis.payer import Payer
from ducto_redis.run_sync import run_sync


class BlockingClient:
    """The metered client, in place of the one that it wraps, whose settings and connections it uses."""

    def __init__(self, inner: Any, metering: ClientMetering, manager: CreditManager) -> None:
        self.__dict__.update(inner.__dict__)
        self.metered_inner = inner
        self._metering = metering
        self._manager = manager

    def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and charge what its answer used.

        A request that is refused is answered as the provider would refuse it.
        """
        recogniser = self._metering.recogniser(request)
        if recogniser is not None:
            return self._send_metered(recogniser, request, stream=stream, **options)
        asked = self._metering.asks(request)
        if asked is not None:
            return self._send_about_work(*asked, request, stream=stream, **options)
        refused = self._metering.refused_unknown(request)
        if refused is not None:
            return refused
        return self.metered_inner.send(request, stream=stream, **options)

    def _send_metered(self, recogniser: Recogniser, request: Any, *, stream: bool, **options: Any) -> Any:
        try:
            request.read()
            read = self._metering.read(recogniser, request)
            payer = self._payer(request)
            meter = Meter(
                self._manager,
                payer.account,
                read.metered.estimate,
                **self._metering.meter_options(payer, recogniser),
            )
            meter.open()
        except ConfigError:
            raise  # a mistake of the program's, and no refusal
        except (BadRequestError, CreditError) as error:
            return self._metering.refused(recogniser, request, error)
        try:
            answer = self.metered_inner.send(self._metering.to_send(request, read), stream=True, **options)
        except BaseException:
            _give_up(meter)
            raise
        metered = MeteredAnswer(read, payer, meter, answer)

        def conclude(complete: bool) -> None:
            metered.record(complete=complete)
            if metered.goes_on is None:
                meter.close()
            else:
                meter.leave_open()
                run_sync(metered.leave_open(self._manager.core, self._metering.background_ttl_seconds))

        response = self._response(answer, metered, conclude, whole=not stream)
        if not stream:
            metered.show_charge(response.headers)
        elif not metered.is_error:
            metered.show_hold(response.headers)
        return response

    def _send_about_work(
        self, recogniser: Recogniser, work_id: str, request: Any, *, stream: bool, **options: Any
    ) -> Any:
        try:
            work = run_sync(find_work(self._manager.core, work_id))
        except CreditError as error:
            logger.warning("the engine can't say whether %r is to be charged: %s", work_id, error)
            work = None
        if work is None:
            return self.metered_inner.send(request, stream=stream, **options)
        reader = self._metering.read_about_work(recogniser, work, work_id)
        answer = self.metered_inner.send(request, stream=True, **options)
        about_work = AnswerAboutWork(reader, work, answer)

        def conclude(complete: bool) -> None:
            run_sync(about_work.conclude(self._manager.core, complete=complete))

        return self._response(answer, about_work, conclude, whole=not stream)

    def _payer(self, request: Any) -> Payer:
        payer = found_payer(self._metering.account, request)
        if not isinstance(payer, Payer):
            raise ConfigError("account must not be a coroutine function: this client has no event loop")
        return payer

    def _response(self, answer: Any, reading: ReadAnswer, conclude: Callable[[bool], None], *, whole: bool) -> Any:
        stream = _stream_class(self._metering.http)(answer, reading, conclude, self._manager, whole=whole)
        response = self._metering.answered(answer, stream)
        if reading.is_error:
            # Whoever sees the error and tries again must find the hold released.
            stream.end(complete=True)
        if whole:
            try:
                response.read()
            finally:
                response.close()
            with suppress(RuntimeError):  # an answer that some transport had in memory took no time
                response.elapsed = answer.elapsed
        return response

    @property
    def is_closed(self) -> bool:
        """True once the client was closed."""
        closed: bool = self.metered_inner.is_closed
        return closed

    def close(self) -> None:
        """Close the client that is wrapped, with its connections."""
        self.metered_inner.close()

    def __enter__(self) -> "BlockingClient":
        self.metered_inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.metered_inner.__exit__(*error)


class BlockingStream:
    """The bytes of one answer. It is concluded when it ends, is closed, or is dropped without being closed.

    Args:
        answer: the provider's answer.
        reading: what reads it.
        conclude: charges it; called once, with whether it came to its end.
        manager: does so where the stream is dropped.
        whole: whether the caller gets all of the answer at once, or nothing.
    """

    def __init__(
        self,
        answer: Any,
        reading: ReadAnswer,
        conclude: Callable[[bool], None],
        manager: CreditManager,
        *,
        whole: bool,
    ) -> None:
        self._answer = answer
        self._reading = reading
        self._conclude = conclude
        self._manager = manager
        self._whole = whole
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._answer.iter_bytes():
                passed = self._reading.feed(chunk)
                if passed:
                    yield passed
        except Exception:
            if self._whole:
                self._reading.forget()
            raise
        if rest := self._reading.finish():
            yield rest
        self.end(complete=True)

    def close(self) -> None:
        """Close the connection; charge what was delivered."""
        try:
            self._answer.close()
        finally:
            self.end(complete=False)

    def end(self, *, complete: bool) -> None:
        """Charge what was delivered, once."""
        if self._ended:
            return
        self._ended = True
        try:
            self._conclude(complete)
        except Exception:
            logger.exception("the charge for an answer failed; its lease is left to expire")

    def __del__(self) -> None:
        # Here nothing may wait for the engine: the manager's own thread does.
        if not self._ended:
            self._manager.later(0, lambda: self.end(complete=False), before_stop=True)


@cache
def blocking_client_class(http: ModuleType) -> type[Any]:
    """Return the class of metered clients that are an `httpx.Client` to whoever asks."""
    return type("MeteredClient", (BlockingClient, http.Client), {})


@cache
def _stream_class(http: ModuleType) -> type[Any]:
    return type("MeteredStream", (BlockingStream, http.SyncByteStream), {})


def _give_up(meter: Meter) -> None:
    """Release what is held for a request that was not answered."""
    try:
        meter.close()
    except CreditError as error:
        logger.info("lease %s of a request without an answer was not released: %s", meter.lease_id, error)
