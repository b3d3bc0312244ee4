"""The example of a recogniser of one's own, in the real middleware."""

import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from docs.examples.own_recogniser import Summaries
from ducto_redis import AsyncCreditManager, MemoryStore
from ducto_redis.middleware import MeteringMiddleware
from tests.middleware.asgi import answering, call, event, streaming
from tests.middleware.conftest import FUNDS, PRICING, Accounts

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_recogniser.py"
REQUEST: dict[str, Any] = {"model": "m", "text": "x" * 36, "max_tokens": 100}
UNITS = {"units": {"read": 10, "written": 20}}
PRICE = 10 * Decimal("0.001") + 20 * Decimal("0.01")
PIECES = [event({"piece": "x" * 20}), event({"piece": "x" * 20})]


@pytest.fixture
async def manager() -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture
def metered(manager: AsyncCreditManager) -> Callable[..., ASGIApp]:
    def wrap(app: ASGIApp, **options: Any) -> ASGIApp:
        return MeteringMiddleware(
            app, manager=manager, account=lambda scope: "u1", recognisers=[Summaries()], **options
        )

    return wrap


async def charged(app: ASGIApp, manager: AsyncCreditManager, **request: Any) -> Decimal:
    answer = await call(app, {**REQUEST, **request}, path="/v1/summaries")
    assert answer.status == 200
    return await Accounts(manager).settled()


def test_the_example_is_short() -> None:
    """What a page calls under 60 lines is."""
    assert len(EXAMPLE.read_text().splitlines()) < 60


async def test_a_plain_answer(metered: Callable[..., ASGIApp], manager: AsyncCreditManager) -> None:
    """The units that an answer reports are charged."""
    assert await charged(metered(answering({"summary": "short", **UNITS})), manager) == PRICE


async def test_a_stream(metered: Callable[..., ASGIApp], manager: AsyncCreditManager) -> None:
    """A stream reports at its end, wherever it is cut."""
    body = b"".join([*PIECES, event(UNITS)])
    pieces = [body[at : at + 1] for at in range(len(body))]
    assert await charged(metered(streaming(*pieces)), manager, stream=True) == PRICE


async def test_a_cut_stream(metered: Callable[..., ASGIApp], manager: AsyncCreditManager) -> None:
    """A stream that breaks off is charged what it delivered, four bytes a token."""
    expected = 9 * Decimal("0.001") + 10 * Decimal("0.01")
    assert await charged(metered(streaming(*PIECES, end=False)), manager, stream=True) == expected
    entry = Accounts(manager).journal()[-1]
    assert json.loads(entry.cause)["flags"] == ["interrupted", "usage_counted"]


async def test_answers_of_another_shape(metered: Callable[..., ASGIApp], manager: AsyncCreditManager) -> None:
    """Units that make no sense, or no units at all, are counted."""
    expected = 9 * Decimal("0.001") + 10 * Decimal("0.01")
    broken = answering({"summary": "x" * 40, "units": {"read": -1, "written": 2}})
    assert await charged(metered(broken), manager) == expected
    assert await charged(metered(answering(["x" * 36])), manager) == 2 * expected


async def test_a_refusal(metered: Callable[..., ASGIApp]) -> None:
    """What nobody can pay, and what makes no sense, is refused."""
    app = metered(answering({}))
    refused = await call(app, {**REQUEST, "max_tokens": 100_000}, path="/v1/summaries")
    assert (refused.status, refused.error["code"]) == (402, "insufficient_credits")
    refused = await call(app, {**REQUEST, "max_tokens": 0}, path="/v1/summaries")
    assert (refused.status, refused.error["param"]) == (400, "max_tokens")
