"""request.state.meter in routes that no recogniser knows, and errors that escape from endpoints."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.errors import CapReachedError, CreditError, InsufficientCreditsError
from ducto_redis.middleware import MeteringMiddleware, RequestMeter
from ducto_redis.results import ReserveResult
from tests.middleware.asgi import CHAT, Answer, answering, call, completion
from tests.middleware.conftest import Accounts

CAPPED = CapReachedError(
    "u1",
    cap_id="own-day",
    scope="account",
    window="day",
    limit=Decimal(20),
    used=Decimal(18),
    held=Decimal(0),
    needed=Decimal(5),
)


def seconds(count: int) -> UsageMetrics:
    """Usage that costs half a credit a second."""
    return UsageMetrics(model="render", measures={"gpu_seconds": count})


async def render(request: Request) -> Response:
    meter: RequestMeter = request.state.meter
    assert meter.lease is None
    assert not meter.opened
    lease = await meter.reserve(seconds(30), operation_type="rendering")
    assert lease is not None
    assert meter.lease == lease
    for second in json.loads(await request.body()):
        meter.record(seconds(second))
    assert len(meter.recorded) == len(json.loads(await request.body()))
    return JSONResponse({"amount": str(lease.amount)})


async def render_stream(request: Request) -> Response:
    meter: RequestMeter = request.state.meter
    await meter.reserve(seconds(30))

    async def frames() -> AsyncIterator[bytes]:
        for _ in range(3):
            meter.record(seconds(2))
            yield b"frame"

    return StreamingResponse(frames(), media_type="video/mp4")


async def fail_after_work(request: Request) -> Response:
    await request.state.meter.reserve(seconds(30))
    request.state.meter.record(seconds(4))
    raise ZeroDivisionError


async def fail_before_work(request: Request) -> Response:
    await request.state.meter.reserve(seconds(30))
    raise ZeroDivisionError


async def too_dear(request: Request) -> Response:
    await request.state.meter.reserve(seconds(30_000))
    raise AssertionError("it was admitted")


async def try_less(request: Request) -> Response:
    try:
        await request.state.meter.reserve(seconds(30_000))
    except InsufficientCreditsError:
        await request.state.meter.reserve(seconds(10))
    request.state.meter.record(seconds(10))
    return PlainTextResponse("done")


async def capped(request: Request) -> Response:
    raise CAPPED


async def capped_midway(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        raise CAPPED

    return StreamingResponse(pieces())


async def unopened(request: Request) -> Response:
    request.state.meter.record(seconds(1))
    raise AssertionError("it was recorded")


async def free(request: Request) -> Response:
    return JSONResponse({})


ENDPOINTS = [
    render, render_stream, fail_after_work, fail_before_work, too_dear, try_less, capped, capped_midway, unopened, free,
]  # fmt: skip
ROUTES = [Route(f"/{endpoint.__name__}", endpoint, methods=["POST"]) for endpoint in ENDPOINTS]


@pytest.fixture
def asked() -> list[Scope]:
    """The scopes that `account` was asked for."""
    return []


@pytest.fixture
def app(manager: AsyncCreditManager, asked: list[Scope]) -> ASGIApp:
    def account(scope: Scope) -> str | None:
        asked.append(scope)
        return "u1" if (b"x-account", b"nobody") not in scope["headers"] else None

    app = Starlette(routes=[*ROUTES, Route(CHAT, capped, methods=["POST"])])
    app.add_middleware(MeteringMiddleware, manager=manager, account=account)
    return app


async def test_an_endpoint_opens_its_meter(app: ASGIApp, accounts: Accounts) -> None:
    """What was recorded is charged when the answer ends; a JSON answer says what it cost."""
    answer = await call(app, [4, 6], path="/render")
    assert answer.body == b'{"amount":"15.000000"}'
    assert answer.credits == {"x-credits-charged": "5", "x-credits-remaining": "95"}
    assert await accounts.spent() == 5


async def test_nothing_recorded_is_released(app: ASGIApp, accounts: Accounts) -> None:
    """Without anything recorded the hold is released."""
    answer = await call(app, [], path="/render")
    assert answer.credits == {"x-credits-charged": "0", "x-credits-remaining": "100"}
    assert await accounts.spent() == 0


async def test_a_stream_records_while_it_runs(app: ASGIApp, accounts: Accounts) -> None:
    """A stream passes as it comes, and is charged what its generator recorded."""
    answer = await call(app, [], path="/render_stream")
    assert answer.body == b"frame" * 3
    assert answer.credits == {"x-credits-reserved": "15"}
    assert await accounts.spent() == 3


async def test_work_that_failed_later_is_charged(app: ASGIApp, accounts: Accounts) -> None:
    """What was recorded before an exception is charged; without a record the hold is released."""
    for path, cost in (("/fail_after_work", 2), ("/fail_before_work", 2)):
        with pytest.raises(ZeroDivisionError):
            await call(app, [], path=path)
        assert await accounts.spent() == cost


async def test_an_error_of_the_table_becomes_the_answer(app: ASGIApp, accounts: Accounts) -> None:
    """A CreditError that escapes an endpoint is answered as the table says, in metered routes too."""
    answer = await call(app, [], path="/too_dear")
    assert (answer.status, answer.error["code"], answer.error["needed"]) == (402, "insufficient_credits", "15000")
    for path in ("/capped", CHAT):
        answer = await call(app, path=path)
        assert (answer.status, answer.error["code"]) == (429, "spend_cap_reached")
        assert answer.headers["x-should-retry"] == "false"
    answer = await call(app, [], path="/render", headers={"x-account": "nobody"})
    assert (answer.status, answer.error["code"]) == (401, "no_account")
    assert await accounts.spent() == 0


async def test_an_endpoint_may_ask_for_less(app: ASGIApp, accounts: Accounts) -> None:
    """After a refusal the meter can be opened for another estimate."""
    assert (await call(app, [], path="/try_less")).status == 200
    assert await accounts.spent() == 5


async def test_an_error_in_the_middle_goes_on(app: ASGIApp) -> None:
    """Once an answer has begun it can't become another: the error goes to the server."""
    answer = Answer()
    with pytest.raises(CapReachedError):
        await call(app, [], path="/capped_midway", answer=answer)
    assert answer.status == 200


