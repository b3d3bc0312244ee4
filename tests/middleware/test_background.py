"""Responses in the background: charged once, by whoever first sees them finished."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from openai.types.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.engine.cause import decode_cause
from ducto_redis.middleware import Estimates, Holds, MeteredRequest, MeteredRoutes, ResponseReader, meter_background
from ducto_redis.middleware.recognisers import OpenAIResponses
from ducto_redis.middleware.recognisers.openai.responses_response import ResponsesReader
from tests.middleware.asgi import answering, call, sending, streaming
from tests.middleware.conftest import FUNDS, Accounts
from tests.middleware.responses import REQUEST, RESPONSES, Events, message, response

BACKGROUND = {**REQUEST, "background": True}
QUEUED = response("queued", None, background=True)
ONE = f"{RESPONSES}/resp_1"
HELD = len(json.dumps(BACKGROUND)) * Decimal("0.001") + 100 * Decimal("0.01")
COST = Decimal("0.21")

Wrap = Callable[..., ASGIApp]


@pytest.fixture
async def started(metered: Wrap, accounts: Accounts) -> Accounts:
    """The response resp_1 runs in the background."""
    await start(metered)
    assert await accounts.held() == HELD
    return accounts


async def start(wrap: Wrap, document: dict[str, Any] = QUEUED, **options: Any) -> None:
    answer = await call(wrap(answering(document), **options), BACKGROUND, path=RESPONSES)
    assert answer.status == 200
    assert json.loads(answer.body) == document


async def poll(wrap: Wrap, document: dict[str, Any], *, cancel: bool = False, **options: Any) -> None:
    path, method = (f"{ONE}/cancel", "POST") if cancel else (ONE, "GET")
    answer = await call(wrap(answering(document), **options), b"", path=path, method=method)
    assert json.loads(answer.body) == document


def operations(accounts: Accounts) -> list[str]:
    return [entry.operation for entry in accounts.journal()][1:]


async def test_held_until_a_poll_shows_it_finished(metered: Wrap, accounts: Accounts) -> None:
    """An answer that says it runs on costs nothing yet and tells what is held; the poll that shows it done charges."""
    answer = await call(metered(answering(QUEUED)), BACKGROUND, path=RESPONSES)
    assert answer.credits == {"x-credits-reserved": f"{HELD:f}"}
    await poll(metered, response("in_progress", None, background=True))
    assert await accounts.held() == HELD
    await poll(metered, response())
    assert await accounts.spent() == COST


async def test_charged_before_it_is_known(metered: Wrap, started: Accounts) -> None:
    """Whoever reads that a response is finished finds it charged."""
    seen: list[str] = []

    def on_send(message: Message) -> None:
        seen.append(operations(started)[-1])

    await call(metered(answering(response())), b"", path=ONE, method="GET", on_send=on_send)
    assert seen == ["renew", "settle"]


@pytest.mark.parametrize(("method", "path"), [("get", ONE), ("GET", f"{ONE}?x"), ("GET", f"{RESPONSES}/x/../resp_1")])
async def test_however_it_is_asked_for(metered: Wrap, started: Accounts, method: str, path: str) -> None:
    """A poll that an application forwards is seen, as it reaches the API."""
    await call(metered(answering(response())), b"", path=path, method=method)
    assert await started.spent() == COST


async def test_charged_once(metered: Wrap, started: Accounts) -> None:
    """However many polls and webhooks see it finished, and however close together: it is charged once."""
    webhook = meter_background(started.manager, response())
    await asyncio.gather(webhook, *(poll(metered, response()) for _ in range(5)))
    await poll(metered, response())
    assert await started.spent() == COST
    assert operations(started) == ["reserve", "renew", "settle"]


async def test_the_first_outcome_stands(metered: Wrap, started: Accounts) -> None:
    """A later poll that reports something else changes nothing, and is answered."""
    await poll(metered, response())
    await poll(metered, response(used=(10_000, 20_000)))
    assert await started.spent() == COST


async def test_the_model_that_was_asked_for_is_priced(metered: Wrap, started: Accounts) -> None:
    """Polls name no model: the charge is for that of the request, with the calls of tools that the response shows."""
    search = {"id": "ws", "type": "web_search_call", "status": "completed", "action": {"type": "search"}}
    await poll(metered, response(output=[search]))
    (usage,) = decode_cause(started.journal()[-1].cause).usages
    assert (usage.model, usage.operation, usage.web_search_calls) == ("m", "chat", 1)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_released(metered: Wrap, started: Accounts, status: str) -> None:
    """A response that failed or was cancelled, and reports no usage, costs nothing."""
    await poll(metered, response(status, None), cancel=status == "cancelled")
    assert await started.spent() == 0
    assert operations(started)[-1] == "release"


@pytest.mark.parametrize("status", ["failed", "cancelled", "incomplete"])
async def test_what_an_unfinished_one_reports_is_charged(metered: Wrap, started: Accounts, status: str) -> None:
    """One that failed, was cancelled or cut, and reports usage, costs that."""
    await poll(metered, response(status, (10, 5)), cancel=status == "cancelled")
    assert await started.spent() == Decimal("0.06")


async def test_cancelled_and_yet_completed(metered: Wrap, started: Accounts) -> None:
    """A response that ran to its end although it was reported as cancelled is charged, once."""
    await poll(metered, response("cancelled", None), cancel=True)
    await asyncio.gather(*(poll(metered, response()) for _ in range(3)))
    assert await started.spent() == COST


async def test_completed_without_usage(metered: Wrap, started: Accounts) -> None:
    """Where the finished response reports none, the request's prompt and all that it delivers are counted."""
    await poll(metered, response("completed", None, output=[message("x" * 40)]))
    prompt = -(-len(json.dumps("hello")) // 4)
    assert await started.spent() == prompt * Decimal("0.001") + 10 * Decimal("0.01")
    assert json.loads(started.journal()[-1].cause)["flags"] == ["usage_counted"]


@pytest.mark.parametrize("end", [True, False])
async def test_a_stream_that_was_cut(metered: Wrap, accounts: Accounts, end: bool) -> None:
    """A response whose stream is lost runs on: nothing is charged until a later stream, from where it was, ends."""
    events = Events(background=True)
    pieces = [*events.start(), events.text("x" * 40)]
    await call(metered(streaming(*pieces, end=end)), {**BACKGROUND, "stream": True}, path=RESPONSES)
    assert await accounts.held() > 0
    rest = [events.text("y"), events.completed()]
    await call(metered(streaming(rest[0], end=end)), b"", path=ONE, method="GET", query_string=b"stream=true")
    assert await accounts.held() > 0
    await call(metered(streaming(*rest, end=end)), b"", path=ONE, method="GET", query_string=b"stream=true")
    assert await accounts.spent() == COST


async def test_a_stream_that_is_taken_up_elsewhere(metered: Wrap, accounts: Accounts) -> None:
    """A stream whose end never comes, for its process was killed, is known from its beginning: others charge it."""
    events = Events(background=True)
    start, killed = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in (*events.start(), events.text("hi")):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        start.set()
        await killed.wait()

    first = asyncio.create_task(call(metered(app), {**BACKGROUND, "stream": True}, path=RESPONSES))
    await start.wait()
    await poll(metered, response())
    assert FUNDS - (await accounts.manager.get_balance("u1")).balance == COST
    killed.set()
    await first
    assert await accounts.spent() == COST


async def test_a_recogniser_that_can_not_name_the_work(metered: Wrap, accounts: Accounts) -> None:
    """Its failure spoils no answer, which is charged as any other."""

    class FailingReader(ResponsesReader):
        @property
        def work_id(self) -> str | None:
            raise KeyError("id")

    class Failing(OpenAIResponses):
        def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
            return FailingReader(request, estimates)

    events = Events(background=True)
    body = b"".join([*events.start(), events.text("hi"), events.completed()])
    app = metered(streaming(body), recognisers=[Failing()])
    answer = await call(app, {**BACKGROUND, "stream": True}, path=RESPONSES)
    assert answer.body == body
    assert await accounts.settled() == COST


async def test_a_stream_to_its_end(metered: Wrap, accounts: Accounts) -> None:
    """A background response whose stream came to its end is charged like any other."""
    events = Events(background=True)
    app = metered(streaming(*events.start(), events.text("hi"), events.completed()))
    await call(app, {**BACKGROUND, "stream": True}, path=RESPONSES)
    assert await accounts.spent() == COST


async def test_nobody_asks(metered: Wrap, accounts: Accounts) -> None:
    """A response that nobody sees finished is held for its own time to live, then expires like any other hold."""
    await start(metered, holds=Holds(background_ttl_seconds=0.001, ttl_seconds=0.001))
    await accounts.manager.sweep()
    assert await accounts.spent() == 0
    assert operations(accounts) == ["reserve", "expire"]


async def test_seen_after_it_expired(metered: Wrap, accounts: Accounts) -> None:
    """A response that is seen finished after its hold expired is charged all the same."""
    await start(metered, holds=Holds(background_ttl_seconds=0.001, ttl_seconds=0.001))
    await accounts.manager.sweep()
    await poll(metered, response())
    assert await accounts.spent() == COST


async def test_polls_of_other_responses_pass(metered: Wrap, manager: AsyncCreditManager) -> None:
    """A poll of a response that nothing waits for passes untouched, nobody is asked who pays, also under a prefix."""

    def account(scope: Scope) -> str:
        raise AssertionError("asked")

    options: dict[str, Any] = {"account": account, "metered": MeteredRoutes(prefixes=("/v1",))}
    await poll(metered, response(), **options)
    await poll(metered, response(), cancel=True, **options)
    assert (await manager.get_balance("u1")).balance == FUNDS


async def test_a_failed_poll(metered: Wrap, started: Accounts) -> None:
    """A poll that is refused, or cut, says nothing about the response."""
    await call(metered(answering({"error": {"message": "gone"}}, status=404)), b"", path=ONE, method="GET")
    with pytest.raises(ValueError, match="midway"):
        await call(metered(sending(b"{", error=ValueError("midway"))), b"", path=ONE, method="GET")
    assert await started.held() == HELD


async def test_whose_client_left(metered: Wrap, started: Accounts) -> None:
    """A poll whose answer no longer reaches its client charges what it shows."""

    def gone(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await call(metered(answering(response())), b"", path=ONE, method="GET", on_send=gone)
    assert await started.spent() == COST


async def test_recorded_beside(metered: Wrap, accounts: Accounts) -> None:
    """What the endpoint recorded itself is charged together with the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["meter"].record(UsageMetrics(model="render", measures={"gpu_seconds": 2}))
        await answering(QUEUED)(scope, receive, send)

    await call(metered(app), BACKGROUND, path=RESPONSES)
    assert await accounts.held() == HELD
    await poll(metered, response())
    assert await accounts.spent() == COST + 1


@pytest.mark.parametrize("as_object", [True, False])
async def test_webhook(started: Accounts, as_object: bool) -> None:
    """A webhook's endpoint charges what the provider's library, or its JSON, shows; who pays is known."""
    manager = started.manager
    assert await meter_background(manager, response("in_progress", None)) is None
    assert await meter_background(manager, response(response_id="resp_2")) is None
    document = response()
    result = await meter_background(manager, Response.construct(**document) if as_object else json.dumps(document))
    assert result is not None
    assert (result.amount, result.account) == (COST, "u1")
    again = await meter_background(manager, document)
    assert again is not None
    assert again.replayed
    assert await started.spent() == COST


async def test_other_asynchronous_work(metered: Wrap, accounts: Accounts) -> None:
    """Any recogniser can leave work open and name it again: ids are its own."""

    class Jobs(OpenAIResponses):
        def continued(self, method: str, path: str) -> str | None:
            return path.rpartition("/")[2] if "/jobs/" in path else None

    options: dict[str, Any] = {"recognisers": [Jobs()]}
    await start(metered, **options)
    await call(metered(answering(response()), **options), b"", path="/v1/jobs/resp_1", method="GET")
    assert await accounts.spent() == COST
