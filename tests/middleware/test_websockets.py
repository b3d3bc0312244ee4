"""Realtime sessions: refused before they begin, charged response by response, ended when the money runs out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, MemoryStore, Payer, UsageMetrics
from ducto_redis.engine.cause import Cause, decode_cause
from ducto_redis.errors import ConfigError
from ducto_redis.middleware import ApiRequest, MeteredRoutes, MeteringCounts, MeteringMiddleware
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers import OpenAIRealtime
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.middleware.recognisers.openai.realtime import RealtimeReader
from ducto_redis.middleware.recognisers.sockets import SessionReader
from tests.middleware.asgi import until
from tests.middleware.conftest import Accounts
from tests.middleware.sockets import REALTIME, Connection, created, done, handshake, saying, text_message, transcribed

# The next response is held 100 tokens of input, and 10 of output.
REALTIME_API = OpenAIRealtime(hold_input_tokens=100, hold_output_tokens=10)
PRICING = {
    "version": 1,
    "models": {"voice": "input_tokens * 0.001 + output_tokens * 0.01", "whisper-1": "audio_seconds * 0.5"},
}
HELD = Decimal("0.2")
FUNDS = Decimal(100)
Wrap = Callable[..., ASGIApp]


@pytest.fixture
async def manager() -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager(MemoryStore()) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        await manager.add_credits("poor", "0.3")
        yield manager


@pytest.fixture
def wrap(manager: AsyncCreditManager) -> Wrap:
    def wrap(app: ASGIApp, payer: Any = "u1", **options: Any) -> ASGIApp:
        options = {"sockets": [REALTIME_API], **options}
        return MeteringMiddleware(app, manager=manager, account=lambda scope: payer, **options)

    return wrap


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the application ran")


def settles(accounts: Accounts, account: str = "u1") -> list[Cause]:
    return [decode_cause(entry.cause) for entry in accounts.journal(account) if entry.operation == "settle"]


def totals(cause: Cause) -> list[tuple[str | None, int, int]]:
    return [(usage.model, usage.input_tokens, usage.output_tokens) for usage in cause.usages]


# Before a session


@pytest.mark.parametrize(
    ("payer", "scope", "status", "code"),
    [
        (None, {}, 401, "no_account"),
        ("nobody", {}, 402, "insufficient_credits"),
        ("u1", {"query": b"model=dear"}, 400, "model_not_priced"),
        (Payer("u1", required_feature="voice"), {}, 403, "feature_not_entitled"),
    ],
)
async def test_refused(wrap: Wrap, payer: Any, scope: dict[str, Any], status: int, code: str) -> None:
    """Who can't pay is answered over HTTP, before anything is accepted."""
    connection = await Connection().run(wrap(never, payer), handshake(**scope))
    start, body = connection.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert dict(start["headers"])[b"x-should-retry"] == b"false"
    assert body["type"] == "websocket.http.response.body"
    assert f'"code":"{code}"' in body["body"].decode()


@pytest.mark.parametrize(("payer", "code"), [(None, 4401), ("nobody", 4402)])
async def test_refused_without_the_extension(wrap: Wrap, payer: str | None, code: int) -> None:
    """A server that can't answer over HTTP is told to close, with a code that says why."""
    connection = await Connection().run(wrap(never, payer), handshake(extensions=None))
    (close,) = connection.sent
    assert (close["type"], close["code"]) == ("websocket.close", code)


async def test_refused_by_whoever_says_who_pays(manager: AsyncCreditManager) -> None:
    """An HTTPException of the account's function is the answer."""

    def account(scope: Scope) -> str:
        raise HTTPException(418, "tea")

    connection = await Connection().run(MeteringMiddleware(never, manager=manager, account=account))
    assert connection.sent[0]["status"] == 418


async def test_accepted(wrap: Wrap, accounts: Accounts) -> None:
    """While a session has done nothing yet, the next response is held for; nothing is charged in the end."""
    held: list[Decimal] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held.append(await accounts.held())
        await saying()(scope, receive, send)

    connection = await Connection().run(wrap(app))
    assert connection.types == ["accept", "close"]
    assert held == [HELD]
    assert await accounts.spent() == 0


# Charges


async def test_each_response(wrap: Wrap, accounts: Accounts) -> None:
    """Each response is charged what it reports, before its last event goes out, and the next one is held for."""
    seen: list[tuple[Decimal, Decimal]] = []
    connection = Connection()
    send = connection.send

    async def watched(message: Message) -> None:
        balance = await accounts.manager.get_balance("u1")
        seen.append((FUNDS - balance.balance, balance.held))
        await send(message)

    connection.send = watched  # type: ignore[method-assign]
    events = [created(), done((10, 20)), created("resp_2"), done((40, 5), "resp_2")]
    await connection.run(wrap(saying(*events)))
    assert connection.events == events
    # accepted, created, done, created, done, closed: what was charged, and held, when it went out
    first, both = Decimal("0.21"), Decimal("0.3")
    assert seen == [(0, HELD), (0, HELD), (first, 0), (first, HELD), (both, 0), (both, HELD)]
    assert await accounts.spent() == both
    assert [totals(cause) for cause in settles(accounts)] == [[("voice", 10, 20)], [("voice", 40, 5)]]


