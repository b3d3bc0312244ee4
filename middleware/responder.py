"""One answer on its way to the client: held or passed on, read as it goes by, and charged at its end."""

import asyncio
import logging
from typing import TypeAlias

import msgspec
from starlette.types import Message, Send

from ducto_redis.display import format_credits
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers.base import AnswerReader
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

_Settling: TypeAlias = asyncio.Task[SettleResult | ReleaseResult | None]

CHARGED = b"x-credits-charged"
REMAINING = b"x-credits-remaining"
RESERVED = b"x-credits-reserved"
_OURS = frozenset({CHARGED, REMAINING, RESERVED})


class Responder:
    """Passes one request's answer on, and closes the request's meter at its end.

    The end of an answer is its last body message. An application that returns without one, raises or is cancelled,
    has been interrupted: what it delivered is charged.

    Args:
        send: the server's `send`.
        meter: the request's meter, open or not.
        reader: what reads the usage in the answer; None where only the endpoint records usage.
        manager: owns the tasks that settle.
        hold_json_up_to: bytes of a JSON answer that are held back, so that its headers can say what it cost.
    """

    def __init__(
        self,
        send: Send,
        meter: RequestMeter,
        reader: AnswerReader | None,
        manager: AsyncCreditManager,
        hold_json_up_to: int,
    ) -> None:
        self.passed = False
        """Whether any of the answer went to the server."""
        self._send = send
        self._meter = meter
        self._reader = reader
        self._manager = manager
        self._hold_json_up_to = hold_json_up_to
        self._status: int | None = None
        self._reading: BodyReading | None = None
        self._held: list[Message] = []
        self._held_bytes = 0
        self._ended = False
        self._unreadable = False
        self._settling: _Settling | None = None

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        kind = message["type"]
        if self.passed and kind == "http.response.body" and message.get("more_body", False) and not self._held:
            # Most messages of a stream: the shortest way.
            if self._reading is not None:
                self._read(bytes(message.get("body", b"")))
            await self._send(message)
        elif kind == "http.response.start" and self._status is None:
            await self._start(message)
        elif self._status is None:
            await self._send(message)  # such as early hints: no part of the answer yet
        elif kind == "http.response.body":
            await self._body(message)
        else:
            await self._let_go()
            if kind == "http.response.pathsend":  # the server sends a file: nothing more comes
                self._ended = True
            await self._pass(message)

    async def finish(self, *, interrupted_by: BaseException | None = None, client_left: bool = False) -> None:
        """The application has returned, or raised: make sure that the meter is closed.

        An application that fails before anything was passed gives its client an error, which costs nothing. But an
        answer that was held back when its client left is charged as far as it came.
        """
        self._meter.end()
        if not self._ended and isinstance(interrupted_by, Exception) and not self.passed and not client_left:
            self._reading = None
        settling = self._settle(complete=self._ended)
        try:
            if interrupted_by is None:
                await self._let_go()
        finally:
            if settling is not None and not settling.done():
                await asyncio.shield(settling)

    async def _start(self, message: Message) -> None:
        self._status = message["status"]
        if not self._meter.opened or self._status >= 300:
            self._reader = None
            await self._pass(message)
            return
        content_type = content_encoding = b""
        for name, value in message.get("headers", ()):
            if name == b"content-type":
                content_type = value.partition(b";")[0].strip().lower()
            elif name == b"content-encoding":
                content_encoding = value
        if self._reader is not None:
            self._reading = BodyReading(self._reader, content_type, content_encoding)
        if content_type == b"application/json" or _is_json(content_type):
            self._held.append(message)
        else:
            await self._pass(self._with_reserved(message))

    async def _body(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        is_last = not message.get("more_body", False)
        self._read(body)
        if self._held:
            self._held.append(message)
            self._held_bytes += len(body)
            if is_last:
                await self._end_of_held()
            elif self._held_bytes > self._hold_json_up_to or (self._reading is not None and self._reading.is_stream):
                await self._let_go()
        elif is_last:
            await self._end_of_passed(message)
        else:
            await self._pass(message)

    def _read(self, body: bytes) -> None:
        if self._reading is None:
            return
        try:
            self._reading.feed(body)
        except Exception:
            # A recogniser that fails must not spoil the answer that it reads.
            logger.exception("the recogniser failed at an answer, which is charged its worst case")
            self._reading = None
            self._unreadable = True

    async def _end_of_held(self) -> None:
        self._ended = True
        if self._held_bytes > self._hold_json_up_to:
            last = self._held.pop()
            await self._let_go()
            await self._end_of_passed(last)
            return
        settling = self._settle(complete=True)
        result = None if settling is None else await asyncio.shield(settling)
        start, *rest = self._held
        self._held.clear()
        await self._pass(start if result is None else _with_charge(start, result))
        for message in rest:
            await self._pass(message)

    async def _end_of_passed(self, message: Message) -> None:
        self._ended = True
        if self._status is not None and self._status >= 300:
            # Whoever sees the error and tries again must find the hold released.
            if (settling := self._settle(complete=True)) is not None:
                await asyncio.shield(settling)
            await self._pass(message)
            return
        try:
            await self._pass(message)
        finally:
            self._settle(complete=True)

    async def _let_go(self) -> None:
        """Pass on what is held back."""
        if self._held:
            start, *rest = self._held
            self._held.clear()
            await self._pass(self._with_reserved(start))
            for message in rest:
                await self._pass(message)

    async def _pass(self, message: Message) -> None:
        self.passed = True
        await self._send(message)

    def _with_reserved(self, start: Message) -> Message:
        lease = self._meter.lease
        return start if lease is None else _with_headers(start, (RESERVED, format_credits(lease.amount)))

    def _settle(self, *, complete: bool) -> _Settling | None:
        """Start, once, to close the meter; in a task of the manager, which no cancellation of the request stops."""
        if self._settling is None and self._meter.opened:
            self._settling = self._manager.settle_task(self._close(complete))
        return self._settling

    async def _close(self, complete: bool) -> SettleResult | ReleaseResult | None:
        try:
            self._record(complete)
            return await self._meter.close_in_task()
        except Exception:
            # The answer has been given, and goes to its client. The lease stays, and expires as the settings say.
            logger.exception(
                "the charge for an answer failed; its lease %s is left to expire, what it used: %s",
                self._meter.lease,
                msgspec.json.encode(self._meter.recorded).decode(),
            )
            return None

    def _record(self, complete: bool) -> None:
        charge = None
        try:
            if self._reading is not None and self._reader is not None:
                self._reading.finish()
                charge = self._reader.charge(complete=complete)
        except Exception:
            logger.exception("the recogniser failed at the end of an answer, which is charged its worst case")
            self._unreadable = True
        if self._unreadable:
            self._meter.record_estimate("answer_unread")
        elif charge is not None:
            self._meter.record(charge.usage, *charge.flags)


def _is_json(content_type: bytes) -> bool:
    return content_type.startswith(b"application/") and content_type.endswith((b"/json", b"+json"))


def _with_charge(start: Message, result: SettleResult | ReleaseResult) -> Message:
    charged = format_credits(result.amount) if isinstance(result, SettleResult) else "0"
    return _with_headers(start, (CHARGED, charged), (REMAINING, format_credits(result.available)))


def _with_headers(start: Message, *ours: tuple[bytes, str]) -> Message:
    # What an application passes on from behind another metering is replaced: ours is what its client pays.
    headers = [header for header in start.get("headers", ()) if header[0] not in _OURS]
    headers.extend([(name, value.encode()) for name, value in ours])
    return {**start, "headers": headers}
