"""Which API a request belongs to, and what becomes of those that belong to none."""

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import UsageMetrics
from ducto_redis.middleware import MeteredRoutes, MeteringCounts
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.recognisers import DEFAULT_RECOGNISERS, AnthropicMessages, OpenAIChat, Recogniser
from ducto_redis.middleware.recognisers.free import FreeRecogniser
from ducto_redis.middleware.routing import Routes
from tests.middleware.asgi import CHAT_REQUEST, answering, call, completion, scope
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]


class Free(FreeRecogniser):
    path_end = "/count"


def found(routes: Routes, path: str, method: str = "POST", **more: Any) -> Recogniser | None:
    return routes.find(api_request(scope(path, method, **more)))


def test_the_first_that_matches() -> None:
    """`routes` come first, then recognisers in their order; each with its own methods; and the answer is remembered."""
    first, second, own = OpenAIChat(), OpenAIChat(), OpenAIChat()
    routes = Routes({"/own/{id}": own}, [first, second])
    for _ in range(2):
        assert found(routes, "/v1/chat/completions") is first
        assert found(routes, "/v1/chat/completions", "GET") is None
        assert found(routes, "/own/1") is own
        assert found(routes, "/api/own/2", root_path="/api") is own
        assert found(routes, "/api/own/2") is None
        assert found(routes, "/own/" + "x" * 1000) is own


def test_asked_once_for_each_path() -> None:
    """Twenty recognisers cost a known path nothing: they are asked once. What is remembered is bounded."""
    asked = []

    class Asked(OpenAIChat):
        def matches(self, path: str) -> bool:
            asked.append(path)
            return super().matches(path)

    routes = Routes({}, [Asked()])
    for _ in range(5):
        found(routes, "/a/chat/completions")
    assert asked == ["/a/chat/completions"]
    for number in range(3000):
        found(routes, f"/{number}")
    assert routes._remembered.cache_info().currsize <= 1024


def test_default_recognisers_do_not_take_each_others_paths() -> None:
    """Each API's own path is recognised as its own, whatever stands before it in the list."""
    routes = Routes({}, DEFAULT_RECOGNISERS)
    for recogniser in DEFAULT_RECOGNISERS:
        if recogniser.path_end and recogniser.matches(f"/v1{recogniser.path_end}"):
            assert found(routes, f"/v1{recogniser.path_end}") is recogniser


async def test_free_routes_pass_untouched(metered: Metered, accounts: Accounts) -> None:
    """A free request is not read, nothing is held, nobody is asked who pays, and it is not unknown."""
    counts = MeteringCounts()
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await answering({"input_tokens": 5})(scope, receive, send)

    wrapped = metered(app, recognisers=[Free(), OpenAIChat()], metered=MeteredRoutes(prefixes=["/v1"]), counts=counts)
    answer = await call(wrapped, b"no JSON", path="/v1/count", headers={"x-account": "nobody"})
    assert (answer.status, answer.credits) == (200, {})
    assert seen[0]["body"] == b"no JSON"
    assert (await accounts.manager.get_balance("u1")).seq == 1
    assert counts.unknown_routes == {}


