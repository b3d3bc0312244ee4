"""Holds that are learned from what answers used."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.errors import ConfigError, StoreUnavailableError
from ducto_redis.middleware import Holds
from ducto_redis.middleware.holds.learned import Histogram, LearnedHolds, Learning
from tests.middleware.asgi import CHAT, CHAT_REQUEST, answering, call, chunk, completion, streaming, until
from tests.middleware.conftest import Accounts

QUICK = LearnedHolds(answers=10, safety=1, quantile=0.9)


def fill(learning: Learning, used: int, count: int = 10, most: int = 1000, model: str = "m") -> None:
    for _ in range(count):
        learning.answered(CHAT, model, used, most)


def test_the_share_that_most_answers_stay_below() -> None:
    """A quantile of what was used, a little upwards: nine of ten answers used up to a tenth."""
    histogram = Histogram()
    for number in range(100):
        histogram.add(100 if number < 90 else 900, 1000)
    assert 0.1 <= histogram.share(0.9) <= 0.12
    histogram.add(900, 1000)
    histogram.add(900, 1000)
    assert 0.9 <= histogram.share(0.9) <= 1


@settings(max_examples=50, deadline=None)
@given(
    shares=st.lists(st.integers(0, 1200), min_size=1, max_size=300),
    quantile=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_the_quantile_is_never_too_low(shares: list[int], quantile: float) -> None:
    """At least that part of the answers used no more, but for those that used more than they may."""
    histogram = Histogram()
    for used in shares:
        histogram.add(used, 1000)
    share = histogram.share(quantile)
    assert share <= 1
    if share < 1:
        assert sum(used <= share * 1000 for used in shares) >= quantile * len(shares)


async def test_what_is_held(manager: AsyncCreditManager) -> None:
    """The worst case until enough was seen, then the share with its margin, for this route and model alone."""
    learning = Learning(LearnedHolds(answers=10, quantile=0.9, safety=1.5), manager)
    fill(learning, 100, 9)
    assert learning.output_tokens(CHAT, "m", 1000) == 1000
    fill(learning, 100, 1)
    assert 150 <= learning.output_tokens(CHAT, "m", 1000) <= 180
    assert learning.output_tokens(CHAT, "m", 1) == 1
    assert learning.output_tokens(CHAT, "other", 1000) == 1000
    assert learning.output_tokens("/other", "m", 1000) == 1000
    fill(learning, 990, 100)
    assert learning.output_tokens(CHAT, "m", 1000) == 1000


async def test_processes_learn_from_each_other(manager: AsyncCreditManager) -> None:
    """What two of them saw adds up for both; one that saw nothing knows it once it has looked."""
    first, second, third = (Learning(QUICK, manager) for _ in range(3))
    fill(first, 100, 6)
    fill(second, 100, 6)
    assert first.output_tokens(CHAT, "m", 1000) == 1000
    await first.share()
    await second.share()
    assert second.output_tokens(CHAT, "m", 1000) < 200
    fill(first, 100, 1)
    await first.share()
    assert first.output_tokens(CHAT, "m", 1000) < 200
    assert third.output_tokens(CHAT, "m", 1000) == 1000
    await third.share()
    assert third.output_tokens(CHAT, "m", 1000) < 200
    assert sum(await kept(manager)) == 13


async def kept(manager: AsyncCreditManager) -> list[int]:
    """The one histogram that the engine keeps."""
    redis = manager.store.redis()  # type: ignore[attr-defined]
    (key,) = [key for key in redis.keys("*") if b"learned_holds" in key]
    counts: list[int] = json.loads(redis.get(key))
    return counts


async def test_a_merge_that_fails_is_made_later(manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was learned is lost with the engine, and nothing counted twice."""

    async def away(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("away")

    learning = Learning(QUICK, manager)
    fill(learning, 100, 4)
    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "keep_value", away)
        await learning.share()
        fill(learning, 100, 3)
        await learning.share()
    await learning.share()
    await learning.share()
    assert sum(await kept(manager)) == 7


