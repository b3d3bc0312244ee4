"""Background jobs: work that goes on after the answer that began it, as a response in OpenAI's background mode does.

The lease of a job stays open until an answer shows the job finished: any answer, in any process, that passes by.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct, structs
from starlette.types import Message, Send

from ducto_redis.errors import CreditError, LeaseClosedError, StoreError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.openai.responses import OpenAIResponses
from ducto_redis.payer import Payer
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

# An expired lease can be settled for a day.
_LATE_SECONDS = 24 * 3600
_LONGEST_SECONDS = 30 * 24 * 3600
_WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0)


class BackgroundJob(Struct, frozen=True, omit_defaults=True):
    """Work that goes on, and what is to be charged for it.

    Attributes:
        account: who pays.
        lease_id: what is held for it.
        estimate, counted_input_tokens: of the request that started it.
        hold: what is held, in credits as decimal text; charged where what it used turns out to have no price.
        recorded: what else is charged with it.
        flags: what is unusual about it, for the journal.
        leased: whether the lease was opened; otherwise the engine was away, and it is opened with the charge.
        operation_type, member: as they are journalled.
    """

    account: str
    lease_id: str
    estimate: UsageMetrics
    counted_input_tokens: int = 0
    hold: str = ""
    recorded: Sequence[UsageMetrics] = ()
    flags: Sequence[str] = ()
    leased: bool = True
    operation_type: str = "default"
    member: str = ""

    @classmethod
    def of(
        cls,
        payer: Payer,
        lease_id: str,
        held: Decimal,
        *,
        operation_type: str,
        estimate: UsageMetrics,
        counted_input_tokens: int,
        recorded: Sequence[UsageMetrics] = (),
        flags: Sequence[str] = (),
        leased: bool = True,
    ) -> Self:
        """Return the job that a request has begun: `held` credits are held for it, and `payer` pays."""
        return cls(
            account=payer.account,
            lease_id=lease_id,
            estimate=estimate,
            counted_input_tokens=counted_input_tokens,
            hold=f"{held:f}" if held else "",
            recorded=recorded,
            flags=flags,
            leased=leased,
            operation_type=operation_type,
            member=payer.member or "",
        )

    def as_request(self, work_id: str) -> MeteredRequest:
        """Return what the reader of a later answer must know."""
        return MeteredRequest(self.estimate, self.counted_input_tokens, continues=work_id)


async def leave_open(manager: AsyncCreditManager, work_id: str, work: BackgroundJob, ttl_seconds: float) -> None:
    """Remember work that goes on, and let its lease hold for `ttl_seconds`.

    While the engine is away it is tried again in the background; work that is given up is logged whole, and its lease
    expires.
    """
    if not await try_to_leave_open(manager, work_id, work, ttl_seconds):
        manager.settle_task(_leave_open_later(manager, work_id, work, ttl_seconds))


async def find_work(manager: ManagerCore, work_id: str) -> BackgroundJob | None:
    """Return what is known of work; None where nothing waits for its outcome.

    Raises:
        RecoveryNeededError, StoreUnavailableError
    """
    kept = await manager.get_value(None, _name(work_id))
    return None if kept is None else _decoder.decode(kept)


async def finish_work(
    manager: ManagerCore, work: BackgroundJob, charge: Charge | None
) -> SettleResult | ReleaseResult | None:
    """Charge finished work, or release its hold where it cost nothing. Any number of processes may do it, at once too.

    Args:
        manager: where the account is charged.
        work: the work.
        charge: what it used, see `ResponseReader.charge`.

    Returns:
        What happened, again where it had happened before; None where the work goes on, where it was closed in another
        way, or where the engine is away and gets the charge later.
    """
    if charge is not None and charge.later:
        return None
    usages = (*([] if charge is None else [charge.usage]), *work.recorded)
    flags = (*([] if charge is None else charge.flags), *work.flags)
    pending = PendingCharge(
        work.account, work.lease_id, usages, "", work.hold, work.leased, work.operation_type, work.member, flags
    )
    try:
        try:
            return await manager.send_charge(pending)
        except LeaseClosedError as closed:
            if closed.how != "released" or not usages:
                raise
            # Somebody saw it cancelled, and yet it ran to its end.
            pending = structs.replace(pending, key=f"{work.lease_id}/again", lease=False)
            return await manager.send_charge(pending)
    except StoreError:
        manager.charge_later(pending)
    except CreditError as error:
        # Such as a charge of another usage, or one that is long forgotten: the first outcome stands.
        logger.info("lease %s of work that went on is not charged again: %s", work.lease_id, error)
    return None


async def finish_if_done(
    manager: ManagerCore, job: BackgroundJob, reader: ResponseReader, reading: BodyReading, *, complete: bool
) -> None:
    """Charge a job whose answer has come to its end, or was cut, if the answer shows the job finished.

    Where that fails, the answer still goes to its client, and another one may charge the job.
    """
    try:
        reading.finish()
        if not reading.failed:
            await finish_work(manager, job, reader.charge(complete=complete))
    except Exception:
        logger.exception("the charge of lease %s, of work that went on, failed", job.lease_id)


async def try_to_leave_open(manager: ManagerCore, work_id: str, work: BackgroundJob, ttl_seconds: float) -> bool:
    """`leave_open`, once. Returns False where the engine is away."""
    kept_seconds = min(ttl_seconds + _LATE_SECONDS, _LONGEST_SECONDS)
    try:
        await manager.put_value(None, _name(work_id), msgspec.json.encode(work), ttl=kept_seconds)
        if work.leased:
            await manager.renew(work.account, work.lease_id, ttl=ttl_seconds)
    except StoreError:
        return False
    except CreditError as error:
        logger.warning("lease %s of work that goes on is no longer held: %s", work.lease_id, error)
    return True


async def _leave_open_later(manager: AsyncCreditManager, work_id: str, work: BackgroundJob, ttl_seconds: float) -> None:
    for wait in _WAITS_SECONDS:
        await asyncio.sleep(wait)
        if await try_to_leave_open(manager, work_id, work, ttl_seconds):
            return
    logger.error(
        "gave up work that goes on, for the engine is away: %r, %s", work_id, msgspec.json.encode(work).decode()
    )


def _name(work_id: str) -> str:
    # Ids are of others' making: of any length, and any characters.
    return "ducto/work/" + blake2b(work_id.encode(errors="surrogatepass"), digest_size=20).hexdigest()


class AsJson(Protocol):
    """An object of a client library, such as `openai.types.responses.Response`."""

    def model_dump_json(self) -> str:
        """Return it as JSON."""
        ...


async def meter_background(
    manager: AsyncCreditManager,
    response: Mapping[str, Any] | bytes | str | AsJson,
    *,
    work_id: str | None = None,
    recogniser: Recogniser | None = None,
    estimates: Estimates | None = None,
) -> SettleResult | ReleaseResult | None:
    """Charge work in the background that has finished, where no request that passes the middleware shows it.

    Call it in the endpoint that takes your provider's webhooks. What was charged already is not charged again.

        event = client.webhooks.unwrap(body, headers)
        if event.type.startswith("response."):
            await meter_background(manager, await client.responses.retrieve(event.data.id))

    Args:
        manager: where accounts are charged. Who pays is whoever started the work.
        response: the finished response, as a client library gives it, or as JSON.
        work_id: its id, where that is not the field `id`.
        recogniser: knows the API; OpenAI's Responses by default.
        estimates: how tokens are counted where the response does not report them; as in the middleware.

    Returns:
        What was charged or released; None where nothing waits for this response, where it has not finished, or where
        the engine went away and gets the charge later.

    Raises:
        RecoveryNeededError, StoreUnavailableError: have the webhook sent again.
    """
    document = _as_json(response)
    if work_id is None:
        work_id = str(msgspec.json.decode(document, type=dict[str, Any]).get("id") or "")
    work = await find_work(manager, work_id)
    if work is None:
        return None
    recogniser = OpenAIResponses() if recogniser is None else recogniser
    reader = recogniser.read_response(work.as_request(work_id), Estimates() if estimates is None else estimates)
    reader.document(document)
    return await finish_work(manager, work, reader.charge(complete=True))


class Continuing:
    """Sees requests about earlier work, such as polls of a response in the background.

    Args:
        manager: where accounts are charged.
        recognisers: the APIs that are recognised.
        estimates: how tokens are counted where an answer does not report them.
    """

    def __init__(self, manager: AsyncCreditManager, recognisers: Sequence[Recogniser], estimates: Estimates) -> None:
        self._manager = manager
        self._estimates = estimates
        self._recognisers = [one for one in recognisers if type(one).continued is not Recogniser.continued]

    def asks(self, request: ApiRequest) -> tuple[Recogniser, str] | None:
        """Return the API, and the id of the work, that a request asks about; None for any other request."""
        for recogniser in self._recognisers:
            work_id = recogniser.continued(request.method, request.path)
            if work_id is not None:
                return recogniser, work_id
        return None

    async def answer(self, asked: tuple[Recogniser, str], send: Send) -> "ContinuedAnswer | None":
        """Return what reads the answer to such a request; None where nothing waits for it.

        Such a request is never refused: a later one charges the work.
        """
        recogniser, work_id = asked
        try:
            work = await find_work(self._manager, work_id)
        except CreditError as error:
            logger.warning("the engine can't say whether %r is to be charged: %s", work_id, error)
            return None
        if work is None:
            return None
        reader = recogniser.read_response(work.as_request(work_id), self._estimates)
        return ContinuedAnswer(send, self._manager, work, reader)


class ContinuedAnswer:
    """Passes on an answer about earlier work, untouched, and charges the work where the answer shows it finished.

    Of JSON, the charge is made before the last message goes out; of a stream, after it.
    """

    def __init__(self, send: Send, manager: AsyncCreditManager, work: BackgroundJob, reader: ResponseReader) -> None:
        self._send = send
        self._manager = manager
        self._work = work
        self._reader = reader
        self._reading: BodyReading | None = None
        self._ended = False
        self._finishing: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        if message["type"] == "http.response.start" and message["status"] < 300:
            content_type = content_encoding = b""
            for name, value in message.get("headers", ()):
                if name.lower() == b"content-type":
                    content_type = value.partition(b";")[0].strip().lower()
                elif name.lower() == b"content-encoding":
                    content_encoding = value
            self._reading = BodyReading(self._reader, content_type, content_encoding)
            self._reading.begin(message["status"], Headers(message.get("headers", ())))
        elif message["type"] == "http.response.body" and self._reading is not None:
            self._read(self._reading, bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                self._ended = True
                if self._reading is not None and not self._reading.is_stream:
                    await self.finish()
        await self._send(message)

    async def finish(self) -> None:
        """Charge the work, if it has finished: its answer is over, or was interrupted."""
        if self._finishing is None:
            self._finishing = self._manager.settle_task(self._finish())
        await asyncio.shield(self._finishing)

    def _read(self, reading: BodyReading, body: bytes) -> None:
        try:
            reading.feed(body)
        except Exception:
            logger.exception("the recogniser failed at an answer about lease %s, which stays open", self._work.lease_id)
            self._reading = None

    async def _finish(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await finish_if_done(self._manager, self._work, self._reader, reading, complete=self._ended)


class WorkToRemember:
    """Has work remembered as soon as the answer names it, before its client can ask for it elsewhere.

    Args:
        send: the server's.
        reader: reads the answer, before it comes here.
        counted_input_tokens: of the request.
        remember: takes a charge whose `later` is the work's id.
    """

    def __init__(
        self,
        send: Send,
        reader: ResponseReader,
        counted_input_tokens: int,
        remember: Callable[[Charge], Awaitable[None]],
    ) -> None:
        self._send = send
        self._reader: ResponseReader | None = reader
        self._counted_input_tokens = counted_input_tokens
        self._remember = remember

    async def send(self, message: Message) -> None:
        """Send the server a message."""
        if self._reader is not None and message["type"] == "http.response.body":
            try:
                work_id = self._reader.work_id
            except Exception:
                # The answer goes to its client; at its end the middleware sees what becomes of the work.
                logger.exception("the recogniser can't say which work an answer begins")
                work_id = self._reader = None
            if work_id is not None:
                self._reader = None
                await self._remember(Charge(UsageMetrics(input_tokens=self._counted_input_tokens), later=work_id))
        await self._send(message)


def _as_json(response: Mapping[str, Any] | bytes | str | AsJson) -> bytes:
    if isinstance(response, bytes):
        return response
    if isinstance(response, str):
        return response.encode()
    if isinstance(response, Mapping):
        return msgspec.json.encode(response)
    return response.model_dump_json().encode()


_decoder = msgspec.json.Decoder(BackgroundJob)