async def test_unknown_routes_are_refused(
    metered: Metered, accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    """Under a metered prefix what no recogniser knows is refused, logged once for each path, and counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application ran")

    counts = MeteringCounts()
    wrapped = metered(app, metered=MeteredRoutes(prefixes=("/v1/", "/api")), counts=counts)
    paths = ["/v1/threads/thread_abc123/runs", "/v1/threads/7/runs", "/v1", "/api/generate/2024-01-01"]
    for path in paths:
        answer = await call(wrapped, CHAT_REQUEST, path=path)
        assert (answer.status, answer.error["code"]) == (404, "route_not_metered")
        assert f"POST {path} " in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"
    for method in ("PUT", "PATCH", "COPY"):
        assert (await call(wrapped, path="/v1/files", method=method)).status == 404
    assert counts.unknown_routes == {
        "POST /v1/threads/*/runs": 2,
        "POST /v1": 1,
        "POST /api/generate/*": 1,
        "PUT /v1/files": 1,
        "PATCH /v1/files": 1,
        "COPY /v1/files": 1,
    }
    assert len([record for record in caplog.records if "no recogniser knows" in record.message]) == 6
    assert await accounts.spent() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[(method, "/v1/models") for method in ("GET", "HEAD", "OPTIONS", "DELETE")],
        ("POST", "/v2/threads"),
        ("POST", "/v1x"),
        ("POST", "/health"),
    ],
)
async def test_what_costs_nothing_passes(metered: Metered, method: str, path: str) -> None:
    """GET, HEAD, OPTIONS and DELETE pass under a metered prefix; so does everything beside it."""
    counts = MeteringCounts()
    answer = await call(
        metered(answering({}), metered=MeteredRoutes(prefixes=("/v1",)), counts=counts), path=path, method=method
    )
    assert answer.status == 200
    assert counts.unknown_routes == {}


async def test_unknown_routes_may_pass(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    """With unknown_routes="pass" they pass, and are logged and counted just so."""
    counts = MeteringCounts()
    wrapped = metered(answering({}), metered=MeteredRoutes(prefixes=("/v1",), unknown_routes="pass"), counts=counts)
    for _ in range(3):
        assert (await call(wrapped, path="/v1/new")).status == 200
    assert counts.unknown_routes == {"POST /v1/new": 3}
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "no recogniser knows POST /v1/new, which is let pass without a charge"
    ]


async def test_an_endpoint_that_meters_itself_is_not_unknown(metered: Metered, accounts: Accounts) -> None:
    """Where the endpoint opens the meter itself the request is charged, and so not counted; `routes` can name it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        meter = scope["state"]["meter"]
        await meter.reserve(5)
        meter.record(UsageMetrics(model="render", measures={"gpu_seconds": 1}))
        await answering({})(scope, receive, send)

    counts = MeteringCounts()
    await call(
        metered(app, metered=MeteredRoutes(prefixes=("/v1",), unknown_routes="pass"), counts=counts), path="/v1/render"
    )
    routes = {"/v1/render": FreeRecogniser()}
    await call(metered(app, metered=MeteredRoutes(prefixes=("/v1",)), routes=routes, counts=counts), path="/v1/render")
    assert counts.unknown_routes == {}
    assert await accounts.spent() == Decimal(1)


async def test_the_shape_of_the_nearest_api(metered: Metered) -> None:
    """A refusal has the shape of the API whose paths the unknown one is like."""
    wrapped = metered(
        answering({}), metered=MeteredRoutes(prefixes=("/v1",)), recognisers=[OpenAIChat(), AnthropicMessages()]
    )
    like_anthropic = await call(wrapped, path="/v1/messages/batches")
    assert b'"type":"error"' in like_anthropic.body
    assert like_anthropic.error["type"] == "not_found_error"
    like_openai = await call(wrapped, path="/v1/assistants")
    assert like_openai.error["type"] == "invalid_request_error"


async def test_what_is_counted_is_bounded(metered: Metered) -> None:
    """Made-up paths fill no memory: from the 1,000th on they count as one."""
    counts = MeteringCounts()
    wrapped = metered(answering({}), metered=MeteredRoutes(prefixes=("/v1",), unknown_routes="pass"), counts=counts)
    for number in range(1010):
        word = "".join(chr(ord("a") + int(digit)) for digit in f"{number:04}")
        await call(wrapped, path=f"/v1/{word}")
    assert len(counts.unknown_routes) == 1001
    assert counts.unknown_routes["*"] == 10


async def test_nothing_is_unknown_without_prefixes(metered: Metered) -> None:
    """Without metered prefixes every unknown path passes, as those of an application with other pages must."""
    counts = MeteringCounts()
    assert (await call(metered(answering(completion()), counts=counts), path="/v1/anything")).status == 200
    assert counts.unknown_routes == {}


async def test_prefixes_count_from_the_root_of_a_mounted_application(metered: Metered) -> None:
    """What nobody knows is not free only because the server, or an outer application, puts a path before it."""
    app = metered(answering({}), metered=MeteredRoutes(prefixes=("/v1",)))
    assert (await call(app, path="/api/v1/unknown", root_path="/api")).status == 404
    assert (await call(app, path="/v1/unknown", root_path="/api/")).status == 404
    assert (await call(app, path="/apiv1/v1/unknown", root_path="/api")).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions?x"),
        ("POST", "/v1/chat/completions#x"),
        ("POST", "/v1/chat/x/../completions"),
        ("POST", "/v1/chat/./completions"),
    ],
)
async def test_whatever_reaches_the_api_is_metered(
    metered: Metered, accounts: Accounts, method: str, path: str
) -> None:
    """An application that makes POST of "post", or forwards any path, runs nothing unmetered for that."""
    await call(metered(answering(completion())), CHAT_REQUEST, path=path, method=method)
    assert await accounts.spent() == Decimal("0.21")


async def test_dots_lead_out_of_no_prefix(metered: Metered) -> None:
    """A path that only looks as if it lay elsewhere is under its prefix."""
    app = metered(answering({}), metered=MeteredRoutes(prefixes=("/v1",)))
    assert (await call(app, path="/x/../v1/unknown")).status == 404