async def test_an_early_hint_is_not_the_answer(manager: AsyncCreditManager) -> None:
    """What goes out before the answer starts does not keep an error from becoming the answer."""

    async def hint(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        raise CAPPED

    answer = await call(MeteringMiddleware(hint, manager=manager, account=lambda scope: "u1"), path="/other")
    assert [message.get("status") for message in answer.messages] == [None, 429, None]


async def test_a_meter_opens_once(manager: AsyncCreditManager, accounts: Accounts) -> None:
    """Of two holds that are asked for at once, one is opened."""

    async def account(scope: Scope) -> str:
        await asyncio.sleep(0)
        return "u1"

    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        meter: RequestMeter = scope["state"]["meter"]
        results = await asyncio.gather(meter.reserve(1), meter.reserve(2), return_exceptions=True)
        assert [type(result) for result in results] == [ReserveResult, RuntimeError]
        await answering({})(scope, receive, send)

    answer = await call(MeteringMiddleware(twice, manager=manager, account=account), path="/other")
    assert answer.credits == {"x-credits-charged": "0", "x-credits-remaining": "100"}
    assert await accounts.spent() == 0


async def test_a_hold_that_comes_after_the_answer(manager: AsyncCreditManager, accounts: Accounts) -> None:
    """A hold that nobody waited for is released where it comes too late, and none can be opened after the answer."""
    asked, known = asyncio.Event(), asyncio.Event()
    strays: list[asyncio.Task[ReserveResult | None]] = []
    meters: list[RequestMeter] = []

    async def account(scope: Scope) -> str:
        asked.set()
        await known.wait()
        return "u1"

    async def stray(scope: Scope, receive: Receive, send: Send) -> None:
        meters.append(scope["state"]["meter"])
        strays.append(asyncio.create_task(meters[0].reserve(1)))
        await asked.wait()
        await answering({})(scope, receive, send)

    await call(MeteringMiddleware(stray, manager=manager, account=account), path="/other")
    known.set()
    with pytest.raises(RuntimeError, match="ended before"):
        await strays[0]
    with pytest.raises(RuntimeError, match="has ended"):
        await meters[0].reserve(1)
    assert await accounts.settled() == 0
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "release"]


async def test_recording_without_a_hold_is_an_error(app: ASGIApp) -> None:
    """Usage that nothing was held for is not dropped in silence."""
    with pytest.raises(RuntimeError, match="nothing is held"):
        await call(app, [], path="/unopened")


async def test_routes_that_cost_nothing_are_left_alone(app: ASGIApp, asked: list[Scope], accounts: Accounts) -> None:
    """A route whose meter is not opened asks for no account, touches no engine, and passes as it is."""
    answer = await call(app, [], path="/free")
    assert answer.credits == {}
    assert asked == []
    assert [entry.operation for entry in accounts.journal()] == ["add_credits"]


async def test_the_applications_own_handler_comes_first(manager: AsyncCreditManager) -> None:
    """An exception handler for CreditError answers before the table does."""

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("mine", status_code=418)

    middleware = [Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")]
    app = Starlette(routes=ROUTES, middleware=middleware, exception_handlers={CreditError: handler})
    assert (await call(app, [], path="/capped")).status == 418


async def test_compression_around_and_inside(manager: AsyncCreditManager, accounts: Accounts) -> None:
    """GZipMiddleware may stand on either side of the metering."""

    async def chat(request: Request) -> Response:
        return JSONResponse(completion(10, 20, text="x" * 2000))

    metering = Middleware(MeteringMiddleware, manager=manager, account=lambda scope: "u1")
    for middleware in ([metering, Middleware(GZipMiddleware)], [Middleware(GZipMiddleware), metering]):
        app = Starlette(routes=[Route(CHAT, chat, methods=["POST"])], middleware=middleware)
        answer = await call(app, headers={"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-credits-charged"] == "0.21"
        assert answer.headers["content-length"] == str(len(answer.body))
    assert await accounts.spent() == Decimal("0.42")
