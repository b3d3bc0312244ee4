"""The Idempotency-Key of a request: the application runs once for it, and is charged once."""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, Payer
from ducto_redis.errors import ConfigError, CreditError, LeaseClosedError, StoreUnavailableError
from ducto_redis.middleware import Estimates, Holds, IdempotencyKeys, MeteredRequest, MeteringMiddleware, StoredAnswers
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.manager.clock import Clock
from tests.middleware.asgi import (
    CHAT,
    CHAT_REQUEST,
    DONE,
    Answer,
    answering,
    call,
    chunk,
    completion,
    streaming,
    until,
    usage_chunk,
)
from tests.middleware.asking import ANSWER_KEYS, COST, Asking, Model, ask, refused
from tests.middleware.conftest import FUNDS, PRICING, Accounts

Metered = Callable[..., ASGIApp]


@pytest.fixture
def stored() -> StoredAnswers:
    return StoredAnswers(ANSWER_KEYS)


@pytest.fixture(params=["conflict", "wait"])
def mode(request: pytest.FixtureRequest) -> str:
    """What becomes of repeats makes no difference once the first has ended."""
    return str(request.param)


async def test_a_repeat_is_not_run_and_not_charged(metered: Metered, accounts: Accounts, mode: str) -> None:
    """After the first has ended a repeat is refused, with the transaction that charged it, and tried no more."""
    model = Model(answering(completion(10, 20)))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat=mode))
    assert (await ask(app, "k1")).status == 200
    repeat = await ask(app, "k1")
    assert refused(repeat) == (409, "already_charged", "false")
    (settled,) = [entry for entry in accounts.journal() if entry.operation == "settle"]
    assert repeat.error["transaction_id"] == settled.transaction_id
    assert model.runs == 1
    assert await accounts.spent() == COST


async def test_requests_without_a_key_are_not_repeats(metered: Metered, accounts: Accounts) -> None:
    """The same request twice, without a key, is two requests; and so it is with keys that are not looked at."""
    model = Model(answering(completion(10, 20)))
    assert [
        (await ask(metered(model, idempotency=IdempotencyKeys(on_repeat="wait")), None)).status for _ in range(2)
    ] == [200, 200]
    assert [(await ask(metered(model), "k1")).status for _ in range(2)] == [200, 200]
    assert model.runs == 4
    assert await accounts.spent() == 4 * COST


async def test_conflict_while_the_first_runs(metered: Metered, accounts: Accounts) -> None:
    """With "conflict" a repeat is refused while the first runs, to be tried again a second later."""
    model = Model(answering(completion(10, 20)), open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="conflict"))
    first = Asking(app, "k1")
    await until(model.has_run)
    repeat = await ask(app, "k1")
    assert refused(repeat) == (409, "idempotency_conflict", "true")
    assert repeat.headers["retry-after"] == "1"
    model.gate.set()
    assert (await first.task).status == 200
    assert (model.runs, await accounts.spent()) == (1, COST)


@pytest.mark.parametrize(
    "answers",
    [
        answering(completion(10, 20)),
        streaming(chunk("a"), chunk("b"), usage_chunk(10, 20), DONE, headers=[(b"x-model", b"m-1")]),
    ],
    ids=["plain", "streamed"],
)
async def test_repeats_wait_for_the_answer(
    metered: Metered, accounts: Accounts, stored: StoredAnswers, answers: ASGIApp
) -> None:
    """With "wait" repeats wait for the first, and get its answer byte for byte; so do those that come later."""
    model = Model(answers, open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))
    asking = [Asking(app, "k1") for _ in range(5)]
    await until(model.has_run)
    model.gate.set()
    replies = [await one.task for one in asking]
    replies.append(await ask(app, "k1"))
    (first,) = [reply for reply in replies if "idempotent-replayed" not in reply.headers]
    repeats = [reply for reply in replies if reply is not first]
    assert len(repeats) == 5
    for repeat in repeats:
        assert (repeat.status, repeat.body) == (200, first.body)
        own = {"idempotent-replayed": "true"}
        assert repeat.headers == {**{n: v for n, v in first.headers.items() if n not in first.credits}, **own}
    assert (model.runs, await accounts.settled()) == (1, COST)


