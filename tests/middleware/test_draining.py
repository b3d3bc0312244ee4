"""Answers whose client left: cut at once, or drained to learn what they cost; charged once either way."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Disconnects, MeteringCounts, MeteringMiddleware
from tests.middleware.asgi import CHAT, CHAT_REQUEST, DONE, call, chunk, completion, sending, streaming, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.middleware.serving import RawClient, serve

Metered = Callable[..., ASGIApp]

REQUEST = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}
BODY = json.dumps(REQUEST).encode()
PROMPT = -(-len(json.dumps(CHAT_REQUEST["messages"])) // 4) * Decimal("0.001")
PIECES = [chunk("x" * 20), chunk("y" * 20), usage_chunk(10, 20), DONE]


@pytest.fixture
async def server_manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    """A manager on a real server."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


def flags(accounts: Accounts) -> list[str]:
    """The flags of the only charge."""
    (settle,) = [entry for entry in accounts.journal() if entry.operation == "settle"]
    found: list[str] = json.loads(settle.cause).get("flags", [])
    return found


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 4, 5])
async def test_a_server_that_says_so(metered: Metered, accounts: Accounts, lost: int) -> None:
    """OSError from `send`, at any message, does not reach the application: it runs to its end, and all is charged."""
    count = iter(range(100))
    counts = MeteringCounts()

    def fail(message: Message) -> None:
        if next(count) >= lost:
            raise OSError("the client has gone")

    answer = await call(
        metered(streaming(*PIECES), disconnects=Disconnects(on_disconnect="drain"), counts=counts),
        REQUEST,
        on_send=fail,
    )
    assert len(answer.messages) == lost
    assert next(count) == lost + 1, "the server was bothered again"
    assert await accounts.spent() == Decimal("0.21")
    # The last message is the end of the answer: with it the client has left at its end, and nothing was drained.
    assert flags(accounts) == (["drained"] if lost < 5 else [])
    assert counts.drained == (lost < 5)


async def test_a_plain_answer_is_drained_too(metered: Metered, accounts: Accounts) -> None:
    """A JSON answer that its client does not take any more is charged, and its application is not bothered."""

    def gone(message: Message) -> None:
        raise OSError("the client has gone")

    app = metered(sending(json.dumps(completion(10, 20)).encode()), disconnects=Disconnects(on_disconnect="drain"))
    assert (await call(app, on_send=gone)).messages == []
    assert await accounts.spent() == Decimal("0.21")


async def test_draining_is_bounded(metered: Metered, accounts: Accounts) -> None:
    """An application that streams for ever to nobody is told after `drain_seconds`, as by its server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": chunk("x" * 20), "more_body": True})
            await asyncio.sleep(0.005)

    def gone(message: Message) -> None:
        raise OSError("the client has gone")

    with pytest.raises(OSError, match="has gone"):
        await call(
            metered(app, disconnects=Disconnects(on_disconnect="drain", drain_seconds=0.05)), REQUEST, on_send=gone
        )
    assert await accounts.spent() > PROMPT + Decimal("0.05")
    assert flags(accounts) == ["interrupted", "usage_counted"]


async def test_an_application_that_waits_for_its_client_to_leave(metered: Metered, accounts: Accounts) -> None:
    """An answer that ends only when the client leaves ends after `drain_seconds`: nothing hangs."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": chunk("x" * 20), "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"

    await call(metered(app, disconnects=Disconnects(on_disconnect="drain", drain_seconds=0.05)), REQUEST)
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")
    assert flags(accounts) == ["interrupted", "usage_counted"]


