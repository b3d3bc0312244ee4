"""One answer of a provider on its way to the caller: read as it goes by, and charged at its end."""

import logging
from typing import Any

import msgspec

from ducto_redis.clients.metering import ReadRequest
from ducto_redis.display import format_credits
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.meter import MeterCore
from ducto_redis.middleware.api_request import Headers
from ducto_redis.middleware.background import BackgroundJob, finish_if_done, try_to_leave_open
from ducto_redis.middleware.outcome import conclude
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import Charge, ResponseReader
from ducto_redis.payer import Payer
from ducto_redis.results import ZERO, SettleResult

logger = logging.getLogger("ducto_redis.clients")


class ReadAnswer:
    """The reading of one answer. It never spoils the answer, whatever fails.

    Args:
        reader: understands the answer.
        answer: the provider's.
        may_hide: whether events can be kept from the caller.
    """

    def __init__(self, reader: ResponseReader, answer: Any, *, may_hide: bool) -> None:
        self.reader = reader
        self.reading: BodyReading | None = None
        if answer.status_code < 300:
            content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            self.reading = BodyReading(reader, content_type.encode(), b"", whole_events=may_hide)
            self.reading.begin(answer.status_code, Headers(answer.headers.raw))

    @property
    def is_error(self) -> bool:
        """True where the provider answered with an error."""
        return self.reading is None

    def feed(self, chunk: bytes) -> bytes:
        """Take the next decoded bytes of the answer. Return those that the caller gets."""
        if self.reading is None:
            return chunk
        try:
            return self.reading.feed(chunk)
        except Exception:
            self.reading.fail()
            return chunk

    def finish(self) -> bytes:
        """Take the end of the answer, or its interruption. Return what the caller did not get yet."""
        if self.reading is None:
            return b""
        try:
            return self.reading.finish()
        except Exception:
            self.reading.fail()
            return b""

    def forget(self) -> None:
        """Charge nothing: none of the answer reached the caller, who may try again."""
        self.reading = None


class MeteredAnswer(ReadAnswer):
    """The answer to a metered request.

    Args:
        read: the request.
        payer: who pays for it.
        meter: the meter that is open for it.
        answer: the provider's.
    """

    goes_on: Charge | None = None
    """The job that goes on after the answer; its lease is left to the call that sees it finished."""

    def __init__(self, read: ReadRequest, payer: Payer, meter: MeterCore, answer: Any) -> None:
        super().__init__(read.reader, answer, may_hide=read.reader.hides_events)
        self._read = read
        self._payer = payer
        self._meter = meter

    def record(self, *, complete: bool) -> None:
        """Record on the meter what the answer used."""
        if self.reading is None:
            return
        metered = self._read.metered
        charge, _ = conclude(metered, self.reader, self.reading, metered.estimate, complete=complete)
        if charge is None:
            return
        if charge.later:
            self.goes_on = charge
        else:
            self._meter.record(charge.usage, *charge.flags)

    async def leave_open(self, manager: ManagerCore, ttl_seconds: float) -> None:
        """Leave work that goes on to the call that sees it finished."""
        assert self.goes_on is not None
        job = BackgroundJob.of(
            self._payer,
            self._meter.lease_id,
            self._meter.held,
            operation_type=self._payer.operation_type or self._read.recogniser.operation_type,
            estimate=self._read.metered.estimate,
            counted_input_tokens=self._read.metered.counted_input_tokens,
        )
        if not await try_to_leave_open(manager, self.goes_on.later, job, ttl_seconds):
            logger.error(
                "gave up work that goes on, for the engine is away: %r, %s",
                self.goes_on.later,
                msgspec.json.encode(job).decode(),
            )

    def show_hold(self, headers: Any) -> None:
        """Say in the headers of an answer that is under way what is held for it."""
        headers["x-credits-reserved"] = format_credits(self._meter.held)

    def show_charge(self, headers: Any) -> None:
        """Say in the headers of a whole answer what it cost."""
        result = self._meter.result
        if self.goes_on is not None:
            self.show_hold(headers)
        elif result is not None:
            charged = result.amount if isinstance(result, SettleResult) else ZERO
            headers["x-credits-charged"] = format_credits(charged)
            headers["x-credits-remaining"] = format_credits(result.available)


class AnswerAboutWork(ReadAnswer):
    """The answer to a request about work that went on: the work is charged where the answer shows it finished.

    Args:
        reader: what understands the answer.
        work: what is known of the work.
        answer: the provider's.
    """

    def __init__(self, reader: ResponseReader, work: BackgroundJob, answer: Any) -> None:
        super().__init__(reader, answer, may_hide=False)
        self._work = work

    async def conclude(self, manager: ManagerCore, *, complete: bool) -> None:
        """Charge the work, if it has finished."""
        if self.reading is not None:
            await finish_if_done(manager, self._work, self.reader, self.reading, complete=complete)