async def test_without_a_stored_answer_those_who_waited_are_refused(metered: Metered, accounts: Accounts) -> None:
    """Where answers are not stored, waiting ends with the refusal of a repeat."""
    model = Model(answering(completion(10, 20)), open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    asking = [Asking(app, "k1") for _ in range(3)]
    await until(model.has_run)
    model.gate.set()
    statuses = sorted([(await one.task).status for one in asking])
    assert statuses == [200, 409, 409]
    assert (model.runs, await accounts.spent()) == (1, COST)


async def test_waiting_is_bounded(metered: Metered) -> None:
    """A repeat waits so long, then it is refused and may be tried again."""
    model = Model(answering(completion(10, 20)), open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", wait_seconds=0.05))
    first = Asking(app, "k1")
    await until(model.has_run)
    assert refused(await ask(app, "k1")) == (409, "idempotency_conflict", "true")
    model.gate.set()
    await first.task


async def test_a_client_that_leaves_waits_no_longer(metered: Metered, accounts: Accounts) -> None:
    """Whoever leaves while it waits is let go, and the first goes on."""
    model = Model(answering(completion(10, 20)), open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    first = Asking(app, "k1")
    await until(model.has_run)
    repeat = Asking(app, "k1")
    repeat.leave()
    assert (await repeat.task).messages == []
    model.gate.set()
    assert (await first.task).status == 200
    assert (model.runs, await accounts.spent()) == (1, COST)


async def test_the_application_hears_that_a_client_left_after_it_waited(metered: Metered) -> None:
    """A repeat that waited and then ran is told by `receive` when its client leaves, like any other."""
    told = asyncio.Event()

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    model = Model([answering({}, 500), watching], open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    first = Asking(app, "k1")
    await until(model.has_run)
    repeat = Asking(app, "k1")
    model.gate.set()
    assert (await first.task).status == 500

    async def second_runs() -> bool:
        return model.runs == 2

    await until(second_runs)
    repeat.leave()
    await told.wait()
    await repeat.task


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    "other",
    [{"body": {**CHAT_REQUEST, "temperature": 1}}, {"query_string": b"v=2"}, {"path": f"/other{CHAT}"}],
    ids=["body", "query", "path"],
)
async def test_the_same_key_for_another_request(
    metered: Metered, accounts: Accounts, stored: StoredAnswers, running: bool, other: dict[str, Any]
) -> None:
    """The same key with another body, query or path is a conflict at once, also while the first runs."""
    model = Model(answering(completion(10, 20)), open=not running)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))
    first = Asking(app, "k1")
    if running:
        await until(model.has_run)
    else:
        await first.task
    answer = await ask(app, "k1", **other)
    assert refused(answer) == (409, "idempotency_conflict", "false")
    model.gate.set()
    await first.task
    assert (model.runs, await accounts.spent()) == (1, COST)


@pytest.mark.parametrize("form", ["multipart/form-data; boundary={}", 'Multipart/Form-Data; charset=x; boundary="{}"'])
async def test_forms_that_are_sent_again(metered: Metered, accounts: Accounts, form: str) -> None:
    """A form is the same request with another boundary, which clients make anew, and not with another content."""

    async def send_form(boundary: str, content: str) -> Answer:
        body = f'--{boundary}\r\nContent-Disposition: form-data; name="m"\r\n\r\n{content}\r\n--{boundary}--\r\n'
        headers = {"content-type": form.format(boundary), "Idempotency-Key": "k1"}
        return await call(app, body.encode(), headers=headers)

    class Form(OpenAIChat):
        def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
            return super().read_request(ApiRequest(body=json.dumps(CHAT_REQUEST).encode()), estimates)

        def application_body(self, body: bytes, *_: Any) -> bytes:
            return body

    app = metered(
        Model(answering(completion(10, 20))), idempotency=IdempotencyKeys(on_repeat="conflict"), recognisers=[Form()]
    )
    assert (await send_form("first", "same")).status == 200
    assert refused(await send_form("second", "same"))[1] == "already_charged"
    assert refused(await send_form("third", "other"))[1] == "idempotency_conflict"
    assert await accounts.spent() == COST


async def test_keys_belong_to_accounts_and_members(
    manager: AsyncCreditManager, stored: StoredAnswers, accounts: Accounts
) -> None:
    """Two accounts, or two members of one, that use the same key with the same request are strangers."""
    await manager.create_team("t1", name="a team", owner="ann")
    await manager.add_team_member("t1", "bob")
    await manager.add_credits("t1", 10)
    await manager.add_credits("u2", 10)
    payers = [Payer("u1"), Payer("u2"), Payer("t1", member="ann"), Payer("t1", member="bob")]
    model = Model([answering(completion(10, 20, text=str(number))) for number in range(len(payers))])
    bodies = []
    for payer in payers:
        app = MeteringMiddleware(
            model,
            manager=manager,
            account=lambda _, payer=payer: payer,
            idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored),
        )
        first, repeat = await ask(app, "k1"), await ask(app, "k1")
        assert first.body == repeat.body
        bodies.append(first.body)
    assert len(set(bodies)) == model.runs == len(payers)


