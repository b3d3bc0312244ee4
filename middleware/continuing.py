"""Requests about work that goes on, as a response in the background does: whoever sees it finished charges it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.types import Message, Send

from ducto_redis.errors import CreditError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.background import OpenWork, find_work, finish_work
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers.base import Charge, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.openai.responses import OpenAIResponses
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")


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

    def __init__(self, send: Send, manager: AsyncCreditManager, work: OpenWork, reader: ResponseReader) -> None:
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
        """The answer is over, or was interrupted: charge the work, if it has finished."""
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
        if reading is None:
            return
        try:
            reading.finish()
            if reading.failed:
                return
            charge = self._reader.charge(complete=self._ended)
            await finish_work(self._manager, self._work, charge)
        except Exception:
            # Whatever it is, the answer goes to its client, and another one may charge the work.
            logger.exception("the charge of lease %s, of work that went on, failed", self._work.lease_id)


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
