"""Sessions over WebSockets: a hold is kept for what comes next, usage is charged as it is reported."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import structs
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.error_responses import BadRequestError, Refusal, refusal_for
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.middleware.recognisers.sockets import SocketRecogniser
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.routing import METERED, MeteredPrefixes, unknown_route
from ducto_redis.payer import Payer

NewMeter: TypeAlias = Callable[[Scope, Payer | None], RequestMeter]
"""Returns a meter that is not open yet, for a connection and its payer; None where the payer is not known yet."""

logger = logging.getLogger("ducto_redis.middleware")

_CLOSE_CODES = 4000
"""Connections are closed with this and the HTTP status of a refusal: 4402 where credits are missing."""


class SocketMetering:
    """Meters the WebSockets of one application.

    Args:
        app: the application.
        recognisers: the APIs that are recognised by their paths.
        new_meter: makes the meter of each hold.
        prefixes: paths under which no connection is to be free only because nobody knows it.
        refuses_unknown: whether such a connection is refused.
        estimates: how tokens are counted where nothing reports them.

    Raises:
        ConfigError: where one of them is no recogniser.
    """

    def __init__(
        self,
        app: ASGIApp,
        recognisers: Sequence[SocketRecogniser],
        new_meter: NewMeter,
        prefixes: MeteredPrefixes,
        *,
        refuses_unknown: bool,
        estimates: Estimates,
    ) -> None:
        for recogniser in recognisers:
            if not isinstance(recogniser, SocketRecogniser):
                raise ConfigError(f"sockets takes objects such as OpenAIRealtime(), not {recogniser!r}")
        self._app = app
        self._recognisers = tuple(recognisers)
        self._new_meter = new_meter
        self._prefixes = prefixes
        self._refuses_unknown = refuses_unknown
        self._estimates = estimates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = api_request(scope)
        for recogniser in self._recognisers:
            if recogniser.matches(request.path):
                session = SocketSession(recogniser, self._new_meter, request, receive, send)
                await session.run(self._app, self._estimates)
                return
        named = structs.replace(request, method="WEBSOCKET")
        if named in self._prefixes:
            self._prefixes.count(named, "refused" if self._refuses_unknown else "let pass without a charge")
            if self._refuses_unknown:
                refusal = unknown_route(named)
                await _refuse(refusal, refusal.as_openai(), scope, receive, send)
                return
        await self._app(scope, receive, send)


class SocketSession:
    """One connection, from its handshake to its end.

    Before the application sees it, the first hold is made; where that is refused, so is the handshake. Each charge
    closes the hold and opens the next one. Where that can't be opened, the client gets an error event, the connection
    is closed, and the application is told that it is.

    Args:
        recogniser: knows the API.
        new_meter: makes the meter of each hold.
        request: the handshake.
        receive, send: the connection.
    """

    def __init__(
        self,
        recogniser: SocketRecogniser,
        new_meter: NewMeter,
        request: ApiRequest,
        receive: Receive,
        send: Send,
    ) -> None:
        self._recogniser = recogniser
        self._new_meter = new_meter
        self._payer: Payer | None = None
        self._request = request
        self._scope = request.scope
        self._receive = receive
        self._send = send
        self._meter: RequestMeter | None = None
        self._closed_with: Message | None = None
        self._charging = asyncio.Lock()

    async def run(self, app: ASGIApp, estimates: Estimates) -> None:
        """Run the application for the session, if its payer can pay for the beginning."""
        try:
            self._reader = self._recogniser.read_session(self._request, estimates)
            self._meter = await self._next_hold()
        except (BadRequestError, CreditError, HTTPException) as error:
            refusal = _refusal_for(error)
            body = self._recogniser.error_body(refusal)
            await _refuse(refusal, body, self._scope, self._receive, self._send)
            return
        self._scope[METERED] = True
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            await self._end()

    async def receive(self) -> Message:
        """Give the application the next message of the client's."""
        if self._closed_with is not None:
            return self._closed_with
        message = await self._receive()
        if message["type"] == "websocket.receive":
            try:
                self._reader.received(_data(message))
            except Exception:
                logger.exception("the recogniser failed at a message of a client's")
        return message

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        self._check_open()
        charge = self._read(message) if message["type"] == "websocket.send" else None
        if charge is None:
            await self._send(message)
            return
        async with self._charging:  # several tasks of an application may send
            self._check_open()
            self._record(charge)
            if not self._reader.between_work:
                await self._send(message)
                return
            await self._close_meter()
            await self._send(message)
            await self._hold_on()

    def _check_open(self) -> None:
        if self._closed_with is not None:
            raise OSError(f"the session was closed with {self._closed_with['code']}")

    def _read(self, message: Message) -> Charge | None:
        try:
            return self._reader.sent(_data(message))
        except Exception:
            logger.exception("the recogniser failed at a message, whose usage is not charged")
            return None

    def _record(self, charge: Charge) -> None:
        assert self._meter is not None
        self._meter.record(charge.usage, *charge.flags)

    async def _next_hold(self) -> RequestMeter:
        meter = self._new_meter(self._scope, self._payer)
        self._payer = await meter.find_payer()
        operation_type = self._payer.operation_type or self._recogniser.operation_type
        await meter.reserve(self._reader.next_estimate(), operation_type=operation_type)
        return meter

    async def _close_meter(self) -> None:
        meter, self._meter = self._meter, None
        if meter is None:
            return
        try:
            meter.ended = True
            await meter.close()
        except Exception:
            used = msgspec.json.encode(meter.recorded).decode()
            logger.exception("a charge failed; its lease %s is left to expire, what it used: %s", meter.lease, used)

    async def _hold_on(self) -> None:
        """Open the hold for what comes next; end the session where it is refused."""
        try:
            self._meter = await self._next_hold()
        except (CreditError, HTTPException) as error:
            await self._stop(_refusal_for(error))

    async def _stop(self, refusal: Refusal) -> None:
        code = _CLOSE_CODES + refusal.status
        self._closed_with = {"type": "websocket.disconnect", "code": code, "reason": refusal.code}
        event = self._recogniser.error_event(refusal)
        if event is not None:
            await self._send({"type": "websocket.send", "text": event})
        await self._send({"type": "websocket.close", "code": code, "reason": refusal.code})

    async def _end(self) -> None:
        """End the session, however it ended: charge the usage not charged yet, give back the rest."""
        if self._meter is None:
            return
        try:
            charge = self._reader.unfinished()
            if charge is not None:
                self._record(charge)
        except Exception:
            logger.exception("the recogniser failed at the end of a session, whose last work is not charged")
        await self._close_meter()


def _refusal_for(error: BadRequestError | CreditError | HTTPException) -> Refusal:
    refusal = refusal_for(error)
    if refusal.status >= 500:
        logger.warning("a session is refused with %d: %s", refusal.status, error)
    return refusal


async def _refuse(refusal: Refusal, body: Mapping[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # the handshake
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _CLOSE_CODES + refusal.status, "reason": refusal.code})
        return

    async def send_answer(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await refusal.send(send_answer, body)


def _data(message: Message) -> str | bytes:
    text = message.get("text")
    if text is not None:
        return str(text)
    return bytes(message.get("bytes") or b"")