@pytest.mark.parametrize("fails", [answering({}, 500), answering({}, 302), answering({}, 429)])
async def test_what_failed_may_run_again(
    metered: Metered, accounts: Accounts, stored: StoredAnswers, fails: ASGIApp
) -> None:
    """A run that cost nothing leaves the key to the next; every failure is its own, none is stored."""
    model = Model([fails, fails, fails, answering(completion(10, 20)), fails])
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="conflict", stored_answers=stored))
    statuses = [(await ask(app, "k1")).status for _ in range(5)]
    assert statuses[3:] == [200, 200]
    assert all(status >= 300 for status in statuses[:3])
    assert (model.runs, await accounts.spent()) == (4, COST)


async def test_an_application_that_raises_may_run_again(metered: Metered, accounts: Accounts) -> None:
    """So does one that raises before it answered."""

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("failed")

    model = Model([raising, answering(completion(10, 20))])
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    with pytest.raises(RuntimeError):
        await ask(app, "k1")
    assert (await ask(app, "k1")).status == 200
    assert await accounts.spent() == COST


async def test_of_those_who_waited_for_a_failure_one_runs(
    metered: Metered, accounts: Accounts, stored: StoredAnswers
) -> None:
    """Where the first fails, exactly one of those who waited runs at a time, and the others get its answer."""
    model = Model([answering({}, 500), answering({}, 503), answering(completion(10, 20))], open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=stored))
    asking = [Asking(app, "k1") for _ in range(6)]
    await until(model.has_run)
    model.gate.set()
    statuses = sorted([(await one.task).status for one in asking])
    assert statuses == [200, 200, 200, 200, 500, 503]
    assert (model.runs, model.most, await accounts.spent()) == (3, 1, COST)


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "ä", "a\x7f"])
async def test_what_is_no_key(metered: Metered, accounts: Accounts, key: str) -> None:
    """A key that is empty, too long, or not printable ASCII is refused before anything is held."""
    model = Model(answering(completion(10, 20)))
    answer = await ask(metered(model, idempotency=IdempotencyKeys(on_repeat="wait")), key)
    assert refused(answer) == (400, "invalid_idempotency_key", "false")
    assert (model.runs, await accounts.spent()) == (0, 0)


async def test_two_keys(metered: Metered) -> None:
    """A request that carries the header twice is refused."""
    headers = [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    app = metered(Model(answering(completion(10, 20))), idempotency=IdempotencyKeys(on_repeat="wait"))

    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "headers": headers}, receive, send)

    assert refused(await ask(twice, None))[:2] == (400, "invalid_idempotency_key")


@pytest.mark.parametrize("key", ["k", "x" * 255, '"' * 255, '"quoted \\"', "~ !{}:*?[]\\"])
async def test_keys_of_all_kinds(metered: Metered, accounts: Accounts, key: str) -> None:
    """Whatever the key is, the lease names it, and no two keys are the same."""
    app = metered(Model(answering(completion(10, 20))), idempotency=IdempotencyKeys(on_repeat="conflict"))
    assert [(await ask(app, key)).status, (await ask(app, key)).status, (await ask(app, "other")).status] == [
        200,
        409,
        200,
    ]
    (_, reserved, *_) = accounts.journal()
    (lease,) = [value for name, value in reserved.changes if name.startswith("lease/")]
    metadata = json.loads(lease.split("\x1f")[-2])
    assert metadata["idempotency_key"] == key


async def test_refusals_use_no_key_up(metered: Metered, manager: AsyncCreditManager, accounts: Accounts) -> None:
    """A request that was refused for want of credits may be made again with its key."""
    app = metered(Model(answering(completion(10, 20))), idempotency=IdempotencyKeys(on_repeat="conflict"))
    dear = {**CHAT_REQUEST, "max_tokens": 20_000}
    assert (await ask(app, "k1", dear)).status == 402
    await manager.add_credits("u1", 1000)
    assert (await ask(app, "k1", dear)).status == 200
    assert (await ask(app, "k1", dear)).status == 409


async def test_killed_processes(stored: StoredAnswers) -> None:
    """The lease of a process that was killed expires; then the next attempt runs, and is remembered as the latest."""
    clock = Clock()
    async with AsyncCreditManager(clock.store) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        model = Model(answering(completion(10, 20)), open=False)
        app = MeteringMiddleware(
            model,
            manager=manager,
            account=lambda _: "u1",
            idempotency=IdempotencyKeys(on_repeat="conflict", stored_answers=stored),
        )
        killed = []
        for attempt in range(3):  # they hang for ever, and nobody renews their leases
            killed.append(Asking(app, "k1"))

            async def runs(number: int = attempt + 1) -> bool:
                return model.runs == number

            await until(runs)
            assert refused(await ask(app, "k1")) == (409, "idempotency_conflict", "true")
            clock.move(seconds=121)
        clock.move(hours=24)  # the first leases are forgotten, not that there were later ones
        model.gate.set()
        assert (await ask(app, "k1")).status == 200
        assert (await ask(app, "k1")).headers["idempotent-replayed"] == "true"
        leases = [entry.operation_key for entry in Accounts(manager).journal() if entry.operation == "reserve"]
        assert [key.split("/")[-2] for key in leases] == ["1", "2", "3", "4"]
        for one in killed:
            await one.task


