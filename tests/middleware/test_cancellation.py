"""Requests that are cancelled: wherever it happens, what was held is charged or released, exactly once."""

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import CHAT, DONE, answering, call, chunk, completion, until, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts

ENOUGH = 50  # more than any of the requests here suspends

ONCE = "once, while it waits"
AGAIN_AND_AGAIN = "then at every later time, too"
AS_IT_WAKES = "once, when what it waits for is there"


@pytest.fixture
async def manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    """A manager on a real server, so that every operation suspends."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for piece in (chunk("a"), chunk("b"), usage_chunk(10, 20), DONE):
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})
    await asyncio.sleep(0)


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)
    await answering(completion(10, 20))(scope, receive, send)
    await asyncio.sleep(0)


async def opened_by_the_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    meter = scope["state"]["meter"]
    await meter.reserve(5)
    await asyncio.sleep(0)
    meter.record(UsageMetrics(model="render", measures={"gpu_seconds": 1}))
    await plain(scope, receive, send)


async def suspending(app: ASGIApp, path: str) -> None:
    """Run a request before a server whose `receive` and `send` suspend."""

    async def with_a_slow_server(scope: Scope, receive: Receive, send: Send) -> None:
        async def slow_receive() -> Any:
            await asyncio.sleep(0)
            return await receive()

        async def slow_send(message: Any) -> None:
            await asyncio.sleep(0)
            await send(message)

        await app(scope, slow_receive, slow_send)

    await call(with_a_slow_server, path=path)


@types.coroutine
def cancelled(work: Coroutine[Any, Any, None], at: int, how: str) -> Generator[Any, Any, None]:
    """Run `work` and cancel it when it suspends for the `at`th time."""
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    suspended = 0
    while True:
        try:
            future = step()
        except StopIteration:
            return
        suspended += 1
        if suspended == at or (how == AGAIN_AND_AGAIN and suspended > at):
            task = asyncio.current_task()
            assert task is not None
            if how == AS_IT_WAKES and future is not None:
                future.add_done_callback(lambda _, task=task: task.cancel())
            else:
                task.cancel()
        try:
            yield future
            step = lambda: work.send(None)  # noqa: E731
        except BaseException as error:
            step = lambda error=error: work.throw(error)  # noqa: E731


async def run_cancelled(work: Coroutine[Any, Any, None], at: int, how: str) -> bool:
    """Return whether it was cancelled, and did not end before."""

    async def run() -> None:
        await cancelled(work, at, how)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False


@pytest.mark.parametrize("how", [ONCE, AGAIN_AND_AGAIN, AS_IT_WAKES])
@pytest.mark.parametrize(
    ("app", "path"),
    [(plain, CHAT), (stream, CHAT), (opened_by_the_endpoint, "/other")],
    ids=["plain", "stream", "opened by the endpoint"],
)
async def test_a_cancellation_at_every_await(manager: AsyncCreditManager, app: ASGIApp, path: str, how: str) -> None:
    """Whichever await is cancelled, no lease stays open, and no lease is closed twice."""
    accounts = Accounts(manager)
    metered = MeteringMiddleware(app, manager=manager, account=lambda scope: "u1")
    await suspending(metered, path)

    async def tasks_done() -> bool:
        return manager.pending.tasks == 0

    ends = []
    for at in range(1, ENOUGH):
        was_cancelled = await run_cancelled(suspending(metered, path), at, how)
        await until(tasks_done)
        assert await manager.list_leases("u1") == [], f"cancelled at await {at}"
        ends.append(was_cancelled)
        if not was_cancelled:
            break
    assert ends[-1] is False
    assert len(ends) > 5
    closed = [entry for entry in accounts.journal() if entry.operation in ("settle", "release")]
    opened = [entry for entry in accounts.journal() if entry.operation == "reserve"]
    lease_ids = [entry.operation_key.split("/")[1] for entry in closed]
    assert sorted(lease_ids) == sorted(entry.operation_key.split("/")[1] for entry in opened)
    assert len(set(lease_ids)) == len(lease_ids)
    assert (
        await accounts.spent() == sum(Decimal(entry.amount) for entry in closed if entry.operation == "settle") / 10**6
    )
