"""Which requests are metered, what they are held, and what a plain answer is charged."""

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, CreditManager, Payer, UsageMetrics
from ducto_redis.errors import ConfigError, StoreError
from ducto_redis.middleware import (
    Charge,
    Disconnects,
    Estimates,
    Holds,
    MeteredRequest,
    MeteredRoutes,
    MeteringMiddleware,
    RequestMeter,
    ResponseReader,
    ServerSentEvent,
    Upstream,
)
from ducto_redis.middleware.recognisers import OpenAIChat
from ducto_redis.middleware.recognisers.openai.chat_response import ChatResponseReader
from tests.middleware.asgi import CHAT_REQUEST, Answer, answering, call, chunk, completion, sending
from tests.middleware.conftest import FUNDS, PRICING, Accounts

Metered = Callable[..., ASGIApp]

# What the recurring request holds: a token per byte, and its 100 tokens of output.
HELD = len(json.dumps(CHAT_REQUEST)) * Decimal("0.001") + 100 * Decimal("0.01")


async def test_a_plain_answer_is_charged_what_it_reports(metered: Metered, accounts: Accounts) -> None:
    """A JSON answer is charged its usage before it goes out, and says what it cost and what is left."""
    document = completion(prompt=10, output=20)
    answer = await call(metered(answering(document)))
    assert answer.status == 200
    assert json.loads(answer.body) == document
    assert answer.credits == {"x-credits-charged": "0.21", "x-credits-remaining": "99.79"}
    assert answer.headers["content-length"] == str(len(answer.body))
    assert await accounts.spent() == Decimal("0.21")


async def test_the_worst_case_is_held_while_the_application_runs(metered: Metered, accounts: Accounts) -> None:
    """Bytes of the prompt and max_tokens are held, under the operation type "chat"."""
    leases = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        leases.extend(await accounts.manager.list_leases("u1"))
        await answering(completion())(scope, receive, send)

    await call(metered(app))
    assert [(lease.amount, lease.operation_type) for lease in leases] == [(HELD, "chat")]


async def test_a_request_that_cannot_be_paid_is_refused(metered: Metered, accounts: Accounts) -> None:
    """402 says what is needed, and the application does not run."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application ran")

    answer = await call(metered(app), {**CHAT_REQUEST, "max_tokens": 20_000})
    assert answer.status == 402
    assert answer.headers["x-should-retry"] == "false"
    assert answer.error["code"] == "insufficient_credits"
    assert answer.error["available"] == "100"
    assert answer.error["held"] == "0"
    assert Decimal(answer.error["needed"]) > 200
    assert await accounts.spent() == 0


async def test_402_names_the_lease_to_wait_for(metered: Metered, manager: AsyncCreditManager) -> None:
    """While another request holds the credits, 402 says how much is held and when the hold expires."""
    lease = await manager.reserve("u1", 99)
    answer = await call(metered(answering(completion())))
    assert answer.status == 402
    assert (answer.error["available"], answer.error["held"]) == ("1", "99")
    assert answer.error["next_expiry"][:19] == lease.expires_at.isoformat()[:19]
    assert answer.error["next_expiry"].endswith("Z")


@pytest.mark.parametrize(
    ("request_body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[1]", 400, "invalid_request"),
        (b'{"max_tokens": -5}', 400, "invalid_request"),
        (b'{"x": "' + b"y" * 5000 + b'"}', 400, "request_too_large"),
        (b'{"model": "unheard-of"}', 400, "model_not_priced"),
        (b'{"model": "m", "max_tokens": 9007199254740000}', 400, "invalid_amount"),
    ],
)
async def test_bad_requests(metered: Metered, accounts: Accounts, request_body: bytes, status: int, code: str) -> None:
    """What is no request of the API is refused in the API's shape; nothing is held."""
    answer = await call(metered(answering(completion()), metered=MeteredRoutes(body_limit=5000)), request_body)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.error["type"] == "invalid_request_error"
    assert await accounts.spent() == 0