async def test_once(wrap: Wrap, accounts: Accounts) -> None:
    """A response that is reported twice is charged once."""
    await Connection().run(wrap(saying(created(), done(), done(), done((10, 20), "resp_2"))))
    assert await accounts.spent() == Decimal("0.42")


async def test_bytes(wrap: Wrap, accounts: Accounts) -> None:
    """Events that are sent as bytes are read like text."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": text_message(done())["text"].encode()})

    await Connection().run(wrap(app))
    assert await accounts.spent() == Decimal("0.21")


async def test_a_session_that_grows(wrap: Wrap, accounts: Accounts) -> None:
    """The next response reads what was said before: its hold grows with the session."""
    held: list[Decimal] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send(text_message(done((400, 100))))
        held.append(await accounts.held())

    await Connection().run(wrap(app))
    assert held == [Decimal("0.5") + Decimal("0.1")]


async def test_transcriptions(wrap: Wrap, accounts: Accounts) -> None:
    """A transcription of what was said is charged by its own model, with the response that is under way."""
    seconds = {"type": "duration", "seconds": 2.1}
    await Connection().run(wrap(saying(created(), transcribed(seconds), transcribed(seconds), done())))
    assert await accounts.spent() == Decimal("0.21") + Decimal("1.5")
    (cause,) = settles(accounts)
    assert [usage.model for usage in cause.usages] == ["whisper-1", "voice"]


async def test_a_transcription_by_itself(wrap: Wrap, accounts: Accounts) -> None:
    """Between responses a transcription is charged at once."""
    await Connection().run(wrap(saying(transcribed({"type": "duration", "seconds": 2}), created(), done())))
    assert [[usage.model for usage in cause.usages] for cause in settles(accounts)] == [["whisper-1"], ["voice"]]


async def test_without_a_price(wrap: Wrap, accounts: Accounts) -> None:
    """Usage that has no price costs the hold, never nothing."""
    session = {"audio": {"input": {"transcription": {"model": "dear"}}}}
    events = [{"type": "session.updated", "session": session}, transcribed({"type": "duration", "seconds": 2})]
    await Connection().run(wrap(saying(*events)))
    assert await accounts.spent() == HELD


async def test_who_pays_is_asked_once(manager: AsyncCreditManager, accounts: Accounts) -> None:
    """Whoever pays at the beginning pays for the whole session."""
    payers = iter(["u1"])
    app = MeteringMiddleware(
        saying(created(), done(), created("resp_2"), done((10, 20), "resp_2")),
        manager=manager,
        account=lambda scope: next(payers),
        sockets=[REALTIME_API],
    )
    await Connection().run(app)
    assert await accounts.spent() == Decimal("0.42")


async def test_metered_once(wrap: Wrap, accounts: Accounts) -> None:
    """A session that an outer instance meters is not metered by an inner one."""
    await Connection().run(wrap(wrap(saying(created(), done()))))
    assert await accounts.spent() == Decimal("0.21")


# The money runs out


async def test_the_money_runs_out(wrap: Wrap, accounts: Accounts) -> None:
    """When the next hold is refused, the client gets the response that it paid for, an error event, and code 4402."""
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await send(text_message(created()))
        await send(text_message(done((50, 10))))
        told.append(await receive())
        told.append(await receive())
        with pytest.raises(OSError, match="4402"):
            await send(text_message(created("resp_2")))

    connection = await Connection().run(wrap(app, "poor"))
    assert connection.types == ["accept", "send", "send", "send", "close"]
    error = connection.events[-1]
    assert (error["type"], error["error"]["code"]) == ("error", "insufficient_credits")
    assert error["error"]["available"] == "0.15"
    close = connection.sent[-1]
    assert (close["code"], close["reason"]) == (4402, "insufficient_credits")
    assert [(message["type"], message["code"]) for message in told] == [("websocket.disconnect", 4402)] * 2
    assert (await accounts.manager.get_balance("poor")).balance == Decimal("0.15")
    assert await accounts.held("poor") == 0


async def test_two_sessions_of_one_account(wrap: Wrap, accounts: Accounts) -> None:
    """A second session needs a hold of its own."""
    waiting, going = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.set()
        await going.wait()

    first = asyncio.create_task(Connection().run(wrap(app, "poor")))
    await waiting.wait()
    second = await Connection().run(wrap(never, "poor"))
    assert second.sent[0]["status"] == 402
    going.set()
    await first
    assert await accounts.held("poor") == 0


async def test_tasks_that_send(wrap: Wrap, accounts: Accounts) -> None:
    """Responses that several tasks of an application report at once are charged one by one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.gather(*(send(text_message(done((10, 20), f"resp_{n}"))) for n in range(5)))

    await Connection().run(wrap(app))
    assert await accounts.spent() == 5 * Decimal("0.21")


