"""The engine is away: refuse, or let pass up to the grace and charge once it is back."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, MemoryStore
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import CHAT_REQUEST, answering, call, chunk, completion, streaming, until, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.servers import Server

HELD = len(json.dumps(CHAT_REQUEST)) * Decimal("0.001") + 100 * Decimal("0.01")


@pytest.fixture
def server(start_valkey: Callable[..., Server]) -> Server:
    return start_valkey(appendfsync="always")


@pytest.fixture
async def manager(server: Server) -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


def wrap(app: ASGIApp, manager: AsyncCreditManager, **options: Any) -> ASGIApp:
    return MeteringMiddleware(app, manager=manager, account=lambda scope: "u1", **options)


async def charged(manager: AsyncCreditManager, count: int) -> Decimal:
    """Wait until so many requests were settled; return what was charged for them."""
    accounts = Accounts(manager)

    async def settled() -> bool:
        return [entry.operation for entry in accounts.journal()].count("settle") == count

    await until(settled)
    return await accounts.spent()


async def test_refused(manager: AsyncCreditManager, server: Server) -> None:
    """Without a grace the answer is 503, to be tried again after a second."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application ran")

    server.kill()
    answer = await call(wrap(app, manager))
    assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")


async def test_an_answer_is_given_all_the_same(manager: AsyncCreditManager, server: Server) -> None:
    """An engine that goes away while the application works spoils no answer: it is charged when the engine is back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server.kill()
        await answering(completion(10, 20))(scope, receive, send)

    answer = await call(wrap(app, manager))
    assert answer.status == 200
    assert answer.credits == {}
    server.start()
    assert await charged(manager, 1) == Decimal("0.21")


async def test_the_grace(manager: AsyncCreditManager, server: Server) -> None:
    """Requests pass unpaid as long as their worst cases fit into the grace, then they are refused."""
    app = wrap(answering(completion(10, 20)), manager, on_unavailable="allow", grace=2 * HELD + Decimal("0.5"))
    await call(app)
    server.kill()
    statuses = []
    for _ in range(3):
        answer = await call(app)
        statuses.append(answer.status)
        assert answer.credits == {}
    assert statuses == [200, 200, 503]
    server.start()
    assert await charged(manager, 3) == 3 * Decimal("0.21")
    assert (await call(app)).status == 200  # which ends the outage
    server.kill()
    assert [(await call(app)).status for _ in range(3)] == [200, 200, 503]


async def test_a_request_that_cost_nothing_gives_its_grace_back(manager: AsyncCreditManager, server: Server) -> None:
    """An error answer is not charged later, and its worst case can be used by the next request."""
    statuses = iter([500, 500, 200])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(completion(10, 20), next(statuses))(scope, receive, send)

    wrapped = wrap(app, manager, on_unavailable="allow", grace=HELD)
    server.kill()
    assert [(await call(wrapped)).status for _ in range(4)] == [500, 500, 200, 503]
    server.start()
    assert await charged(manager, 1) == Decimal("0.21")


async def test_a_stream_under_grace(manager: AsyncCreditManager, server: Server) -> None:
    """A stream is let pass as well; the journal says that it was unpaid."""
    app = wrap(streaming(chunk("a"), usage_chunk(10, 20)), manager, on_unavailable="allow", grace=5)
    server.kill()
    assert (await call(app)).status == 200
    server.start()
    assert await charged(manager, 1) == Decimal("0.21")
    assert json.loads(Accounts(manager).journal()[-1].cause)["flags"] == ["unpaid"]


async def test_a_full_outbox_lets_nothing_pass(server: Server) -> None:
    """Where the charge could not even wait, nothing is let pass."""
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5, outbox_limit=1) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        app = wrap(answering(completion(10, 20)), manager, on_unavailable="allow", grace=50)
        await call(app)
        server.kill()
        assert [(await call(app)).status for _ in range(2)] == [200, 503]
        server.start()
        assert await charged(manager, 2) == 2 * Decimal("0.21")


async def test_a_request_that_is_cancelled_while_it_waits(manager: AsyncCreditManager, server: Server) -> None:
    """A request that is cancelled before its hold was answered leaves none behind."""
    accounts = Accounts(manager)
    app = wrap(answering(completion()), manager)
    await call(app)  # the prices are known from here on
    os.kill(server.pid, signal.SIGSTOP)
    try:
        request = asyncio.create_task(call(app))
        for _ in range(50):  # until the hold was asked for
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    finally:
        os.kill(server.pid, signal.SIGCONT)

    async def released() -> bool:
        return "release" in [entry.operation for entry in accounts.journal()]

    await until(released)
    assert [entry.operation for entry in accounts.journal()][-2:] == ["reserve", "release"]
    assert await accounts.spent() == Decimal("0.21")


async def test_without_prices_nothing_passes() -> None:
    """Without a pricing document there is nothing to charge by: 503, with a grace too."""
    async with AsyncCreditManager(MemoryStore()) as manager:
        answer = await call(wrap(answering({}), manager, on_unavailable="allow", grace=5))
        assert (answer.status, answer.error["code"]) == (503, "pricing_not_loaded")
