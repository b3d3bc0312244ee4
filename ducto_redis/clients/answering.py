"""One answer of a provider on its way to the caller: read as it goes by, and charged at its end."""

import logging
from typing import Any

import msgspec

from ducto_redis.clients.metering import ReadRequest
from ducto_redis.display import format_credits
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.meter import MeterCore
from ducto_redis.middleware.api_request import Headers
from ducto_redis.middleware.background import OpenWork, finish_work, try_to_leave_open
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import Charge, ResponseReader
from ducto_redis.payer import Payer
from ducto_redis.results import ZERO, SettleResult

logger = logging.getLogger("ducto_redis.clients")


class ReadAnswer:
    """Reads one answer. What fails in reading spoils no answer.

    Args:
        reader: what understands the answer.
        answer: the provider's.
        may_hide: whether events can be kept from the caller.
    """

    def __init__(self, reader: ResponseReader, answer: Any, *, may_hide: bool) -> None:
        self.reader = reader
        self.unreadable = False
        self._reading: BodyReading | None = None
        if answer.status_code < 300:
            content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            self._reading = BodyReading(reader, content_type.encode(), b"", whole_events=may_hide)
            self._reading.begin(answer.status_code, Headers(answer.headers.raw))

    @property
    def is_error(self) -> bool:
        """Whether the provider answered with an error."""
        return self._reading is None

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the answer, decoded. Returns what the caller gets of them."""
        if self._reading is None:
            return chunk
        try:
            return self._reading.feed(chunk)
        except Exception:
            self._give_up()
            return chunk

    def finish(self) -> bytes:
        """The answer has come to its end, or was given up. Returns what the caller did not get yet."""
        if self._reading is None:
            return b""
        try:
            return self._reading.finish()
        except Exception:
            self._give_up()
            return b""

    def forget(self) -> None:
        """Nothing of the answer reached the caller, who may try again: it costs nothing."""
        self._reading = None
        self.unreadable = False

    def charge(self, *, complete: bool) -> Charge | None:
        """Return what the answer used."""
        self.finish()
        if self._reading is None:
            return None
        if self._reading.failed:
            self._reading, self.unreadable = None, True
            return None
        try:
            charge = self.reader.charge(complete=complete)
            if not isinstance(charge, Charge | None):
                raise TypeError(f"charge() returned {charge!r}")
            return charge
        except Exception:
            self._give_up()
            return None

    def _give_up(self) -> None:
        logger.exception("the recogniser failed at an answer")
        self._reading = None
        self.unreadable = True


class MeteredAnswer(ReadAnswer):
    """The answer to a metered request.

    Args:
        read: the request.
        payer: who pays for it.
        meter: the meter that is open for it.
        answer: the provider's.
    """

    goes_on: Charge | None = None
    """Set where the work goes on after its answer: its lease is left to whoever sees it finished."""

    def __init__(self, read: ReadRequest, payer: Payer, meter: MeterCore, answer: Any) -> None:
        super().__init__(read.reader, answer, may_hide=read.reader.hides_events)
        self._read = read
        self._payer = payer
        self._meter = meter

    def record(self, *, complete: bool) -> None:
        """Record on the meter what the answer used."""
        metered = self._read.metered
        charge = self.charge(complete=complete)
        if self.unreadable:
            self._meter.record(metered.estimate, "answer_unread")
        elif charge is None:
            return
        elif charge.later:
            self.goes_on = charge
        elif not complete and metered.may_reason_hidden and not self.reader.knows_usage:
            # What was delivered does not say how long the model reasoned unseen.
            self._meter.record(metered.estimate, "interrupted", "hold_charged")
        else:
            self._meter.record(charge.usage, *charge.flags)

    async def leave_open(self, manager: ManagerCore, ttl_seconds: float) -> None:
        """Leave work that goes on to the call that sees it finished."""
        assert self.goes_on is not None
        work = OpenWork(
            account=self._payer.account,
            lease_id=self._meter.lease_id,
            estimate=self._read.metered.estimate,
            counted_input_tokens=self._read.metered.counted_input_tokens,
            hold=f"{self._meter.held:f}",
            operation_type=self._payer.operation_type or self._read.recogniser.operation_type,
            member=self._payer.member or "",
        )
        if not await try_to_leave_open(manager, self.goes_on.later, work, ttl_seconds):
            logger.error(
                "gave up work that goes on, for the engine is away: %r, %s",
                self.goes_on.later,
                msgspec.json.encode(work).decode(),
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

    def __init__(self, reader: ResponseReader, work: OpenWork, answer: Any) -> None:
        super().__init__(reader, answer, may_hide=False)
        self._work = work

    async def conclude(self, manager: ManagerCore, *, complete: bool) -> None:
        """Charge the work, if it has finished."""
        if self.is_error:
            return
        charge = self.charge(complete=complete)
        if not self.unreadable:  # another call may charge it
            await finish_work(manager, self._work, charge)
