"""The middleware itself: which requests are metered, for whom, and what they are held."""

import logging
from collections.abc import Mapping, Sequence
from typing import Unpack

from msgspec import structs
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.background import Continuing, WorkToRemember
from ducto_redis.middleware.body import read_body, scope_for
from ducto_redis.middleware.client import Client
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.error_responses import BadRequestError, Refusal, refusal_for
from ducto_redis.middleware.grace import Grace
from ducto_redis.middleware.holds.request_hold import HoldPolicy, RequestHold
from ducto_redis.middleware.idempotency import Idempotency, KeyedRequest
from ducto_redis.middleware.payer import Account
from ducto_redis.middleware.recognisers import (
    DEFAULT_RECOGNISERS,
    DEFAULT_SOCKETS,
    Recogniser,
    SocketRecogniser,
)
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.responder import Responder
from ducto_redis.middleware.routing import METERED, MeteredPrefixes, Routes, unknown_route
from ducto_redis.middleware.settings import (
    Disconnects,
    FlatSettings,
    Holds,
    IdempotencyKeys,
    MeteredRoutes,
    Upstream,
    check_flat,
    with_flat,
)
from ducto_redis.middleware.websockets import SocketMetering
from ducto_redis.money import to_micro
from ducto_redis.payer import Payer

logger = logging.getLogger("ducto_redis.middleware")


