"""Requests that an account can't pay whole: refused with what would pass, or lowered to it."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, Payer, UsageMetrics
from ducto_redis.errors import ConfigError
from ducto_redis.middleware import ApiRequest, Holds, MeteredRequest, Upstream
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import CHAT_REQUEST, Answer, answering, call, chunk, completion, streaming, usage_chunk
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]


class Model:
    """An application that keeps the bodies it gets."""

    def __init__(self, answer: ASGIApp) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.bodies.append(json.loads(message["body"]))

        async def read() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._answer(scope, read, send)


@pytest.fixture
def model() -> Model:
    return Model(answering(completion(10, 20)))


def body(max_tokens: int | None = 100_000, **more: Any) -> dict[str, Any]:
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    return {"model": "m", "messages": CHAT_REQUEST["messages"], **limit, **more}


def as_account(account: str) -> dict[str, Any]:
    return {"headers": {"x-account": account}}


async def assert_is_largest(app: ASGIApp, refused: Answer, account: str = "u1", **more: Any) -> int:
    """Whoever asks for what the refusal names gets it, and is refused one token more. Returns the limit."""
    limit = int(refused.error["max_tokens"])
    # The body is one of the same length: a token of prompt is held for each of its bytes.
    padded = json.dumps(body(limit, **more)).ljust(len(json.dumps(body(**more))))
    more_padded = json.dumps(body(limit + 1, **more)).ljust(len(json.dumps(body(**more))))
    assert (await call(app, more_padded.encode(), **as_account(account))).status in (402, 429)
    assert (await call(app, padded.encode(), **as_account(account))).status == 200
    return limit


async def test_a_refusal_names_the_largest_limit(metered: Metered, model: Model) -> None:
    """A request with that limit passes, and with one token more does not; it names what binds, too."""
    app = metered(model)
    refused = await call(app, body())
    assert (refused.status, refused.error["limit_name"]) == (402, "balance")
    assert await assert_is_largest(app, refused) == 9991
    assert len(model.bodies) == 1


async def test_several_answers_share_it(metered: Metered, model: Model) -> None:
    """With n answers the limit is that of each."""
    app = metered(model)
    assert await assert_is_largest(app, await call(app, body(n=3)), n=3) == 3330


async def test_even_the_prompt_is_too_dear(metered: Metered, manager: AsyncCreditManager) -> None:
    """0 says that no limit would help."""
    await manager.add_credits("poor", "0.01")
    refused = await call(metered(answering(completion())), body(), **as_account("poor"))
    assert (refused.status, refused.error["max_tokens"]) == (402, "0")


async def test_the_allowance_and_rates_of_a_plan_count(
    manager: AsyncCreditManager, metered: Metered, model: Model
) -> None:
    """What the plan gives, and its own prices, are in the limit."""
    plan = {"free_allowance": 3, "rate_overrides": {"m": "input_tokens * 0.001 + output_tokens * 0.02"}}
    document = {"models": {"m": "input_tokens * 0.001 + output_tokens * 0.01"}, "plans": {"dear": plan}}
    await manager.publish_pricing(document)
    await manager.set_user_plan("planned", "dear")
    await manager.add_credits("planned", 1)
    app = metered(model)
    refused = await call(app, body(), **as_account("planned"))
    assert (refused.error["available"], refused.error["allowance"]) == ("1", "3")
    assert datetime.fromisoformat(refused.error["allowance_ends"]) > datetime.now(UTC)
    assert await assert_is_largest(app, refused, "planned") == 195


async def test_the_floor_counts(manager: AsyncCreditManager, metered: Metered, model: Model) -> None:
    """An overdraft is in the limit, and names itself; so does a balance that must stay."""
    models = {"m": "input_tokens * 0.001 + output_tokens * 0.01"}
    plan = {"default_billing_mode": "overdraft", "overdraft_floor": -2}
    await manager.publish_pricing({"models": models, "plans": {"deep": plan}, "min_balance": 1})
    await manager.set_user_plan("deep", "deep")
    await manager.add_credits("deep", 1)
    await manager.add_credits("plain", 3)
    app = metered(model)
    for account, name, limit in (("deep", "overdraft_floor", 291), ("plain", "min_balance", 191)):
        refused = await call(app, body(), **as_account(account))
        assert refused.error["limit_name"] == name
        assert await assert_is_largest(app, refused, account) == limit


@pytest.mark.parametrize(("cap", "balance", "limit"), [(5, 100, 491), (5, 2, 191), (300, 100, 9991)])
async def test_caps_and_the_balance(
    cap: int, balance: int, limit: int, manager: AsyncCreditManager, metered: Metered, model: Model
) -> None:
    """The limit passes all spend caps and the balance, whichever refused first."""
    await manager.add_credits("capped", balance)
    await manager.set_spend_cap("capped", cap, window="day")
    await manager.set_spend_cap("capped", cap + 1, window="month", model="m")
    app = metered(model)
    refused = await call(app, body(), **as_account("capped"))
    assert (refused.status, refused.error["scope"]) == (429, "account")
    assert refused.error["available"] == str(cap)
    assert await assert_is_largest(app, refused, "capped") == limit


async def test_what_has_no_output_has_no_limit(metered: Metered) -> None:
    """A request whose hold no limit bounds is refused without one."""

    class Embeddings(OpenAIChat):
        def read_request(self, request: ApiRequest, estimates: Any) -> MeteredRequest:
            return MeteredRequest(UsageMetrics(model="m", input_tokens=10**9))

    refused = await call(metered(answering(completion()), recognisers=[Embeddings()]))
    assert refused.status == 402
    assert "max_tokens" not in refused.error


async def test_clamped(metered: Metered, model: Model, accounts: Accounts) -> None:
    """The application gets the largest limit that can be paid, exactly that is held, and the answer says so."""
    counts = MeteringCounts()
    app = metered(model, holds=Holds(on_short="clamp"), counts=counts)
    answer = await call(app, body())
    assert answer.status == 200
    assert answer.headers["x-credits-max-tokens"] == "9991"
    assert model.bodies == [body(9991)]
    assert await accounts.spent() == Decimal("0.21")
    reserved = accounts.journal()[1]
    assert 0 <= 100_000_000 - reserved.amount < 10_000
    assert counts.clamped == 1


async def test_what_can_be_paid_is_not_lowered(metered: Metered, model: Model) -> None:
    """Where there is enough, nothing is changed, and nothing said."""
    answer = await call(metered(model, holds=Holds(on_short="clamp")), body(50))
    assert "x-credits-max-tokens" not in answer.headers
    assert model.bodies == [body(50)]


async def test_a_clamped_stream(metered: Metered, accounts: Accounts) -> None:
    """Streams are lowered alike, and one without a limit of its own gets one."""
    model = Model(streaming(chunk("a"), usage_chunk(10, 20)))
    app = metered(model, holds=Holds(on_short="clamp"), upstream=Upstream(default_max_tokens=50_000))
    answer = await call(app, body(None, stream=True))
    limit = int(answer.headers["x-credits-max-tokens"])
    assert 9980 < limit < 9999
    sent = model.bodies[0]
    assert limit in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    assert await accounts.settled() == Decimal("0.21")


async def test_several_answers_are_clamped(metered: Metered, model: Model) -> None:
    """Each of n answers gets its share."""
    assert (await call(metered(model, holds=Holds(on_short="clamp")), body(n=4))).headers[
        "x-credits-max-tokens"
    ] == "2497"


async def test_too_little_is_refused(metered: Metered, model: Model, manager: AsyncCreditManager) -> None:
    """With less than the least output it is refused, and the refusal names what there is."""
    await manager.add_credits("poor", "0.29")
    refused = await call(
        metered(model, holds=Holds(on_short="clamp", min_output_tokens=21)), body(), **as_account("poor")
    )
    assert (refused.status, refused.error["max_tokens"]) == (402, "20")
    answer = await call(
        metered(model, holds=Holds(on_short="clamp", min_output_tokens=20)), body(), **as_account("poor")
    )
    assert (answer.status, answer.headers["x-credits-max-tokens"]) == (200, "20")


async def test_a_clamp_passes_caps(metered: Metered, model: Model, manager: AsyncCreditManager) -> None:
    """It is lowered to the tightest of all limits: a cap, another one, the balance."""
    await manager.add_credits("capped", 2)
    await manager.set_spend_cap("capped", 5, window="day")
    await manager.set_spend_cap("capped", 3, window="month", model="m")
    answer = await call(metered(model, holds=Holds(on_short="clamp")), body(), **as_account("capped"))
    assert answer.headers["x-credits-max-tokens"] == "191"


async def test_whoever_comes_between(metered: Metered, model: Model, manager: AsyncCreditManager) -> None:
    """What others take between pricing and holding lowers it again, a few times; then it is refused."""
    taken = 0
    reserve = manager.store.reserve

    async def others_first(account: str, *args: Any, **options: Any) -> Any:
        nonlocal taken
        if taken < times:
            taken += 1
            await manager.deduct(account, 1)
        return await reserve(account, *args, **options)

    manager.store.reserve = others_first  # type: ignore[method-assign]
    times = 3
    answer = await call(metered(model, holds=Holds(on_short="clamp")), body())
    assert (answer.status, answer.headers["x-credits-max-tokens"]) == (200, "9691")
    times = 1000
    refused = await call(metered(model, holds=Holds(on_short="clamp")), body())
    assert refused.status == 402
    assert taken < 15


async def test_a_recogniser_that_lowers_nothing(metered: Metered, model: Model) -> None:
    """A limit that does not reach the application would not hold: the request is refused."""

    class Stubborn(OpenAIChat):
        def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
            return body

    refused = await call(metered(model, holds=Holds(on_short="clamp"), recognisers=[Stubborn()]), body())
    assert (refused.status, model.bodies) == (402, [])
    assert refused.error["max_tokens"] == "9991"


async def test_refusals_of_members(metered: Metered, model: Model, manager: AsyncCreditManager) -> None:
    """The limit of a member passes the member's own cap."""
    await manager.create_team("team", "Team")
    await manager.add_team_member("team", "ana")
    await manager.add_credits("team", 100)
    await manager.set_spend_cap("team", 4, window="day", member="ana")
    app = metered(model, account=lambda scope: Payer("team", member="ana"))
    refused = await call(app, body())
    assert (refused.status, refused.error["scope"], refused.error["max_tokens"]) == (429, "member", "391")


