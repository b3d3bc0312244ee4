"""Clients that hang up, in front of a real uvicorn and a real Valkey: charged for what was delivered, exactly once."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import CHAT, CHAT_REQUEST, chunk, completion, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.middleware.serving import RawClient, serve

BODY = json.dumps(CHAT_REQUEST).encode()
PROMPT = -(-len(json.dumps(CHAT_REQUEST["messages"])) // 4) * Decimal("0.001")


@pytest.fixture
async def manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    """A manager on a real server."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


class Endpoint:
    """An endpoint whose answer the test steers."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.left = asyncio.Event()

    async def stream_for_ever(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield chunk("x" * 20)
                await asyncio.Event().wait()
            finally:
                self.left.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def finish_anyway(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": chunk("x" * 20), "more_body": True})
        await self.gone.wait()
        for piece in (chunk("y" * 20), usage_chunk(10, 20)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        self.left.set()

    async def plain(self, request: Request) -> Response:
        await request.json()
        self.left.set()
        await self.gone.wait()
        return JSONResponse(completion(10, 20))


async def charged_once(accounts: Accounts) -> Decimal:
    """Wait until nothing is held any more; return what was charged, after checking that it was one charge."""
    spent = await accounts.settled()
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "settle"]
    return spent


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_stream_that_the_server_cancels(manager: AsyncCreditManager, http: str) -> None:
    """Hanging up cancels a StreamingResponse, which returns without an end: the delivered part is charged."""
    pytest.importorskip(http)
    endpoint, accounts = Endpoint(), Accounts(manager)
    middleware = [Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")]
    app = Starlette(routes=[Route(CHAT, endpoint.stream_for_ever, methods=["POST"])], middleware=middleware)
    async with serve(app, http=http) as port:
        client = await RawClient.post(port, CHAT, BODY)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"x-credits-reserved: " in head
        await client.reader.readuntil(b"\n\n")
        await client.hang_up()
        await endpoint.left.wait()
        assert await charged_once(accounts) == PROMPT + 5 * Decimal("0.01")


async def test_a_stream_that_goes_on_is_charged_whole(manager: AsyncCreditManager) -> None:
    """Where the application goes on to its end though nobody listens, its usage is charged."""
    endpoint, accounts = Endpoint(), Accounts(manager)
    app = MeteringMiddleware(endpoint.finish_anyway, manager=manager, account=lambda scope: "u1")
    async with serve(app, lifespan="off") as port:
        client = await RawClient.post(port, CHAT, BODY)
        await client.reader.readuntil(b"\n\n")
        await client.hang_up()
        endpoint.gone.set()
        await endpoint.left.wait()
        assert await charged_once(accounts) == Decimal("0.21")


async def test_a_plain_endpoint_runs_to_its_end(manager: AsyncCreditManager) -> None:
    """A plain endpoint does not notice that its client left; its answer is charged."""
    endpoint, accounts = Endpoint(), Accounts(manager)
    middleware = [Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")]
    app = Starlette(routes=[Route(CHAT, endpoint.plain, methods=["POST"])], middleware=middleware)
    async with serve(app) as port:
        client = await RawClient.post(port, CHAT, BODY)
        await endpoint.left.wait()
        await client.hang_up()
        endpoint.gone.set()
        assert await charged_once(accounts) == Decimal("0.21")


async def test_closing_waits_for_what_is_being_charged(valkey_url: str, namespace: str) -> None:
    """A server that stops in the middle of a stream charges it before its manager closes."""
    endpoint = Endpoint()
    manager = AsyncCreditManager.from_url(valkey_url, namespace=namespace)
    await manager.publish_pricing(PRICING)
    await manager.add_credits("u1", FUNDS)
    middleware = [Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")]
    routes = [Route(CHAT, endpoint.stream_for_ever, methods=["POST"])]
    app = Starlette(routes=routes, middleware=middleware, lifespan=manager.lifespan)
    async with serve(app) as port:
        client = await RawClient.post(port, CHAT, BODY)
        await client.reader.readuntil(b"\n\n")
        await client.hang_up()
        await endpoint.left.wait()
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as after:
        assert await charged_once(Accounts(after)) == PROMPT + 5 * Decimal("0.01")