# Sessions that break off


async def test_the_client_leaves_between_responses(wrap: Wrap, accounts: Accounts) -> None:
    """What was held for the next response is given back."""
    connection = Connection()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await saying(created(), done(), closes=False)(scope, receive, send)

    running = asyncio.create_task(connection.run(wrap(app)))
    await until(lambda: said(connection, "response.done"))
    connection.leave()
    await running
    assert await accounts.spent() == Decimal("0.21")


async def said(connection: Connection, kind: str) -> bool:
    return any(event["type"] == kind for event in connection.events)


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), asyncio.CancelledError()])
async def test_cut_within_a_response(wrap: Wrap, accounts: Accounts, error: BaseException | None) -> None:
    """A response that did not come to its end is counted: what came of it, on top of the context that is known."""
    text = {"type": "response.output_text.delta", "event_id": "e", "response_id": "resp_2", "delta": "x" * 40}
    app = wrap(saying(created(), done((100, 20)), created("resp_2"), text, then=error))
    connection = Connection()
    if error is None:
        await connection.run(app)
    else:
        with pytest.raises(type(error)):
            await connection.run(app)
    assert await accounts.spent() == Decimal("0.3") + 120 * Decimal("0.001") + 10 * Decimal("0.01")
    last = settles(accounts)[-1]
    assert totals(last) == [("voice", 120, 10)]
    assert last.flags == ["interrupted", "usage_counted"]


async def test_a_recogniser_that_fails_at_the_end(wrap: Wrap, accounts: Accounts) -> None:
    """It leaves no hold open, and is nothing that the server sees."""

    class Failing(RealtimeReader):
        def unfinished(self) -> Charge | None:
            raise KeyError("usage")

    class Api(OpenAIRealtime):
        def read_session(self, request: ApiRequest, estimates: Estimates) -> SessionReader:
            return Failing(UsageMetrics(model="voice", input_tokens=100, output_tokens=10), "whisper-1", estimates)

    await Connection().run(wrap(saying(created(), done(), created("resp_2")), sockets=[Api()]))
    assert await accounts.spent() == Decimal("0.21")


async def test_the_client_is_gone_when_its_response_is_done(wrap: Wrap, accounts: Accounts) -> None:
    """The last event of a response is charged even if nobody is there any more to take it."""
    connection = Connection()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send(text_message(created()))
        connection.leave()
        await send(text_message(done()))

    with pytest.raises(OSError, match="left"):
        await connection.run(wrap(app))
    assert await accounts.spent() == Decimal("0.21")


# Which connections


async def test_other_connections_pass(manager: AsyncCreditManager) -> None:
    """A connection that no recogniser knows passes, and nobody is asked who pays."""

    def account(scope: Scope) -> str:
        raise AssertionError("asked")

    connection = await Connection().run(
        MeteringMiddleware(saying(done()), manager=manager, account=account), handshake("/chat")
    )
    assert connection.types == ["accept", "send", "close"]


async def test_however_its_path_is_written(wrap: Wrap, accounts: Accounts) -> None:
    """A connection that an application forwards is metered as it reaches the API."""
    await Connection().run(wrap(saying(created(), done())), handshake("/v1/realtime?x"))
    assert await accounts.spent() == Decimal("0.21")


@pytest.mark.parametrize("choice", ["refuse", "pass"])
async def test_under_a_metered_prefix(wrap: Wrap, choice: str) -> None:
    """Under a metered prefix, one that no recogniser knows is refused, or let pass and counted."""
    counts = MeteringCounts()
    app = wrap(saying(), metered=MeteredRoutes(prefixes=("/v1",), unknown_routes=choice), counts=counts)
    connection = await Connection().run(app, handshake("/v1/live"))
    assert connection.types[0] == ("http.response.start" if choice == "refuse" else "accept")
    assert counts.unknown_routes == {"WEBSOCKET /v1/live": 1}


async def test_a_path_of_ones_own(wrap: Wrap, accounts: Accounts) -> None:
    """An application may speak the API on a path of its own."""
    app = wrap(saying(done()), sockets=[OpenAIRealtime(path_end="/voice", default_model="voice")])
    await Connection().run(app, handshake("/voice", b""))
    assert await accounts.spent() == Decimal("0.21")
    connection = await Connection().run(app, handshake(REALTIME))
    assert connection.types == ["accept", "send", "close"]
    assert await accounts.spent() == Decimal("0.21")


async def test_no_recogniser(manager: AsyncCreditManager) -> None:
    """Something else in place of a recogniser is a mistake in the settings."""
    wrong: Any = ["/realtime"]
    with pytest.raises(ConfigError, match="OpenAIRealtime"):
        MeteringMiddleware(never, manager=manager, account=lambda scope: "u1", sockets=wrong)
