"""One answer on its way to the client: held or passed on, read as it goes by, and charged at its end."""

import asyncio
import logging
from typing import Protocol, TypeAlias

import msgspec
from starlette.types import Message

from ducto_redis.display import format_credits
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import Headers
from ducto_redis.middleware.client import Client
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.holds.request_hold import RequestHold
from ducto_redis.middleware.idempotency import KeyedRequest
from ducto_redis.middleware.outcome import conclude
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

_Settling: TypeAlias = asyncio.Task[SettleResult | ReleaseResult | None]

CHARGED = b"x-credits-charged"
REMAINING = b"x-credits-remaining"
RESERVED = b"x-credits-reserved"
MAX_TOKENS = b"x-credits-max-tokens"
_OURS = frozenset({CHARGED, REMAINING, RESERVED, MAX_TOKENS})


class StreamHold(Protocol):
    """A hold that grows while a stream runs."""

    covered_tokens: int
    """Output tokens up to which it need not be asked."""

    async def cover(self, tokens: int) -> bool:
        """See to it that more than so many are held. Returns False where it can't: the stream is to end. Never raises.

        `tokens` is the reader's `tokens_to_cover`.
        """
        ...


class Responder:
    """Passes one request's answer on, and closes the request's meter at its end.

    The end of an answer is its last body message. An application that returns without one, raises or is cancelled,
    has been interrupted: what it delivered is charged.

    Args:
        client: the server's side.
        meter: the request's meter, open or not.
        request_hold: the hold of the request, with what reads the answer; None where only the endpoint records usage.
        keyed: the request, where it carries an Idempotency-Key that is looked at.
        manager: owns the tasks that settle.
        hold_json_up_to: bytes of a JSON answer that are held back, so that its headers can say what it cost.
        counts: counts what becomes of answers.
    """

    def __init__(
        self,
        client: Client,
        meter: RequestMeter,
        request_hold: RequestHold | None,
        keyed: KeyedRequest | None,
        manager: AsyncCreditManager,
        hold_json_up_to: int,
        counts: MeteringCounts,
    ) -> None:
        self.passed = False
        """Whether any of the answer went to the server."""
        self.stopped = False
        """Whether the answer was ended because its hold could not grow."""
        self._client = client
        self._meter = meter
        self._request_hold = request_hold
        self._keyed = keyed
        self._manager = manager
        self._hold_json_up_to = hold_json_up_to
        self._counts = counts
        self._status: int | None = None
        self._reading: BodyReading | None = None
        self._hold: StreamHold | None = None
        self._tokens = 0
        self._bytes_since = 0
        self._held: list[Message] = []
        self._held_bytes = 0
        self._ended = False
        self._drained = False
        self._settling: _Settling | None = None
        self._waiters: list[asyncio.Future[SettleResult | ReleaseResult | None]] = []

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        kind = message["type"]
        if kind == "http.response.body" and self._status is not None:
            if self._held or not self.passed or not message.get("more_body", False):
                await self._body(message)
            # Most messages of a stream: the shortest way.
            elif self._hold is not None:
                await self._pass_covered(message, self._hold)
            elif self._reading is not None:
                body = bytes(message.get("body", b""))
                passing = self._reading.feed(body)
                if passing is body:
                    await self._client.send(message)
                elif passing:
                    await self._client.send({**message, "body": passing})
            else:
                await self._client.send(message)
        elif kind == "http.response.start" and self._status is None:
            await self._start(message)
        elif self._status is None:
            await self._client.send(message)  # such as early hints: no part of the answer yet
        else:
            await self._let_go()
            if kind == "http.response.pathsend":  # the server sends a file: nothing more comes
                self._ended = True
                self._client.end()
            await self._pass(message)

    async def finish(self, *, interrupted_by: BaseException | None = None) -> None:
        """Make sure that the meter is closed, when the application has returned, or raised.

        An application that fails before anything was passed gives its client an error, which costs nothing. But an
        answer that was held back when its client left is charged as far as it came.
        """
        self._meter.ended = True
        if not self._ended and isinstance(interrupted_by, Exception) and not self.passed and not self._client.told:
            self._reading = None
        settling = self._settling or self._settle(complete=self._ended)
        try:
            if interrupted_by is None and self._held:
                await self._let_go()
        finally:
            if settling is not None and not settling.done():
                await self._settled(settling)

    async def _start(self, message: Message) -> None:
        self._status = status = message["status"]
        if status >= 300 or not self._meter.opened:
            self._request_hold = self._keyed = None
            await self._pass(message)
            return
        content_type = content_encoding = b""
        headers = message.get("headers", ())
        for name, value in headers:
            name = name.lower()  # Django does not write them in lower case
            if name == b"content-type":
                content_type = value.partition(b";")[0].strip().lower()
            elif name == b"content-encoding":
                content_encoding = value
        hold = self._request_hold
        if hold is not None:
            self._hold = hold.growing
            self._reading = BodyReading(
                hold.reader,
                content_type,
                content_encoding,
                whole_events=hold.reader.hides_events or self._hold is not None,
            )
            self._reading.begin(status, Headers(headers))
        if content_type == b"application/json" or _is_json(content_type):
            self._held.append(message)
        else:
            await self._pass(self._with_reserved(message))

    async def _body(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        is_last = not message.get("more_body", False)
        if self._hold is not None and body and not self._held:
            # The last piece, which may be a whole stream: it is covered like those before it.
            await self._pass_covered({**message, "more_body": True}, self._hold)
            if self.stopped:
                return
            body, message = b"", {**message, "body": b""}
        if self._reading is not None:
            passing = self._reading.feed(body)
            if is_last and self._reading.passes_whole_events and (rest := self._reading.finish()):
                passing += rest
            if passing is not body:
                message = {**message, "body": passing}
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

    async def _pass_covered(self, message: Message, hold: StreamHold) -> None:
        """Pass a piece of a stream on as far as the hold covers it, and end the stream where it does not."""
        assert self._reading is not None
        body = bytes(message.get("body", b""))
        self._bytes_since += len(body)
        if self._tokens + self._bytes_since <= hold.covered_tokens:  # no token has less than a byte
            passing = self._reading.feed(body)
        else:
            passing = b""
            for events in self._reading.feed_each(body):
                passing += events
                if not await self._is_covered(hold):
                    await self._stop(passing)
                    return
        if passing:
            await self._client.send({**message, "body": passing})

    async def _is_covered(self, hold: StreamHold) -> bool:
        assert self._request_hold is not None
        assert self._reading is not None
        if self._reading.failed:
            return True
        try:
            self._tokens = self._request_hold.reader.tokens_to_cover
        except Exception:
            self._reading.fail()
            return True
        self._bytes_since = 0
        return self._tokens <= hold.covered_tokens or await hold.cover(self._tokens)

    async def _stop(self, passing: bytes) -> None:
        """End the stream here, for the client as the API does, and for the application as if its client had left."""
        assert self._reading is not None
        ending = self._ending() if self._reading.passes_whole_events else None
        self.stopped = True
        self._counts.stopped += 1
        self._reading = self._hold = None  # what comes now does not go out, and is not charged
        try:
            await self._end_of_passed({"type": "http.response.body", "body": passing + (ending or b"")})
        finally:
            self._client.stop()

    def _ending(self) -> bytes | None:
        assert self._request_hold is not None
        try:
            return self._request_hold.reader.ending()
        except Exception:
            logger.exception("the recogniser can't end a stream, which is cut")
            return None

    async def _end_of_held(self) -> None:
        self._ended = True
        if self._held_bytes > self._hold_json_up_to:
            last = self._held.pop()
            await self._let_go()
            await self._end_of_passed(last)
            return
        self._drained = self._client.left
        settling = self._settle(complete=True)
        result = None if settling is None else await self._settled(settling)
        start, *rest = self._held
        self._held.clear()
        if self._meter.left_open:
            start = self._with_reserved(start)
        if self._reading is not None and self._reading.passes_whole_events and self._reading.is_stream:
            start = self._without_length(start)
        self.passed = True
        send = self._client.send
        if result is not None:
            charged = format_credits(result.amount) if isinstance(result, SettleResult) else "0"
            start = self._with_headers(start, (CHARGED, charged), (REMAINING, format_credits(result.available)))
        await send(start)
        for message in rest:
            await send(message)
        self._client.end()

    async def _end_of_passed(self, message: Message) -> None:
        self._ended = True
        if self._status is not None and self._status >= 300:
            # Whoever sees the error and tries again must find the hold released.
            if (settling := self._settle(complete=True)) is not None:
                await self._settled(settling)
            await self._pass(message)
            self._client.end()
            return
        left = self._client.left
        try:
            await self._pass(message)
        finally:
            self._drained = left
            self._settle(complete=not self.stopped)
            self._client.end()

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
        await self._client.send(message)

    def _without_length(self, start: Message) -> Message:
        if self._reading is None or not self._reading.passes_whole_events:
            return start
        # What is kept from the client, or added at a stream's end, is not in the application's count.
        headers = start.get("headers", ())
        return {**start, "headers": [each for each in headers if each[0].lower() != b"content-length"]}

    def _with_reserved(self, start: Message) -> Message:
        start = self._without_length(start)
        lease = self._meter.lease
        if lease is None:
            return start
        return self._with_headers(start, (RESERVED, format_credits(lease.amount)))

    def _with_headers(self, start: Message, *ours: tuple[bytes, str]) -> Message:
        headers = []
        for header in start.get("headers", ()):
            # What an application passes on from behind another metering is replaced: ours is what its client pays.
            if header[0].lower() not in _OURS:
                headers.append(header)
        for name, value in ours:
            headers.append((name, value.encode()))
        hold = self._request_hold
        if hold is not None and hold.output_limit is not None:
            headers.append((MAX_TOKENS, b"%d" % hold.output_limit))
        return {**start, "headers": headers}

    def _settle(self, *, complete: bool) -> _Settling | None:
        """Start, once, to close the meter; in a task of the manager, which no cancellation of the request stops."""
        if self._settling is None and self._meter.opened:
            self._settling = self._manager.settle_task(self._close(complete))
        return self._settling

    async def _settled(self, settling: _Settling) -> SettleResult | ReleaseResult | None:
        """Wait for the charge. A cancellation of the request ends the wait, not the charge: a cheaper `shield`."""
        if settling.done():
            return settling.result()
        waiter: asyncio.Future[SettleResult | ReleaseResult | None] = settling.get_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    async def _close(self, complete: bool) -> SettleResult | ReleaseResult | None:
        result: SettleResult | ReleaseResult | None = None
        try:
            self._record(complete)
            closing = self._meter.close_in_task()
            if self._keyed is not None and (self._meter.recorded or self._meter.left_open):
                closing = self._keyed.keep_and_charge(closing, self._held)
            result = await closing
        except Exception:
            # The answer has been given, and goes to its client. The lease stays, and expires as the settings say.
            logger.exception(
                "the charge for an answer failed; its lease %s is left to expire, what it used: %s",
                self._meter.lease,
                msgspec.json.encode(self._meter.recorded).decode(),
            )
        finally:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(result)
        return result

    def _record(self, complete: bool) -> None:
        hold, held = self._request_hold, self._meter.estimate
        if hold is None or not isinstance(held, UsageMetrics) or (self._reading is None and not self.stopped):
            return
        charge, reported = conclude(hold.request, hold.reader, self._reading, held, complete=complete)
        if charge is None:
            return
        if charge.later:
            self._meter.leave_open(charge)
            return
        flags = charge.flags
        if reported and self.stopped:
            flags = (*flags, "stopped")
        if reported and self._drained:
            self._counts.drained += 1
            flags = (*flags, "drained")
        self._meter.record(charge.usage, *flags)


def _is_json(content_type: bytes) -> bool:
    return content_type.startswith(b"application/") and content_type.endswith((b"/json", b"+json"))
