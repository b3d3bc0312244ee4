"""Many processes see responses in the background finished at the same time: each is charged once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import MeteringMiddleware, meter_background
from tests.middleware.asgi import answering, call
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.middleware.responses import REQUEST, RESPONSES, response

MANAGERS = 4
WORKS = 20
COST = Decimal("0.21")


@pytest.fixture
async def managers(valkey_url: str, namespace: str) -> AsyncIterator[list[AsyncCreditManager]]:
    """Managers of as many processes, each with its own connection."""
    async with AsyncExitStack() as stack:
        managers = [
            await stack.enter_async_context(
                AsyncCreditManager.from_url(valkey_url, namespace=namespace, timeout_seconds=30)
            )
            for _ in range(MANAGERS)
        ]
        await managers[0].publish_pricing(PRICING)
        await managers[0].add_credits("u1", FUNDS)
        yield managers


async def test_seen_everywhere(managers: list[AsyncCreditManager]) -> None:
    """Polls, webhooks and cancellations of all processes together charge each response once."""

    async def start(number: int) -> None:
        queued = response("queued", None, response_id=f"resp_{number}", background=True)
        app = MeteringMiddleware(answering(queued), manager=managers[number % MANAGERS], account=lambda scope: "u1")
        await call(app, {**REQUEST, "background": True}, path=RESPONSES)

    async def poll(manager: AsyncCreditManager, number: int) -> None:
        done = response(response_id=f"resp_{number}")
        app = MeteringMiddleware(answering(done), manager=manager, account=lambda scope: "u1")
        await call(app, b"", path=f"{RESPONSES}/resp_{number}", method="GET")

    async def cancel(manager: AsyncCreditManager, number: int) -> None:
        cancelled = response("cancelled", None, response_id=f"resp_{number}")
        app = MeteringMiddleware(answering(cancelled), manager=manager, account=lambda scope: "u1")
        await call(app, b"", path=f"{RESPONSES}/resp_{number}/cancel")

    await asyncio.gather(*(start(number) for number in range(WORKS)))
    seen = []
    for number in range(WORKS):
        for manager in managers:
            seen += [poll(manager, number), meter_background(manager, response(response_id=f"resp_{number}"))]
            seen += [cancel(manager, number)] if number % 2 else []
    await asyncio.gather(*seen)
    assert await Accounts(managers[0]).settled() == WORKS * COST
