"""Stored answers: a repeat gets the answer of the first, as long as it is kept."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from starlette.types import ASGIApp, Message

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Disconnects, Holds, IdempotencyKeys, StoredAnswers
from tests.middleware.asgi import CHAT_REQUEST, DONE, answering, call, chunk, completion, streaming, until, usage_chunk
from tests.middleware.asking import ANSWER_KEYS, COST, Asking, Model, ask, refused
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]


@pytest.fixture
def stored() -> StoredAnswers:
    return StoredAnswers(ANSWER_KEYS)


async def test_a_run_that_was_cut_short_is_charged_and_not_run_again(
    metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """An answer that did not come to its end was charged for what it delivered: it is not given again, nor run."""
    model = Model(streaming(chunk("abcdefgh"), error=RuntimeError("the model went away")))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))
    with pytest.raises(RuntimeError):
        await ask(app, "k1")
    assert refused(await ask(app, "k1")) == (409, "already_charged", "false")
    assert model.runs == 1
    assert await accounts.settled() > 0


async def test_a_drained_answer_is_there_for_the_client_that_left(
    metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """A client that lost its connection gets, by a repeat, the answer that went on without it."""
    pieces = [chunk("a"), chunk("b"), usage_chunk(10, 20), DONE]
    model = Model(streaming(*pieces), open=False)
    app = metered(
        model,
        idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored),
        disconnects=Disconnects(on_disconnect="drain"),
    )
    first = Asking(app, "k1")
    await until(model.has_run)

    async def gone(message: Message) -> None:
        raise OSError("the client has gone")

    first._send = gone  # type: ignore[method-assign]
    model.gate.set()
    await asyncio.wait([first.task])
    repeat = await ask(app, "k1")
    assert repeat.headers["idempotent-replayed"] == "true"
    assert b"".join(pieces).startswith(repeat.body)
    assert repeat.body.endswith(DONE)
    assert (model.runs, await accounts.settled()) == (1, COST)


async def test_a_stream_that_was_stopped(metered: Metered, manager: AsyncCreditManager, stored: StoredAnswers) -> None:
    """A stream that ended because the money did is an answer: a repeat gets it as it was, and spends nothing."""
    body = {**CHAT_REQUEST, "stream": True}
    await manager.add_credits("poor", Decimal(len(json.dumps(body))) / 1000 + Decimal("0.15"))
    model = Model(streaming(*[chunk(f"{number:3d}") for number in range(50)], usage_chunk(9, 50), DONE))
    app = metered(
        model,
        idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored),
        holds=Holds(strategy="incremental", step_tokens=10),
    )
    first, repeat = [await ask(app, "k1", body, headers={"x-account": "poor"}) for _ in range(2)]
    assert b'"finish_reason":"length"' in first.body.replace(b" ", b"")
    assert first.body == repeat.body
    assert first.body.endswith(DONE)
    assert repeat.headers["idempotent-replayed"] == "true"
    assert model.runs == 1


async def test_a_client_that_leaves_with_the_last_message(
    metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """A client that was gone when the end of its answer was sent gets all of it by a repeat."""
    pieces = [chunk("a"), usage_chunk(10, 20), DONE]
    model = Model(streaming(*pieces))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))

    def gone(message: Message) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            raise OSError("the client has gone")

    with suppress(OSError):
        await call(app, headers={"Idempotency-Key": "k1"}, on_send=gone)
    assert await accounts.settled() == COST
    repeat = await ask(app, "k1")
    assert repeat.headers["idempotent-replayed"] == "true"
    assert repeat.body.endswith(DONE)
    assert model.runs == 1


async def test_nothing_is_kept_of_what_failed(
    manager: AsyncCreditManager, metered: Metered, stored: StoredAnswers
) -> None:
    """Of an answer that cost nothing, nothing is kept, whatever its status."""
    app = metered(
        Model([answering({}, 500), answering({"error": {"message": "overloaded"}})]),
        idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored),
    )
    for key in ("k1", "k2"):
        await ask(app, key)
    assert list(manager.store.redis().scan_iter("*:value:*")) == []


async def test_too_large_to_be_stored(metered: Metered, accounts: Accounts) -> None:
    """An answer over the limit is given whole, and not stored."""
    model = Model(answering(completion(10, 20, text="x" * 2000)))
    app = metered(
        model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=StoredAnswers(ANSWER_KEYS, max_bytes=2000))
    )
    assert len((await ask(app, "k1")).body) > 2000
    assert refused(await ask(app, "k1")) == (409, "already_charged", "false")
    assert await accounts.spent() == COST


async def test_keys_of_answers_change(metered: Metered, accounts: Accounts, caplog: pytest.LogCaptureFixture) -> None:
    """An answer is read by any of the keys; one whose key was taken away is not given again, which is logged once."""
    model = Model(answering(completion(10, 20)))
    new = b"n" * 32

    def app_with(*keys: bytes) -> ASGIApp:
        return metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=StoredAnswers(keys)))

    first = await ask(app_with(*ANSWER_KEYS), "k1")
    assert (await ask(app_with(new, *ANSWER_KEYS), "k1")).body == first.body
    without = app_with(new)
    for _ in range(2):
        assert refused(await ask(without, "k1")) == (409, "already_charged", "false")
    assert [record.message for record in caplog.records if "can't be given again" in record.message] == [
        "a stored answer can't be given again: it was encrypted by a key that is not among those given."
        " More of these are not logged"
    ]
    assert model.runs == 1
    assert await accounts.spent() == COST


async def test_what_is_stored(
    manager: AsyncCreditManager, metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """In Redis stands nothing of prompt, answer and key that could be read, and for a bounded time."""
    secret_body = {**CHAT_REQUEST, "messages": [{"role": "user", "content": "a secret question"}]}
    app = metered(
        Model(answering(completion(10, 20, text="a secret answer"))),
        idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored),
    )
    await ask(app, "k1", secret_body)
    redis = manager.store.redis()
    values = {key: redis.get(key) for key in redis.scan_iter("*:value:*")}
    assert len(values) == 2
    for key, value in values.items():
        assert 0 < redis.pttl(key) <= (3600_000 if b"/answer/" in key else 25 * 3600_000)
        assert b"secret" not in value
        assert ANSWER_KEYS[0] not in value


async def test_a_stored_answer_belongs_to_its_place(
    manager: AsyncCreditManager, metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """An answer that somebody put in another's place in Redis is not given."""
    await manager.add_credits("u2", 10)
    app = metered(
        Model(answering(completion(10, 20))), idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored)
    )
    redis = manager.store.redis()
    await ask(app, "k1")
    (first,) = redis.scan_iter("*ducto/answer/*")
    await ask(app, "k2")
    await ask(app, "k1", headers={"x-account": "u2"})
    for other in set(redis.scan_iter("*ducto/answer/*")) - {first}:
        redis.set(other, redis.get(first), keepttl=True)
    assert (await ask(app, "k1")).status == 200
    assert refused(await ask(app, "k2"))[1] == "already_charged"
    assert refused(await ask(app, "k1", headers={"x-account": "u2"}))[1] == "already_charged"


async def test_a_response_in_the_background(
    manager: AsyncCreditManager, metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """Work that goes on after its answer: a repeat gets the answer that started it, and starts nothing."""
    queued = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "model": "m"}
    model = Model(answering(queued))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))
    body = {"model": "m", "input": "hello", "max_output_tokens": 10, "background": True}
    first = await ask(app, "k1", body, path="/v1/responses")
    assert await accounts.held() > 0
    repeat = await ask(app, "k1", body, path="/v1/responses")
    assert (repeat.status, repeat.body) == (first.status, first.body)
    assert model.runs == 1
    bare = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    assert refused(await ask(bare, "k1", body, path="/v1/responses")) == (409, "already_charged", "false")
