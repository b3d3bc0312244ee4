"""Where the model may reason unseen, what was delivered of a cut answer does not say what it cost."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from msgspec import structs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis.middleware import Disconnects, Estimates, MeteredRequest
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import CHAT_REQUEST, DONE, call, chunk, event, sending, streaming, usage_chunk
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]

REQUEST = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}
HELD = len(json.dumps(REQUEST)) * Decimal("0.001") + 100 * Decimal("0.01")
PROMPT = -(-len(json.dumps(CHAT_REQUEST["messages"])) // 4) * Decimal("0.001")


class Reasoning(OpenAIChat):
    """An API whose model may reason unseen."""

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        return structs.replace(super().read_request(request, estimates), may_reason_hidden=True)


def flags(accounts: Accounts) -> list[str]:
    found: list[str] = json.loads(accounts.journal()[-1].cause).get("flags", [])
    return found


def losing_the_client(after: int) -> Callable[[Message], None]:
    """A server whose client leaves after so many messages."""
    count = iter(range(100))

    def fail(message: Message) -> None:
        if next(count) >= after:
            raise OSError("the client has gone")

    return fail


async def test_it_is_drained(metered: Metered, accounts: Accounts) -> None:
    """By default such an answer is drained when its client leaves, though others are cut: the true cost is charged."""
    app = streaming(chunk("x" * 20), chunk("y" * 20), usage_chunk(10, 20), DONE)
    await call(metered(app, recognisers=[Reasoning()]), REQUEST, on_send=losing_the_client(2))
    assert await accounts.spent() == Decimal("0.21")
    assert flags(accounts) == ["drained"]
    with pytest.raises(OSError, match="has gone"):
        await call(metered(app), REQUEST, on_send=losing_the_client(2))


async def test_the_hold_is_charged(metered: Metered, accounts: Accounts) -> None:
    """With hidden_reasoning="hold" the answer is cut, and the hold charged: it bounds what the model reasoned."""
    app = metered(
        streaming(chunk("x" * 20)), recognisers=[Reasoning()], disconnects=Disconnects(hidden_reasoning="hold")
    )
    with pytest.raises(OSError, match="has gone"):
        await call(app, REQUEST, on_send=losing_the_client(1))
    assert await accounts.spent() == HELD
    assert flags(accounts) == ["interrupted", "hold_charged"]


async def test_where_draining_does_not_help(metered: Metered, accounts: Accounts) -> None:
    """An application that was told, after `drain_seconds`, before it reported its usage is charged the hold."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await receive()

    await call(metered(app, recognisers=[Reasoning()], disconnects=Disconnects(drain_seconds=0.05)), REQUEST)
    assert await accounts.spent() == HELD
    assert flags(accounts) == ["interrupted", "hold_charged"]


@pytest.mark.parametrize("pieces", [[], [chunk("x" * 20)], [chunk("a", usage={"prompt_tokens": 1}), chunk("b")]])
async def test_an_application_that_fails(metered: Metered, accounts: Accounts, pieces: list[bytes]) -> None:
    """An answer that began, and whose application failed, or was killed, before it reported, is charged the hold."""
    errors = (ZeroDivisionError(), asyncio.CancelledError())
    for error in errors:
        with pytest.raises(type(error)):
            await call(metered(streaming(*pieces, error=error), recognisers=[Reasoning()]), REQUEST)
        assert flags(accounts) == ["interrupted", "hold_charged"]
    assert await accounts.spent() == HELD * len(errors)


async def test_a_killed_plain_answer(metered: Metered, accounts: Accounts) -> None:
    """A plain answer that was killed while it was worked on had reasoned, too; one that failed costs nothing."""
    for error, expected in ((ZeroDivisionError(), Decimal(0)), (asyncio.CancelledError(), HELD)):
        with pytest.raises(type(error)):
            await call(metered(sending(b"{", error=error), recognisers=[Reasoning()]), REQUEST)
        assert await accounts.spent() == expected


async def test_what_was_reported_is_charged(metered: Metered, accounts: Accounts) -> None:
    """A stream that was cut after its report is charged what it reported; one that ended without one, as counted."""
    reported = streaming(chunk("x" * 20), usage_chunk(10, 20), error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await call(metered(reported, recognisers=[Reasoning()]), REQUEST)
    assert await accounts.spent() == Decimal("0.21")
    for pieces, options in (([chunk("x" * 20), DONE], {"end": False}), ([chunk("x" * 20)], {})):
        before = await accounts.spent()
        await call(metered(streaming(*pieces, **options), recognisers=[Reasoning()]), REQUEST)
        assert await accounts.spent() - before == PROMPT + 5 * Decimal("0.01")


async def test_an_error_costs_nothing(metered: Metered, accounts: Accounts) -> None:
    """A stream that had nothing but an error and was cut is free, as any other."""
    error = event({"error": {"message": "overloaded"}})
    await call(metered(streaming(error, end=False), recognisers=[Reasoning()]), REQUEST)
    assert await accounts.spent() == 0