async def test_a_body_that_comes_in_pieces(metered: Metered, accounts: Accounts) -> None:
    """The body is read whole, given to the application once, and later messages come from the server."""
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive(), await receive()])
        await answering(completion())(scope, receive, send)

    body = json.dumps(CHAT_REQUEST).encode()
    pieces: list[Message] = [
        {"type": "http.request", "body": body[:7], "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": body[7:]},
    ]
    assert (await call(metered(app), messages=pieces)).status == 200
    assert seen == [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
        {"type": "http.disconnect"},
    ]
    too_large = await call(metered(app, metered=MeteredRoutes(body_limit=len(body) - 1)), messages=pieces)
    assert too_large.error["code"] == "request_too_large"


async def test_a_client_that_leaves_while_it_sends(metered: Metered, accounts: Accounts) -> None:
    """A client that goes before its body is whole costs nothing, and the application does not run."""
    pieces: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    answer = await call(metered(answering(completion())), messages=pieces)
    assert answer.messages == []
    assert (await accounts.manager.get_balance("u1")).seq == 1


async def test_a_declared_length_over_the_limit_is_refused_unread(metered: Metered) -> None:
    """A request that announces too large a body is refused before it is sent."""
    answer = await call(
        metered(answering({}), metered=MeteredRoutes(body_limit=10)), messages=[], headers={"content-length": "11"}
    )
    assert answer.error["code"] == "request_too_large"


async def test_a_compressed_request_is_refused(metered: Metered) -> None:
    """A request body that is compressed can't be read, so it is refused instead of let pass."""
    body = gzip.compress(json.dumps(CHAT_REQUEST).encode())
    answer = await call(metered(answering({})), body, headers={"content-encoding": "gzip"})
    assert (answer.status, answer.error["code"]) == (400, "unsupported_content_encoding")


@pytest.mark.parametrize(
    ("method", "path", "is_metered"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/openai/deployments/x/chat/completions", True),
        ("POST", "/chat/completions/", True),
        ("GET", "/v1/chat/completions", False),
        ("OPTIONS", "/v1/chat/completions", False),
        ("HEAD", "/v1/chat/completions", False),
        ("POST", "/v1/chat/completions/123", False),
        ("POST", "/v1/chat/xcompletions", False),
        ("POST", "/v1/models", False),
        ("POST", "/chat", True),
        ("POST", "/chat/", True),
        ("POST", "/end/", True),
        ("POST", "/end", True),
        ("POST", "/bots/7/chat", True),
        ("POST", "/bots/7/8/chat", False),
        ("GET", "/chat", False),
        ("POST", "/chatter", False),
    ],
)
async def test_which_routes_are_metered(
    metered: Metered, accounts: Accounts, method: str, path: str, is_metered: bool
) -> None:
    """A request is metered where a recogniser matches the end of its path, or `routes` names it; POST alone costs."""
    routes = {"/chat": OpenAIChat(), "/bots/{bot}/chat": OpenAIChat(), "/end/": OpenAIChat()}
    answer = await call(metered(answering(completion()), routes=routes), path=path, method=method)
    assert answer.status == 200
    assert ("x-credits-charged" in answer.headers) is is_metered
    assert (await accounts.spent() > 0) is is_metered


async def test_routes_count_from_the_root_of_a_mounted_application(metered: Metered, accounts: Accounts) -> None:
    """In a mounted application, paths in `routes` are its own."""
    app = metered(answering(completion()), routes={"/chat": OpenAIChat()})
    assert "x-credits-charged" in (await call(app, path="/api/chat", root_path="/api")).headers
    assert "x-credits-charged" not in (await call(app, path="/apix/chat", root_path="/api")).headers