async def test_after_the_answer_an_application_is_told_at_once(metered: Metered, accounts: Accounts) -> None:
    """What waits for the client to leave while it answers is told when the answer has ended, and not later."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        listening = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await streaming(*PIECES)(scope, no_body, send)
        assert (await listening)["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"

    async def no_body() -> Message:
        return {"type": "http.request"}

    await call(metered(app, disconnects=Disconnects(on_disconnect="drain", drain_seconds=3600)), REQUEST)
    assert await accounts.spent() == Decimal("0.21")


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
async def test_a_client_that_leaves_after_its_answer(metered: Metered, status: int, content_type: str) -> None:
    """An application that listens when its answer has ended, as background work may, is told at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(b"{}", status=status, content_type=content_type)(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    await call(metered(app, disconnects=Disconnects(on_disconnect="drain", drain_seconds=3600)), REQUEST)


async def test_asking_whether_the_client_has_left(metered: Metered, accounts: Accounts) -> None:
    """`request.is_disconnected()` says no while an answer is drained, and yes where it is to be cut."""
    said = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        said.append([await request.is_disconnected(), await request.is_disconnected()])
        await StreamingResponse(pieces(), media_type="text/event-stream")(scope, receive, send)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    for on_disconnect in ("drain", "cut"):
        await call(metered(app, disconnects=Disconnects(on_disconnect=on_disconnect)), REQUEST)
    assert said == [[False, False], [True, True]]
    assert await accounts.spent() == Decimal("0.42")


async def test_an_application_that_fails_while_it_is_drained(metered: Metered, accounts: Accounts) -> None:
    """What was delivered before it failed is charged; an answer that failed before it began costs nothing."""

    def gone(message: Message) -> None:
        raise OSError("the client has gone")

    app = metered(streaming(chunk("x" * 20), error=ZeroDivisionError()), disconnects=Disconnects(on_disconnect="drain"))
    with pytest.raises(ZeroDivisionError):
        await call(app, REQUEST, on_send=gone)
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await asyncio.wait([asyncio.create_task(receive())], timeout=0.01)  # type: ignore[arg-type]
        raise ZeroDivisionError

    before = await accounts.spent()
    with pytest.raises(ZeroDivisionError):
        await call(metered(failing, disconnects=Disconnects(on_disconnect="drain")))
    assert await accounts.spent() == before


class Endpoint:
    """Endpoints behind a real server, which the test steers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.done = asyncio.Event()
        self.received: list[str] = []

    async def stream(self, request: Request) -> Response:
        """Half of the answer; the other half when the test says that the client has gone."""

        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield PIECES[0]
                self.asked.set()
                await self.gone.wait()
                for piece in PIECES[1:]:
                    yield piece
            finally:
                self.done.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def compressed(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            body = gzip.compress(b"".join(PIECES))
            yield body[:20]
            self.asked.set()
            await self.gone.wait()
            yield body[20:]
            self.done.set()

        return StreamingResponse(pieces(), media_type="text/event-stream", headers={"content-encoding": "gzip"})

    async def late(self, request: Request) -> Response:
        """An answer that begins when the client has gone."""
        self.asked.set()
        await self.gone.wait()
        return await self.stream(request)

    async def plain(self, request: Request) -> Response:
        """One that looks after its client, as one does that stops its model then."""
        await request.body()
        self.asked.set()
        await self.gone.wait()
        if await request.is_disconnected():
            raise ConnectionError("the client has gone")
        self.done.set()
        return JSONResponse(completion(10, 20))

    async def much(self, request: Request) -> Response:
        """More than the buffers between server and client take."""

        async def pieces() -> AsyncIterator[bytes]:
            self.asked.set()
            for _ in range(64):
                yield chunk("x" * 2**17)
            for piece in PIECES:
                yield piece
            self.done.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")


async def run(
    manager: AsyncCreditManager, endpoint: Endpoint, handler: Any, *, http: str = "auto", **options: Any
) -> Accounts:
    """Serve an endpoint, ask it, and hang up when it has begun; then let it go on."""
    counts = MeteringCounts()
    middleware = [Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1", counts=counts, **options)]
    app = Starlette(routes=[Route(CHAT, handler, methods=["POST"])], middleware=middleware)
    left = asyncio.Event()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                left.set()
            return message

        await app(scope, watch, send)

    async with serve(watched, http=http, lifespan="off") as port:
        client = await RawClient.post(port, CHAT, BODY)
        await endpoint.asked.wait()
        await client.hang_up()
        if handler in (endpoint.stream, endpoint.compressed):
            await left.wait()
        endpoint.gone.set()
        accounts = Accounts(manager)
        await accounts.settled()
    return accounts


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("name", ["stream", "compressed", "late", "plain", "much"])
async def test_drained_behind_a_real_server(server_manager: AsyncCreditManager, http: str, name: str) -> None:
    """A client that leaves, before, during or without reading: its application runs to the end, and all is charged."""
    pytest.importorskip(http)
    endpoint = Endpoint()
    accounts = await run(
        server_manager, endpoint, getattr(endpoint, name), http=http, disconnects=Disconnects(on_disconnect="drain")
    )
    assert endpoint.done.is_set()
    assert await accounts.spent() == Decimal("0.21")
    if name in ("stream", "compressed"):
        assert flags(accounts) == ["drained"]


async def test_cut_behind_a_real_server(server_manager: AsyncCreditManager) -> None:
    """Without draining the application is cancelled, and what it delivered is charged."""
    endpoint = Endpoint()
    accounts = await run(server_manager, endpoint, endpoint.stream, disconnects=Disconnects(on_disconnect="cut"))
    assert await accounts.spent() == PROMPT + 5 * Decimal("0.01")
    assert flags(accounts) == ["interrupted", "usage_counted"]


async def test_a_client_that_leaves_right_after_the_last_chunk(server_manager: AsyncCreditManager) -> None:
    """Before the empty last message, when all has been reported: the whole usage is charged, drained or not."""

    class Ending(Endpoint):
        async def ending(self, request: Request) -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                for piece in PIECES:
                    yield piece
                self.asked.set()
                await self.gone.wait()

            return StreamingResponse(pieces(), media_type="text/event-stream")

    charged = []
    for on_disconnect in ("cut", "drain"):
        endpoint = Ending()
        accounts = await run(
            server_manager, endpoint, endpoint.ending, disconnects=Disconnects(on_disconnect=on_disconnect)
        )
        charged.append(await accounts.spent())
    assert charged == [Decimal("0.21"), Decimal("0.42")]
