"""Responses in the background while the engine is away: no answer is spoilt, no charge is lost."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.engine.cause import decode_cause
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.middleware import Charge, Holds, MeteringMiddleware, background, meter_background
from tests.middleware.asgi import answering, call, until
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.middleware.responses import REQUEST, RESPONSES, response
from tests.servers import Server

BACKGROUND = {**REQUEST, "background": True}
QUEUED = response("queued", None, background=True)
COST = Decimal("0.21")


@pytest.fixture
def server(start_valkey: Callable[..., Server]) -> Server:
    return start_valkey(appendfsync="always")


@pytest.fixture
async def manager(server: Server) -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_WAITS_SECONDS", (0.05,) * 100)


def wrap(app: ASGIApp, manager: AsyncCreditManager, **options: Any) -> ASGIApp:
    return MeteringMiddleware(app, manager=manager, account=lambda scope: "u1", **options)


async def start(manager: AsyncCreditManager, on_call: Callable[[], None] = lambda: None, **options: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        on_call()
        await answering(QUEUED)(scope, receive, send)

    answer = await call(wrap(app, manager, **options), BACKGROUND, path=RESPONSES)
    assert answer.status == 200


async def poll(manager: AsyncCreditManager) -> None:
    answer = await call(wrap(answering(response()), manager), b"", path=f"{RESPONSES}/resp_1", method="GET")
    assert answer.status == 200


async def charged(manager: AsyncCreditManager) -> Decimal:
    """Poll until the response is charged; return what was charged."""

    async def settled() -> bool:
        await poll(manager)
        return Accounts(manager).journal()[-1].operation == "settle"

    await until(settled)
    return await Accounts(manager).spent()


async def test_away_when_it_starts(manager: AsyncCreditManager, server: Server) -> None:
    """An engine that goes away under the first answer is told afterwards that the response runs on."""
    await start(manager, server.kill)
    server.start()
    assert await charged(manager) == COST


async def test_given_up(
    manager: AsyncCreditManager, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Where the engine stays away, what would have been remembered is logged whole."""
    monkeypatch.setattr(background, "_WAITS_SECONDS", (0.01,))
    await start(manager, server.kill)

    async def given_up() -> bool:
        return "gave up work that goes on" in caplog.text

    await until(given_up)
    assert '"account":"u1"' in caplog.text
    assert "'resp_1'" in caplog.text


async def test_away_when_it_is_polled(manager: AsyncCreditManager, server: Server) -> None:
    """A poll passes while the engine is away, and a later one charges; a webhook is to be sent again."""
    await start(manager)
    server.kill()
    await poll(manager)
    with pytest.raises(StoreUnavailableError):
        await meter_background(manager, response())
    server.start()
    assert await charged(manager) == COST


async def test_away_when_it_is_charged(manager: AsyncCreditManager, server: Server) -> None:
    """A charge that the engine can't take waits in the manager's queue."""
    await start(manager)
    work = await background.find_work(manager, "resp_1")
    assert work is not None
    server.kill()
    assert await background.finish_work(manager, work, Charge(work.estimate)) is None
    assert manager.pending.outbox == 1
    server.start()

    async def sent() -> bool:
        return manager.pending.outbox == 0

    await until(sent)
    assert await Accounts(manager).spent() > 0


async def test_let_pass(manager: AsyncCreditManager, server: Server) -> None:
    """A response that was let pass while the engine was away is charged when it is seen finished; its grace is free."""
    documents = iter([response(), QUEUED, QUEUED])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(next(documents))(scope, receive, send)

    metered = wrap(app, manager, holds=Holds(on_unavailable="allow", grace="1.5"))  # for one request at a time
    await call(metered, REQUEST, path=RESPONSES)  # a process that knows no prices yet refuses
    server.kill()
    for _ in range(2):
        assert (await call(metered, BACKGROUND, path=RESPONSES)).status == 200
    server.start()
    await until(lambda: kept(manager))
    await poll(manager)
    assert await Accounts(manager).spent() == 2 * COST
    assert decode_cause(Accounts(manager).journal()[-1].cause).flags == ["unpaid"]


async def kept(manager: AsyncCreditManager) -> bool:
    try:
        return await background.find_work(manager, "resp_1") is not None
    except StoreUnavailableError:
        return False