async def test_other_scopes_pass(metered: Metered) -> None:
    """WebSockets and lifespan go to the application as they are."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    for kind in ("lifespan", "websocket"):
        scope = {"type": kind, "path": "/v1/chat/completions"}
        await metered(app)(scope, receive, send)
        assert seen.pop() == (scope, receive, send)
        assert scope == {"type": kind, "path": "/v1/chat/completions"}


async def test_nested_middleware_meters_once(metered: Metered, accounts: Accounts) -> None:
    """A request that an outer instance meters is not metered again."""
    await call(metered(metered(answering(completion()))))
    assert await accounts.spent() == Decimal("0.21")
    await call(metered(metered(answering(completion())), recognisers=()))
    assert await accounts.spent() == Decimal("0.42")


async def test_who_pays(manager: AsyncCreditManager, accounts: Accounts) -> None:
    """`account` may be async, and may name the operation type; it is not asked for routes that cost nothing."""
    asked = []

    async def payer(scope: Scope) -> Payer:
        asked.append(scope["path"])
        return Payer("u1", operation_type="agent")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        leases = await manager.list_leases("u1")
        assert [lease.operation_type for lease in leases] == (["agent"] if asked else [])
        await answering(completion())(scope, receive, send)

    wrapped = MeteringMiddleware(app, manager=manager, account=payer)
    await call(wrapped, path="/health")
    assert asked == []
    await call(wrapped)
    assert asked == ["/v1/chat/completions"]
    assert await accounts.spent() == Decimal("0.21")


async def test_nobody_pays(metered: Metered) -> None:
    """Where nobody pays, the answer is 401 in the API's shape."""
    answer = await call(metered(answering(completion())), headers={"x-account": "nobody"})
    assert (answer.status, answer.error["code"]) == (401, "no_account")
    assert answer.error["type"] == "authentication_error"


@pytest.mark.parametrize("account", ["", "x" * 257, "two\nlines", "@ducto"])
async def test_an_account_that_cannot_exist(manager: AsyncCreditManager, account: str) -> None:
    """An id that is none, such as an empty header, is nobody's: 401."""
    for payer in (account, Payer(account)):
        app = MeteringMiddleware(answering(completion()), manager=manager, account=lambda scope, payer=payer: payer)
        answer = await call(app)
        assert (answer.status, answer.error["code"]) == (401, "no_account")


@pytest.mark.parametrize(
    ("member", "feature", "status", "code"),
    [
        ("ann", "chat", 200, None),
        ("ann", None, 200, None),
        ("ann", "agentic", 403, "feature_not_entitled"),
        ("bob", "chat", 403, "member_not_found"),
        ("", "chat", 401, "no_account"),
        ("dora", "chat", 429, "spend_cap_reached"),
    ],
)
async def test_members_and_features(
    manager: AsyncCreditManager,
    accounts: Accounts,
    member: str,
    feature: str | None,
    status: int,
    code: str | None,
) -> None:
    """A Payer may name who spends of a team, and the feature that the team's plan must have."""
    await manager.publish_pricing({**PRICING, "plans": {"pro": {"features": {"chat": True}}}})
    await manager.create_team("acme", owner="ann")
    await manager.add_team_member("acme", "dora")
    await manager.set_spend_cap("acme", "0.1", window="day", member="dora")
    await manager.set_user_plan("acme", "pro")
    await manager.add_credits("acme", FUNDS)
    payer = Payer("acme", member=member, required_feature=feature)
    answer = await call(MeteringMiddleware(answering(completion()), manager=manager, account=lambda scope: payer))
    assert answer.status == status
    if code is not None:
        assert answer.error["code"] == code
    team = await manager.get_team("acme")
    spent = Decimal("0.21") if status == 200 else Decimal(0)
    assert {each.user: each.spent for each in team.members} == {"ann": spent, "dora": 0}
    assert await accounts.spent("acme") == spent


async def test_errors_of_the_server_are_logged(manager: AsyncCreditManager, caplog: pytest.LogCaptureFixture) -> None:
    """What the client can't correct is answered without details, which go to the log."""
    app: Any = MeteringMiddleware(answering(completion()), manager=manager, account=lambda scope: 5)  # type: ignore[arg-type, return-value]
    answer = await call(app)
    assert (answer.status, answer.error["code"]) == (500, "config_error")
    assert "account must return an id" in caplog.text
    assert "account must return" not in answer.error["message"]