class MeteringMiddleware:
    """Charges credits for the requests to model APIs that pass through it.

    It holds the worst case before the application runs, and charges what the answer reports. Authentication, CORS and
    compression belong around it.

        app.add_middleware(MeteringMiddleware, manager=manager, account=payer)

    Args:
        app: the application.
        manager: where accounts are charged.
        account: called with the scope of every metered request, async or not; says who pays.
        routes: paths of the application's own, such as "/chat" or "/bots/{bot}/chat", and the API that each speaks.
        recognisers: APIs that are recognised by their paths; by default all that are known here.
        sockets: the same for WebSockets.
        holds: what is held for a request, and what becomes of one that its account can't pay.
        disconnects: what becomes of an answer whose client left.
        idempotency: what becomes of requests that repeat an Idempotency-Key.
        metered: which requests are metered, and up to which size.
        upstream: how many tokens the models behind the application may give.
        counts: where requests are counted that a metric should show.
        flat: settings of these groups one by one, as they were given before there were groups.

    Raises:
        ConfigError: where a setting is wrong.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        manager: AsyncCreditManager,
        account: Account,
        routes: Mapping[str, Recogniser] | None = None,
        recognisers: Sequence[Recogniser] | None = None,
        sockets: Sequence[SocketRecogniser] | None = None,
        holds: Holds | None = None,
        disconnects: Disconnects | None = None,
        idempotency: IdempotencyKeys | str | None = None,
        metered: MeteredRoutes | None = None,
        upstream: Upstream | None = None,
        counts: MeteringCounts | None = None,
        **flat: Unpack[FlatSettings],
    ) -> None:
        if not isinstance(manager, AsyncCreditManager):
            raise ConfigError(f"the middleware needs an AsyncCreditManager, not {type(manager).__name__}")
        if not callable(account):
            raise ConfigError("account must be a function that takes the scope and says who pays")
        if not isinstance(counts, MeteringCounts | None):
            raise ConfigError(f"counts must be a MeteringCounts, not {counts!r}")
        single: dict[str, object] = {**flat}
        if isinstance(idempotency, str):
            single["idempotency"], idempotency = idempotency, None
        check_flat(single)
        holds = with_flat(Holds, holds, single)
        disconnects = with_flat(Disconnects, disconnects, single)
        keys = with_flat(IdempotencyKeys, idempotency, single)
        metered = with_flat(MeteredRoutes, metered, single)
        estimates = with_flat(Upstream, upstream, single).estimates()
        self.app = app
        self._manager = manager
        self._account = account
        self._body_limit = metered.body_limit
        self._hold_json_up_to = metered.hold_json_up_to
        self._refuses_unknown = metered.unknown_routes == "refuse"
        self._ttl_seconds = holds.ttl_seconds
        self._background_ttl_seconds = holds.background_ttl_seconds
        self._drain_seconds = disconnects.drain_seconds
        self._drains = disconnects.on_disconnect == "drain"
        self._drains_hidden = disconnects.hidden_reasoning == "drain"
        self._routes = Routes(routes or {}, DEFAULT_RECOGNISERS if recognisers is None else recognisers)
        self._counts = MeteringCounts() if counts is None else counts
        self._prefixes = MeteredPrefixes(metered.prefixes, self._counts)
        self._estimates = estimates
        self._holds = HoldPolicy(manager, holds, estimates, counts)
        self._continuing = Continuing(manager, self._routes.recognisers, estimates)
        wait_seconds = keys.wait_seconds if keys.on_repeat == "wait" else 0
        self._idempotency = (
            None
            if keys.on_repeat == "off"
            else Idempotency(manager, wait_seconds=wait_seconds, stored_answers=keys.stored_answers)
        )
        self._grace = None if holds.grace is None else Grace(to_micro(holds.grace), manager.outbox)
        self._sockets = SocketMetering(
            app,
            DEFAULT_SOCKETS if sockets is None else sockets,
            self._new_meter,
            self._prefixes,
            refuses_unknown=self._refuses_unknown,
            estimates=estimates,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or METERED in scope:
            is_socket = scope["type"] == "websocket" and METERED not in scope
            await (self._sockets if is_socket else self.app)(scope, receive, send)
            return
        meter = RequestMeter(
            self._manager, self._account, scope, self._grace, self._ttl_seconds, self._background_ttl_seconds
        )
        scope.setdefault("state", {})["meter"] = meter
        asked = api_request(scope)
        recogniser = self._routes.find(asked)
        if recogniser is None or recogniser.free:
            await self._pass(recogniser, meter, asked, receive, send)
            return
        try:
            payer = await meter.find_payer()
            body = await read_body(scope, receive, self._body_limit)
            if body is None:
                return
            asked = structs.replace(asked, body=body)
            request = recogniser.read_request(asked, self._estimates)
            keyed = None if self._idempotency is None else self._idempotency.keyed(asked, payer)
            hold = RequestHold(self._holds, meter, recogniser, request, asked)
            if keyed is None:
                await hold.open()
            elif not await keyed.admit(meter, hold.open, receive, send):
                return
        except (BadRequestError, CreditError, HTTPException) as error:
            await _refuse(recogniser, error, send)
            return
        scope[METERED] = True
        reader, given_body = hold.reader, hold.application_body
        if reader.names_work:
            send = WorkToRemember(send, reader, request.counted_input_tokens, meter.remember).send
        drains = self._drains or (self._drains_hidden and request.may_reason_hidden)
        make_client = Client if keyed is None else keyed.client
        client = make_client(receive, send, given_body, self._drain_seconds if drains else 0)
        changes_answer = reader.hides_events or hold.growing is not None
        if given_body is body and not changes_answer:
            await self._run(recogniser, hold, keyed, meter, scope, client)
            return
        given_scope = scope_for(scope, len(given_body), uncompressed=changes_answer)
        try:
            await self._run(recogniser, hold, keyed, meter, given_scope, client)
        finally:
            # What applications leave in it for those around them, such as the route.
            scope.update({name: value for name, value in given_scope.items() if name not in scope})

    def _new_meter(self, scope: Scope, payer: Payer | None) -> RequestMeter:
        return RequestMeter(
            self._manager, self._account, scope, self._grace, self._ttl_seconds, self._background_ttl_seconds, payer
        )

    async def _pass(
        self, recogniser: Recogniser | None, meter: RequestMeter, request: ApiRequest, receive: Receive, send: Send
    ) -> None:
        """Let a request pass that is not metered, unless its endpoint opens the meter itself."""
        asked = None if recogniser is not None else self._continuing.asks(request)
        is_unknown = recogniser is None and asked is None and request in self._prefixes
        if is_unknown and self._refuses_unknown:
            self._prefixes.count(request, "refused")
            await _send_refusal(self._routes.nearest(request), unknown_route(request), send)
            return
        earlier = None if asked is None else await self._continuing.answer(asked, send)
        try:
            client = Client(receive, send if earlier is None else earlier.send)
            await self._run(recogniser, None, None, meter, request.scope, client)
        finally:
            if earlier is not None:
                await earlier.finish()
        if is_unknown and not meter.opened:
            self._prefixes.count(request, "let pass without a charge")

    async def _run(
        self,
        recogniser: Recogniser | None,
        hold: RequestHold | None,
        keyed: KeyedRequest | None,
        meter: RequestMeter,
        scope: Scope,
        client: Client,
    ) -> None:
        responder = Responder(client, meter, hold, keyed, self._manager, self._hold_json_up_to, self._counts)
        try:
            await self.app(scope, client.receive, responder.send)
        except BaseException as error:
            await responder.finish(interrupted_by=error)
            if responder.stopped and isinstance(error, Exception):
                # What an application makes of a client that has left; this one got its answer's end.
                logger.info("an application whose stream was ended raised %r", error)
            elif isinstance(error, CreditError) and not responder.passed:
                await _refuse(recogniser, error, client.send)
            else:
                raise
        else:
            await responder.finish()


async def _refuse(
    recogniser: Recogniser | None, error: CreditError | BadRequestError | HTTPException, send: Send
) -> None:
    refusal = refusal_for(error)
    if not isinstance(error, HTTPException) and refusal.status >= 500:
        level, traceback = (logging.WARNING, None) if refusal.status == 503 else (logging.ERROR, error)
        logger.log(level, "a request is refused with %d: %s", refusal.status, error, exc_info=traceback)
    await _send_refusal(recogniser, refusal, send)


async def _send_refusal(recogniser: Recogniser | None, refusal: Refusal, send: Send) -> None:
    if recogniser is None:
        await refusal.send(send, refusal.as_openai())
    else:
        await recogniser.refused(refusal).send(send, recogniser.error_body(refusal))
