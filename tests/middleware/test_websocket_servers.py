"""Realtime sessions through real servers and clients, and through a process that is killed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware
from ducto_redis.middleware.recognisers import OpenAIRealtime
from tests.middleware.asgi import until
from tests.middleware.conftest import Accounts
from tests.middleware.serving import serve
from tests.middleware.sockets import REALTIME, Connection, created, done, text_message
from tests.servers import Server

ROOT = Path(__file__).parents[2]
FUNDS = Decimal(100)
PRICING = {"version": 1, "models": {"voice": "input_tokens * 0.001 + output_tokens * 0.01"}}
HELD = Decimal("0.2")
COST = Decimal("0.21")


async def model(websocket: WebSocket) -> None:
    """A stand-in for the provider: each `response.create` makes a response; "hang" makes one that never ends."""
    await websocket.accept()
    number = 0
    async for event in websocket.iter_json():
        if event["type"] != "response.create":
            continue
        number += 1
        await websocket.send_json(created(f"resp_{number}"))
        if event.get("event_id") == "hang":
            delta = {"type": "response.output_text.delta", "event_id": "e", "response_id": "r", "delta": "x" * 40}
            await websocket.send_json(delta)
        else:
            await websocket.send_json(done((10, 20), f"resp_{number}"))


@pytest.fixture
async def manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace, timeout_seconds=30) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        await manager.add_credits("poor", "0.3")
        yield manager


@pytest.fixture
def app(manager: AsyncCreditManager) -> Any:
    def account(scope: Scope) -> str | None:
        return dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ") or None

    app = Starlette(routes=[WebSocketRoute(REALTIME, model)])
    app.add_middleware(
        MeteringMiddleware,
        manager=manager,
        account=account,
        sockets=[OpenAIRealtime(hold_input_tokens=100, hold_output_tokens=10)],
    )
    return app


@pytest.fixture
async def port(app: Any) -> AsyncIterator[int]:
    async with serve(app) as port:
        yield port


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}{REALTIME}?model=voice"


def paid_by(account: str) -> dict[str, str]:
    return {"authorization": f"Bearer {account}"}


CREATE = json.dumps({"type": "response.create"})


@pytest.mark.parametrize(("account", "status"), [(None, 401), ("nobody", 402)])
async def test_refused(port: int, account: str | None, status: int) -> None:
    """The handshake of who can't pay is answered with the table's status and body."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(port), additional_headers=paid_by(account) if account else {}):
            pass
    assert refused.value.response.status_code == status
    body = refused.value.response.body
    assert body is not None
    assert json.loads(body)["error"]["type"] == ("authentication_error" if status == 401 else "billing_error")


async def test_charged(port: int, accounts: Accounts) -> None:
    """Responses are charged while the session goes on; what it holds at its end is given back."""
    async with connect(url(port), additional_headers=paid_by("u1")) as client:
        for number in (1, 2):
            await client.send(CREATE)
            types = [json.loads(await client.recv())["type"] for _ in range(2)]
            assert types == ["response.created", "response.done"]
            assert FUNDS - (await accounts.manager.get_balance("u1")).balance == number * COST
    assert await accounts.settled() == 2 * COST


async def test_the_money_runs_out(port: int, accounts: Accounts) -> None:
    """The client is told by an error event, then by the code of the close."""
    async with connect(url(port), additional_headers=paid_by("poor")) as client:
        await client.send(CREATE)
        events = [json.loads(await client.recv()) for _ in range(3)]
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert [event["type"] for event in events] == ["response.created", "response.done", "error"]
    assert events[-1]["error"]["code"] == "insufficient_credits"
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4402, "insufficient_credits")
    assert (await accounts.manager.get_balance("poor")).balance == Decimal("0.3") - COST

    async def nothing_held() -> bool:
        return not await accounts.held("poor")

    await until(nothing_held)


async def test_the_client_hangs_up_within_a_response(port: int, accounts: Accounts) -> None:
    """A client that goes without a word pays for what it got."""
    async with connect(url(port), additional_headers=paid_by("u1")) as client:
        await client.send(json.dumps({"type": "response.create", "event_id": "hang"}))
        assert [json.loads(await client.recv())["type"] for _ in range(2)][-1] == "response.output_text.delta"
        client.transport.abort()
    heard = -(-len('{"type": "response.create", "event_id": "hang"}') // 4)
    assert await accounts.settled() == heard * Decimal("0.001") + 10 * Decimal("0.01")


async def test_the_openai_client(port: int, accounts: Accounts) -> None:
    """The official client: its connection, its events, and how it is refused."""
    base_url = f"http://127.0.0.1:{port}/v1"
    async with (
        openai.AsyncOpenAI(api_key="u1", base_url=base_url) as client,
        client.realtime.connect(model="voice") as connection,
    ):
        await connection.response.create()
        types = []
        async for event in connection:
            types.append(event.type)
            if event.type == "response.done":
                assert event.response.usage is not None
                assert event.response.usage.output_tokens == 20
                break
    assert types == ["response.created", "response.done"]
    assert await accounts.settled() == COST
    async with openai.AsyncOpenAI(api_key="nobody", base_url=base_url) as client:
        with pytest.raises(InvalidStatus, match="402"):
            async with client.realtime.connect(model="voice"):
                pass


async def test_the_openai_client_runs_out_of_money(port: int) -> None:
    """The official client gives the error as an event, then ends."""
    async with (
        openai.AsyncOpenAI(api_key="poor", base_url=f"http://127.0.0.1:{port}/v1") as client,
        client.realtime.connect(model="voice") as connection,
    ):
        await connection.response.create()
        events = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                events.append(await connection.recv())
    assert events[-1].type == "error"
    assert events[-1].error.code == "insufficient_credits"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4402


async def test_a_killed_process(
    manager: AsyncCreditManager, accounts: Accounts, valkey_url: str, namespace: str
) -> None:
    """A process that is killed within a response leaves its hold, which expires; what was charged stays charged."""
    command = [sys.executable, "-m", "tests.middleware.hanging_session", valkey_url, namespace]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"running\n"
    finally:
        process.kill()
        await process.wait()
    assert await accounts.held() == HELD

    async def expired() -> bool:
        await manager.sweep()
        return accounts.journal()[-1].operation == "expire"

    await until(expired)
    assert await accounts.spent() == COST


async def test_the_engine_goes_away(start_valkey: Callable[..., Server]) -> None:
    """While the engine is away nothing new is begun: the session ends with 4503, and what it did is charged later."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            server.kill()
            await send(text_message(done()))

        connection = await Connection().run(MeteringMiddleware(app, manager=manager, account=lambda scope: "u1"))
        assert connection.types == ["accept", "send", "send", "close"]
        assert connection.events[-1]["error"]["code"] == "store_unavailable"
        assert connection.sent[-1]["code"] == 4503
        server.start()
        assert await Accounts(manager).settled() == COST
