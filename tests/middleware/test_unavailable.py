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

from ducto_redis import AsyncCreditManager, MemoryStore, Payer
from ducto_redis.middleware import Holds, MeteringMiddleware
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


async def test_a_run_s_request_is_never_let_pass(manager: AsyncCreditManager, server: Server) -> None:
    """Nobody can say what a run has left while the engine is away: its requests are refused, others pass."""
    paid_by = {"parent": "run"}
    app = MeteringMiddleware(
        answering(completion(10, 20)),
        manager=manager,
        account=lambda scope: Payer("u1", **paid_by),
        holds=Holds(on_unavailable="allow", grace=20),
    )
    await manager.reserve("u1", 50, lease_id="run")
    assert (await call(app)).status == 200
    server.kill()
    assert (await call(app)).status == 503
    paid_by.clear()
    assert (await call(app)).status == 200


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
    app = wrap(
        answering(completion(10, 20)), manager, holds=Holds(on_unavailable="allow", grace=2 * HELD + Decimal("0.5"))
    )
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

    wrapped = wrap(app, manager, holds=Holds(on_unavailable="allow", grace=HELD))
    server.kill()
    assert [(await call(wrapped)).status for _ in range(4)] == [500, 500, 200, 503]
    server.start()
    assert await charged(manager, 1) == Decimal("0.21")


async def test_a_stream_under_grace(manager: AsyncCreditManager, server: Server) -> None:
    """A stream is let pass as well; the journal says that it was unpaid."""
    app = wrap(streaming(chunk("a"), usage_chunk(10, 20)), manager, holds=Holds(on_unavailable="allow", grace=5))
    await call(app)  # the price is known from here on
    server.kill()
    assert (await call(app)).status == 200
    server.start()
    assert await charged(manager, 2) == Decimal("0.42")
    assert json.loads(Accounts(manager).journal()[-1].cause)["flags"] == ["unpaid"]


async def test_the_grace_asks_no_engine_for_prices(
    manager: AsyncCreditManager, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices that are to be looked up again are known well enough while the engine is away."""
    app = wrap(answering(completion(10, 20)), manager, holds=Holds(on_unavailable="allow", grace=5))
    await call(app)
    monkeypatch.setattr("ducto_redis.manager.pricing_book._FRESH_SECONDS", 0)
    server.kill()
    assert [(await call(app)).status for _ in range(2)] == [200, 200]
    server.start()
    assert await charged(manager, 3) == 3 * Decimal("0.21")


async def test_the_grace_holds_over_several_outages(manager: AsyncCreditManager, server: Server) -> None:
    """What runs unpaid since the last outage still counts in the next: more than the grace is never unpaid."""
    runs, goes_on = asyncio.Event(), asyncio.Event()

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        if b"x-slow" in dict(scope["headers"]):
            runs.set()
            await goes_on.wait()
        await answering(completion(10, 20))(scope, receive, send)

    app = wrap(choose, manager, holds=Holds(on_unavailable="allow", grace=HELD))

    async def answers() -> bool:
        return (await call(app)).status == 200

    await call(app)
    server.kill()
    running = asyncio.create_task(call(app, headers={"x-slow": ""}))
    await runs.wait()
    assert (await call(app)).status == 503
    server.start()
    await until(answers)  # again, once the link has noticed that the engine is back
    server.kill()
    assert (await call(app)).status == 503
    goes_on.set()
    assert (await running).status == 200
    assert (await call(app)).status == 503  # its charge waits now
    server.start()
    assert await charged(manager, 3) == 3 * Decimal("0.21")


async def test_a_hold_that_came_to_be_all_the_same(server: Server) -> None:
    """A request that was let pass and cost nothing leaves no hold behind, which might be charged when it expires."""
    url = server.url
    async with AsyncCreditManager.from_url(url, timeout_seconds=0.5, on_lease_expiry="charge") as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        app = wrap(answering({}, 500), manager, holds=Holds(on_unavailable="allow", grace=5))
        await call(app)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert (await call(app)).status == 500
        finally:
            os.kill(server.pid, signal.SIGCONT)
        accounts = Accounts(manager)

        async def released() -> bool:
            return [entry.operation for entry in accounts.journal()].count("release") == 2

        await until(released)
        assert await accounts.spent() == 0


async def test_a_hold_that_is_charged_while_the_engine_is_away(manager: AsyncCreditManager, server: Server) -> None:
    """Where usage has no price and the engine is away, the hold is charged once it is back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server.kill()
        await answering(completion(10, 0))(scope, receive, send)

    request = {**CHAT_REQUEST, "model": "divided"}
    assert (await call(wrap(app, manager), request)).status == 200
    server.start()
    held = len(json.dumps(request)) * Decimal("0.001") + Decimal("0.01")
    assert await charged(manager, 1) == held
    assert json.loads(Accounts(manager).journal()[-1].cause)["flags"] == ["hold_charged"]


async def test_a_full_outbox_lets_nothing_pass(server: Server) -> None:
    """Where the charge could not even wait, nothing is let pass."""
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5, outbox_limit=1) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        app = wrap(answering(completion(10, 20)), manager, holds=Holds(on_unavailable="allow", grace=50))
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
        answer = await call(wrap(answering({}), manager, holds=Holds(on_unavailable="allow", grace=5)))
        assert (answer.status, answer.error["code"]) == (503, "pricing_not_loaded")