async def test_the_engine_away(manager: AsyncCreditManager, metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with a key is never let pass unpaid: without the engine nobody can say that it does not run already."""
    model = Model(answering(completion(10, 20)))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"), holds=Holds(on_unavailable="allow", grace=100))
    assert (await ask(app, "k0")).status == 200

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("away")

    for name in ("reserve", "kept_value"):
        with monkeypatch.context() as patched:
            patched.setattr(manager.store, name, away)
            assert refused(await ask(app, "k1")) == (503, "store_unavailable", "true")
    assert model.runs == 1
    with monkeypatch.context() as patched:
        patched.setattr(manager.store, "reserve", away)
        assert (await ask(app, None)).status == 200


async def test_another_lease_that_is_closed(
    manager: AsyncCreditManager, metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not the key's lease that is closed but another one, which the hold depends on, that is the answer."""

    async def closed(*_: Any, **__: Any) -> Any:
        raise LeaseClosedError("u1", "another lease", "settled")

    model = Model(answering(completion(10, 20)))
    monkeypatch.setattr(manager.store, "reserve", closed)
    answer = await ask(metered(model, idempotency=IdempotencyKeys(on_repeat="wait")), "k1")
    assert (answer.status, answer.error["code"], model.runs) == (409, "lease_closed", 0)


class WithoutReply:
    """A `reserve` that takes effect, and whose reply does not come: the request is cancelled, or told so."""

    def __init__(self, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch, *, cancels: bool) -> None:
        self._manager = manager
        self._monkeypatch = monkeypatch
        self._reserve = manager.store.reserve
        self._cancels = cancels
        self._sent = asyncio.Event()

    async def ask(self, app: ASGIApp) -> None:
        """Ask so."""
        with self._monkeypatch.context() as patched:
            patched.setattr(self._manager.store, "reserve", self)
            asking = Asking(app, "k1")
            await self._sent.wait()
            if self._cancels:
                asking.task.cancel()
            await asyncio.wait([asking.task])
        if not self._cancels:
            assert refused(asking.answer) == (503, "store_unavailable", "true")

        async def nothing_to_do() -> bool:
            return self._manager.pending.tasks == 0

        await until(nothing_to_do)

    async def __call__(self, *args: Any, **options: Any) -> Any:
        with suppress(CreditError):
            await self._reserve(*args, **options)
        self._sent.set()
        if self._cancels:
            await asyncio.Event().wait()
        raise StoreUnavailableError("no reply")


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_repeat_that_is_given_up_leaves_the_first_alone(
    manager: AsyncCreditManager, metered: Metered, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    """A repeat that does not hear what became of its lease never closes that of the first."""
    model = Model(answering(completion(10, 20)), open=False)
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="wait"))
    first = Asking(app, "k1")
    await until(model.has_run)
    await WithoutReply(manager, monkeypatch, cancels=cancels).ask(app)
    assert len(await manager.list_leases("u1")) == 1
    model.gate.set()
    assert (await first.task).status == 200
    assert (model.runs, await accounts.spent()) == (1, COST)


@pytest.mark.parametrize("cancels", [True, False])
async def test_what_was_opened_for_a_request_that_is_given_up_is_released(
    manager: AsyncCreditManager, metered: Metered, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    """A lease whose reply never came is released if it is this request's own, so that the key is free at once."""
    model = Model(answering(completion(10, 20)))
    app = metered(model, idempotency=IdempotencyKeys(on_repeat="conflict"))
    await WithoutReply(manager, monkeypatch, cancels=cancels).ask(app)
    assert await accounts.spent() == 0
    assert (await ask(app, "k1")).status == 200
    assert (model.runs, await accounts.spent()) == (1, COST)


@pytest.mark.parametrize(
    "options",
    [
        {"on_repeat": "always"},
        {"on_repeat": "wait", "wait_seconds": 0},
        {"on_repeat": "wait", "stored_answers": ANSWER_KEYS},
        {"stored_answers": StoredAnswers(ANSWER_KEYS)},
    ],
)
def test_settings_that_are_wrong(options: dict[str, Any]) -> None:
    """Settings that make no sense are refused, without a word of the keys."""
    with pytest.raises(ConfigError) as error:
        IdempotencyKeys(**options)
    assert "kkk" not in str(error.value)
    assert base64.b64encode(ANSWER_KEYS[0]).decode() not in str(error.value)