async def test_account_may_refuse_in_its_own_words(manager: AsyncCreditManager) -> None:
    """An HTTPException from `account` is answered with its status and headers, in the API's shape.

    Whether to try again is not said: clients know what the status means.
    """
    detail: list[Any] = ["blocked"]

    def account(scope: Scope) -> str:
        raise HTTPException(403, detail[0], headers={"WWW-Authenticate": "Bearer"})

    answer = await call(MeteringMiddleware(answering(completion()), manager=manager, account=account))
    assert (answer.status, answer.error["message"]) == (403, "blocked")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "x-should-retry" not in answer.headers
    detail[0] = {"reason": "blocked"}  # as FastAPI allows
    answer = await call(MeteringMiddleware(answering(completion()), manager=manager, account=account))
    assert (answer.status, answer.error["message"]) == (403, '{"reason":"blocked"}')


async def test_an_error_answer_costs_nothing(metered: Metered, accounts: Accounts) -> None:
    """Status 300 and above releases the hold before the client sees the end of the answer, which passes as it is."""
    for status in (307, 400, 404, 429, 500):
        answer = await call(metered(answering({"error": {"message": "x"}}, status)))
        assert answer.status == status
        assert answer.credits == {}
        assert await accounts.spent() == 0


async def test_the_hold_is_released_before_an_error_ends(metered: Metered, accounts: Accounts) -> None:
    """Whoever sees an error and tries again at once must not be refused for the hold of the failed request."""
    balances = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.body":
                balances.append(await accounts.held())
            await send(message)

        await metered_app(scope, receive, watched)

    metered_app = metered(answering({"error": {}}, 503))
    await call(app)
    assert balances == [0]


async def test_an_application_that_fails_costs_nothing(metered: Metered, accounts: Accounts) -> None:
    """An exception before the answer, and no answer at all, release the hold."""

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    with pytest.raises(ZeroDivisionError):
        await call(metered(raising))
    assert await accounts.spent() == 0
    assert (await call(metered(silent))).messages == []
    assert await accounts.spent() == 0


async def test_a_json_answer_in_pieces_is_held_back(metered: Metered, accounts: Accounts) -> None:
    """A JSON answer goes out once it is whole and charged; its messages stay as they were."""
    body = json.dumps(completion(prompt=10, output=20)).encode()
    answer = await call(metered(sending(body[:9], body[9:])))
    assert [message.get("body") for message in answer.messages[1:]] == [body[:9], body[9:], b""]
    assert answer.credits["x-credits-charged"] == "0.21"


async def test_a_large_json_answer_passes_as_it_comes(metered: Metered, accounts: Accounts) -> None:
    """From the limit on a JSON answer is not held back: it says what is reserved, and is charged the same."""
    body = json.dumps(completion(prompt=10, output=20, text="x" * 3 * 2**20)).encode()
    pieces = [body[i : i + 2**18] for i in range(0, len(body), 2**18)]
    seen_by_then = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            await send(message)
            seen_by_then.append(len(answer.messages))

        await sending(*pieces)(scope, receive, watched)

    answer = Answer()
    await call(metered(app), answer=answer)
    assert seen_by_then[:7] == [0, 0, 0, 0, 0, 6, 7]
    assert answer.body == body
    assert answer.credits == {"x-credits-reserved": f"{HELD.normalize()}"}
    assert await accounts.spent() == Decimal("0.21")
    answer = await call(metered(sending(body)))
    assert "x-credits-reserved" in answer.headers
    assert await accounts.spent() == Decimal("0.42")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_read_and_left_as_it_is(
    metered: Metered, accounts: Accounts, encoding: str
) -> None:
    """Compression inside of the metering is undone for reading only."""
    import zlib

    plain = json.dumps(completion(prompt=10, output=20)).encode()
    body = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)
    answer = await call(metered(sending(body, headers=[(b"content-encoding", encoding.encode())])))
    assert answer.body == body
    assert await accounts.spent() == Decimal("0.21")