async def test_merges_that_collide(manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is overtaken adds to what the other kept."""
    first, second = Learning(QUICK, manager), Learning(QUICK, manager)
    fill(first, 100, 4)
    fill(second, 200, 5)
    look = manager.store.kept_value

    async def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(manager.store, "kept_value", look)
        found = await look(*args)
        await second.share()
        return found

    monkeypatch.setattr(manager.store, "kept_value", overtaken)
    await first.share()
    assert sum(await kept(manager)) == 9


async def test_old_answers_fade(manager: AsyncCreditManager) -> None:
    """What is kept stays bounded, so that what models do today decides."""
    learning = Learning(QUICK, manager)
    fill(learning, 900, 9_000)
    await learning.share()
    for _ in range(4):
        fill(learning, 50, 9_000)
        await learning.share()
    assert sum(await kept(manager)) <= 10_000
    assert learning.output_tokens(CHAT, "m", 1000) < 100


async def test_what_is_kept_by_another_version(manager: AsyncCreditManager) -> None:
    """Something that this version can't read is learned anew."""
    learning = Learning(QUICK, manager)
    fill(learning, 100)
    await learning.share()
    redis = manager.store.redis()  # type: ignore[attr-defined]
    (key,) = [key for key in redis.keys("*") if b"learned_holds" in key]
    for value in (b"[1,2,3]", b"no", b'{"a":1}', b"[" + b"-1," * 48 + b"-1]"):
        redis.set(key, value)
        fill(learning, 100, 1)
        await learning.share()
        assert sum(await kept(manager)) == 1


async def test_names_of_models_are_bounded(manager: AsyncCreditManager) -> None:
    """Clients name models: beyond a thousand routes and models nothing more is learned, and all is held."""
    learning = Learning(QUICK, manager)
    for number in range(1100):
        fill(learning, 100, 10, model=f"m{number}")
    assert learning.output_tokens(CHAT, "m5", 1000) < 200
    assert learning.output_tokens(CHAT, "m1099", 1000) == 1000


@pytest.mark.parametrize(
    "wrong",
    [{"quantile": 1.5}, {"quantile": "high"}, {"safety": 0.5}, {"answers": 0}, {"answers": 2.5}, {"share_seconds": 0}],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    """What can't be is told at once."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LearnedHolds(**wrong)


def reserved(accounts: Accounts) -> list[Decimal]:
    """What was held for each request so far, in credits."""
    return [Decimal(entry.amount) / 1_000_000 for entry in accounts.journal() if entry.operation == "reserve"]


async def test_requests_hold_what_was_learned(metered: Callable[..., ASGIApp], accounts: Accounts) -> None:
    """After enough answers of 20 tokens of 100, requests hold little more, and are charged what they use."""
    app = metered(answering(completion(10, 20)), holds=Holds(learned=LearnedHolds(answers=10)))
    for _ in range(12):
        await call(app)
    prompt = Decimal(len(json.dumps(CHAT_REQUEST))) / 1000
    held = reserved(accounts)
    assert held[:10] == [prompt + 1] * 10
    assert prompt + Decimal("0.2") <= held[10] == held[11] <= prompt + Decimal("0.31")
    assert await accounts.spent() == 12 * Decimal("0.21")


async def test_an_answer_above_its_hold(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, accounts: Accounts
) -> None:
    """It is charged from what is available; what the account can't pay is a shortfall, and the floor stands."""
    used = 1

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(completion(10, used))(scope, receive, send)

    app = metered(endpoint, holds=Holds(learned=LearnedHolds(answers=10, quantile=0.5)), account=lambda scope: "u2")
    await manager.add_credits("u2", 5)
    for _ in range(10):
        await call(app)
    used = 100
    await call(app)
    assert (await manager.get_balance("u2")).balance == 5 - 10 * Decimal("0.02") - Decimal("1.01")
    rest = (await manager.get_balance("u2")).balance - Decimal("0.2")
    await manager.deduct("u2", rest)
    await call(app)
    assert (await manager.get_balance("u2")).balance == 0
    assert accounts.journal("u2")[-1].shortfall == 810_000


async def test_only_whole_answers_that_report_teach(metered: Callable[..., ASGIApp], accounts: Accounts) -> None:
    """Answers that were cut, or did not say what they used, teach nothing; nor do errors."""
    for endpoint in (
        streaming(chunk("a" * 8), end=False),
        streaming(chunk("a" * 8)),
        answering({"choices": [{"message": {"content": "hi"}}]}),
        answering({"error": {"message": "no"}}, 500),
    ):
        app = metered(endpoint, holds=Holds(learned=LearnedHolds(answers=1)))
        for _ in range(3):
            await call(app)
    assert len(set(reserved(accounts))) == 1


async def test_no_request_waits_for_what_is_shared(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is merged in the background, a while after the requests."""
    keep, calls = manager.store.keep_value, 0

    async def count(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return await keep(*args, **options)

    monkeypatch.setattr(manager.store, "keep_value", count)
    app = metered(answering(completion(10, 20)), holds=Holds(learned=LearnedHolds(answers=10, share_seconds=0.3)))
    for _ in range(5):
        await call(app)
    assert calls == 0

    async def shared() -> bool:
        return calls > 0

    await until(shared)
    assert sum(await kept(manager)) == 5