async def test_an_explanation_that_fails_changes_no_refusal(
    metered: Metered, model: Model, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine can't say what would pass, the refusal stays what it is."""
    await manager.add_credits("capped", 100)
    await manager.set_spend_cap("capped", 5, window="day")

    async def away(*args: Any, **options: Any) -> None:
        raise ConfigError("no")

    monkeypatch.setattr(manager, "check_affordable", away)
    refused = await call(metered(model), body(), **as_account("capped"))
    assert (refused.status, refused.error["code"]) == (429, "spend_cap_reached")
    assert "max_tokens" not in refused.error


@pytest.mark.parametrize(
    "options",
    [
        {"on_short": "lower"},
        {"strategy": "little"},
        {"step_tokens": 0},
        {"min_output_tokens": 1.5},
        {"learned": 0.99},
    ],
)
def test_wrong_settings(options: dict[str, Any]) -> None:
    """Settings that are none are told when they are made."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        Holds(**options)


async def test_the_accuracy_of_holds(metered: Metered) -> None:
    """Counted is what was held and what of it was used, for whoever wants to see it."""
    counts = MeteringCounts()
    app = metered(answering(completion(10, 20)), counts=counts)
    await call(app, body(100))
    await call(app, body(40))
    assert counts.holds.used == Decimal("0.42")
    assert Decimal("1.5") < counts.holds.held < Decimal("1.7")
    assert counts.holds.shares == [0, 0, 1, 1, 0, 0, 0, 0]
    counts.unknown_routes['POST /v1/"x"\\'] = 3
    families = {family.name: family for family in text_string_to_metric_families(counts.as_prometheus())}
    shares = families["ducto_hold_used_share"]
    assert shares.type == "histogram"
    assert [sample.value for sample in shares.samples] == [0, 0, 1, 2, 2, 2, 2, 2, counts.holds.shares_added, 2]
    assert families["ducto_hold_used_credits"].samples[0].value == 0.42
    (unknown,) = families["ducto_metering_unknown_routes"].samples
    assert (unknown.labels, unknown.value) == ({"route": 'POST /v1/"x"\\'}, 3)


async def test_lowered_requests_that_race(metered: Metered, manager: AsyncCreditManager, accounts: Accounts) -> None:
    """Each may use all of its limit: together they never cost more than there was."""

    async def all_of_it(scope: Scope, receive: Receive, send: Send) -> None:
        limit = json.loads((await receive())["body"])["max_tokens"]
        await asyncio.sleep(0)
        await answering(completion(10, limit))(scope, receive, send)

    await manager.add_credits("racers", 5)
    app = metered(all_of_it, holds=Holds(on_short="clamp", min_output_tokens=2))
    answers = await asyncio.gather(*(call(app, body(150), **as_account("racers")) for _ in range(15)))
    lowered = [
        int(answer.headers["x-credits-max-tokens"]) for answer in answers if "x-credits-max-tokens" in answer.headers
    ]
    assert lowered
    assert max(lowered) < 150
    assert {answer.status for answer in answers} == {200, 402}
    balance = await manager.get_balance("racers")
    assert (balance.held, balance.balance >= 0) == (0, True)
    assert not any(entry.shortfall for entry in accounts.journal("racers"))