async def test_an_answer_that_cannot_be_read_is_not_free(metered: Metered, accounts: Accounts) -> None:
    """An unknown Content-Encoding is charged by its bytes."""
    await call(metered(sending(b"\x00" * 50, headers=[(b"content-encoding", b"br")])))
    assert await accounts.spent() > Decimal("0.5")


async def test_usage_that_has_no_price_is_charged_the_hold(
    metered: Metered, accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a formula fails for what was used, the hold is charged and logged: work is never free by accident."""
    body = {**CHAT_REQUEST, "model": "divided"}
    answer = await call(metered(answering(completion(output=0))), body)
    held = len(json.dumps(body)) * Decimal("0.001") + Decimal("0.01")
    assert answer.status == 200
    assert Decimal(answer.headers["x-credits-charged"]) == held
    assert await accounts.spent() == held
    assert "charged its whole hold" in caplog.text


@pytest.mark.parametrize("fails_in", ["document", "event", "charge"])
async def test_a_recogniser_that_fails_spoils_no_answer(
    metered: Metered, accounts: Accounts, caplog: pytest.LogCaptureFixture, fails_in: str
) -> None:
    """An error in a recogniser leaves the answer as it is; the worst case is charged, and the error logged."""

    class BrokenReader(ResponseReader):
        def document(self, body: bytes) -> None:
            assert fails_in != "document"

        def event(self, event: ServerSentEvent) -> None:
            assert fails_in != "event"

        def charge(self, *, complete: bool) -> Charge | None:
            raise AssertionError

    class Broken(OpenAIChat):
        def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
            return BrokenReader()

    body = chunk("hello") if fails_in == "event" else b"{}"
    answer = await call(metered(sending(body), recognisers=[Broken()]))
    assert answer.body == body
    assert await accounts.spent() == HELD
    assert "the recogniser failed" in caplog.text


async def test_a_recogniser_whose_charge_is_none(metered: Metered, accounts: Accounts) -> None:
    """What is no charge is charged the worst case as well; the hold does not stay open."""

    class WrongReader(ChatResponseReader):
        def charge(self, *, complete: bool) -> Any:
            return UsageMetrics(model="m", output_tokens=1)

    class Wrong(OpenAIChat):
        def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
            return WrongReader(request, estimates)

    assert (await call(metered(answering(completion()), recognisers=[Wrong()]))).status == 200
    assert await accounts.spent() == HELD


async def test_a_free_model(metered: Metered, accounts: Accounts) -> None:
    """A model whose formula gives 0 is admitted, and charged 0."""
    answer = await call(metered(answering(completion())), {**CHAT_REQUEST, "model": "free"})
    assert answer.headers["x-credits-charged"] == "0"
    assert await accounts.spent() == 0


async def test_unknown_messages_pass(metered: Metered, accounts: Accounts) -> None:
    """Trailers and messages of other extensions pass in their order, and held messages before them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = json.dumps(completion()).encode()
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.push", "path": "/x"})
        await send({"type": "http.response.body", "body": body[5:]})
        await send({"type": "http.response.trailers", "headers": []})

    answer = await call(metered(app))
    kinds = [message["type"].rpartition(".")[2] for message in answer.messages]
    assert kinds == ["debug", "start", "body", "push", "body", "trailers"]
    assert await accounts.spent() == Decimal("0.21")


async def test_headers_of_the_application_do_not_contradict(metered: Metered) -> None:
    """x-credits headers that the application passed on from elsewhere are replaced."""
    body = json.dumps(completion()).encode()
    answer = await call(metered(sending(body, headers=[(b"x-credits-charged", b"999")])))
    values = [value for name, value in answer.messages[0]["headers"] if name.lower() == b"x-credits-charged"]
    assert values == [b"0.21"]


async def test_the_endpoint_adds_to_the_charge(metered: Metered, accounts: Accounts) -> None:
    """In a metered route request.state.meter is open: what the endpoint records is charged beside the answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        meter: RequestMeter = scope["state"]["meter"]
        assert meter.lease is not None
        meter.record(UsageMetrics(model="render", measures={"gpu_seconds": 3}))
        with pytest.raises(RuntimeError, match="open already"):
            await meter.reserve(1)
        await answering(completion(), status)(scope, receive, send)
        with pytest.raises(StoreError, match="closed"):
            meter.record(UsageMetrics(model="render"))

    status = 200
    await call(metered(app))
    assert await accounts.spent() == Decimal("1.71")
    status = 500
    await call(metered(app))
    assert await accounts.spent() == Decimal("3.21")


def test_settings_are_checked() -> None:
    """A wrong setting is an error when its group is made."""
    wrong: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (Holds, {"strategy": "half"}),
        (Holds, {"step_tokens": 0}),
        (Holds, {"min_output_tokens": 1.5}),
        (Holds, {"on_short": "lower"}),
        (Holds, {"learned": "yes"}),
        (Holds, {"on_unavailable": "panic"}),
        (Holds, {"on_unavailable": "allow"}),
        (Holds, {"grace": 5}),
        (Holds, {"ttl_seconds": 0}),
        (Holds, {"background_ttl_seconds": 0}),
        (Disconnects, {"on_disconnect": "wait"}),
        (Disconnects, {"hidden_reasoning": "cut"}),
        (Disconnects, {"drain_seconds": 0}),
        (Disconnects, {"drain_seconds": float("inf")}),
        (Disconnects, {"drain_seconds": "60"}),
        (MeteredRoutes, {"body_limit": -1}),
        (MeteredRoutes, {"hold_json_up_to": 1.5}),
        (MeteredRoutes, {"unknown_routes": "allow"}),
        (MeteredRoutes, {"prefixes": "/v1"}),
        (MeteredRoutes, {"prefixes": ["v1"]}),
        (Upstream, {"default_max_tokens": 0}),
        (Upstream, {"max_tokens_ceiling": True}),
    ]
    for group, settings in wrong:
        with pytest.raises(ConfigError):
            group(**settings)


async def test_arguments_are_checked(manager: AsyncCreditManager) -> None:
    """A wrong argument is an error when the middleware is made, not in the first request."""
    wrong: list[dict[str, Any]] = [
        {"manager": CreditManager.from_url("memory://")},
        {"account": "u1"},
        {"counts": {}},
        {"holds": "incremental"},
        {"upstream": Holds()},
        {"routes": {"chat": OpenAIChat()}},
        {"routes": {"/chat": OpenAIChat}},
        {"recognisers": [OpenAIChat]},
    ]
    for options in wrong:
        with pytest.raises(ConfigError):
            MeteringMiddleware(answering({}), **{"manager": manager, "account": lambda scope: "u1", **options})
    for options in ({"image_tokens": -1}, {"file_tokens": 1.5}):
        with pytest.raises(ConfigError):
            OpenAIChat(**options)


async def test_single_settings(metered: Metered) -> None:
    """Settings given one by one, as before there were groups, work for one release and say where they are."""
    with pytest.warns(
        DeprecationWarning, match=r"MeteringMiddleware\(body_limit=\) .* metered=MeteredRoutes\(body_limit=\)"
    ):
        app = metered(answering(completion()), body_limit=10)
    assert (await call(app)).error["code"] == "request_too_large"
    with pytest.warns(DeprecationWarning, match=r"idempotency=IdempotencyKeys\(on_repeat=\)"):
        app = metered(answering(completion()), idempotency="conflict")
    headers = {"idempotency-key": "k1"}
    assert [(await call(app, headers=headers)).status for _ in range(2)] == [200, 409]
    with (
        pytest.warns(DeprecationWarning, match=r"holds=Holds\((grace|on_unavailable)=\)"),
        pytest.raises(ConfigError, match="grace"),
    ):
        metered(answering({}), on_unavailable="allow")
    with pytest.raises(TypeError, match="'on_disconnects'"):
        metered(answering({}), on_disconnects="cut")
