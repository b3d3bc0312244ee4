"""Holds that grow while a stream runs, and end it when the account can pay no more."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from msgspec import structs
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.middleware import (
    Charge,
    Estimates,
    Holds,
    MeteredRequest,
    MeteringMiddleware,
    ResponseReader,
    Upstream,
)
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.recognisers import OpenAIChat
from ducto_redis.middleware.recognisers.openai.chat_response import ChatResponseReader
from tests.middleware.asgi import CHAT, DONE, Answer, answering, call, chunk, completion, until, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.servers import Server

Metered = Callable[..., ASGIApp]

STEP = 10
# A credit for a hundred tokens of output; a token of input is a tenth of that.
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 200, "stream": True}
PROMPT = Decimal(len(json.dumps(REQUEST))) / 1000
# One token each, however it is counted.
WORDS = [f"{number:3d}" for number in range(200)]


class Talker:
    """An application that streams a word a piece, and reports what it used at the end, if it gets there.

    Args:
        words: what it says.
        before: awaited before each piece, with its number.
    """

    def __init__(
        self, words: list[str] = WORDS, before: Callable[[int], Any] | None = None, *, reports: bool = True
    ) -> None:
        self.said = 0
        self.told = False
        self.error: Exception | None = None
        self._words = words
        self._before = before
        self._reports = reports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            for number, word in enumerate(self._words):
                if self._before is not None:
                    await self._before(number)
                await send({"type": "http.response.body", "body": chunk(word), "more_body": True})
                self.said += 1
            if self._reports:
                await send({"type": "http.response.body", "body": usage_chunk(9, self.said), "more_body": True})
            await send({"type": "http.response.body", "body": DONE, "more_body": False})
        except OSError as error:
            self.error = error
            self.told = (await receive())["type"] == "http.disconnect"
            raise


def texts(answer: Answer) -> list[str]:
    """What the client got."""
    events = [json.loads(data[6:]) for data in answer.body.decode().split("\n\n") if data.startswith("data: {")]
    return [choice["delta"].get("content") for event in events for choice in event["choices"] if choice["delta"]]


@pytest.fixture
async def incremental(metered: Metered) -> Metered:
    def wrap(app: ASGIApp, *, holds: dict[str, Any] | None = None, **options: Any) -> ASGIApp:
        return metered(app, holds=Holds(strategy="incremental", step_tokens=STEP, **(holds or {})), **options)

    return wrap


@pytest.fixture
async def poor(manager: AsyncCreditManager) -> str:
    """An account that can pay the prompt, and 47 words."""
    await manager.add_credits("poor", PROMPT + Decimal("0.47"))
    return "poor"


async def talk(app: ASGIApp, account: str = "u1", **options: Any) -> Answer:
    return await call(app, REQUEST, headers={"x-account": account}, **options)


async def test_little_is_held(incremental: Metered, accounts: Accounts, manager: AsyncCreditManager) -> None:
    """A stream begins with its prompt and a step, never has more than two steps ahead, and is charged what it used."""
    most_ahead = 0

    async def look(number: int) -> None:
        nonlocal most_ahead
        held = (await accounts.held() - PROMPT) * 100
        assert held >= number
        most_ahead = max(most_ahead, int(held) - number)

    talker = Talker(before=look)
    answer = await talk(incremental(talker))
    assert answer.headers["x-credits-reserved"] == str(PROMPT + Decimal("0.1"))
    assert texts(answer) == WORDS
    assert answer.body.endswith(DONE)
    assert STEP <= most_ahead <= 2 * STEP
    assert await accounts.settled() == Decimal("0.009") + 2


async def test_it_ends_when_the_money_does(
    incremental: Metered, poor: str, manager: AsyncCreditManager, accounts: Accounts
) -> None:
    """The stream ends as at its limit on tokens, with [DONE]; the application is told; what was said is charged."""
    counts = MeteringCounts()
    talker = Talker()
    answer = await talk(incremental(talker, counts=counts), poor)
    assert texts(answer) == WORDS[:40]
    assert answer.body.endswith(DONE)
    assert b'"finish_reason":"length"' in answer.body.replace(b" ", b"")
    assert answer.messages[-1].get("more_body", False) is False
    assert talker.told
    assert talker.said < len(WORDS)
    balance = await manager.get_balance(poor)
    # What was said is counted by its bytes, four a token: a prompt of 38, and 40 words of three.
    assert balance.held == 0
    assert PROMPT + Decimal("0.47") - balance.balance == Decimal("0.010") + Decimal("0.3")
    assert counts.stopped == 1
    settled = accounts.journal(poor)[-1]
    assert (settled.operation, settled.shortfall) == ("settle", 0)
    assert {"stopped", "interrupted", "usage_counted"} <= set(json.loads(settled.cause)["flags"])


async def test_credits_that_come_in_keep_it_running(
    incremental: Metered, poor: str, manager: AsyncCreditManager
) -> None:
    """A step that was refused is asked for again when it is needed."""

    async def pay(number: int) -> None:
        if number == 39:  # the step beyond 40 has been refused
            await until(lambda: _false_once(refused))
            await manager.add_credits(poor, 5)

    refused: list[int] = []
    manager.on("credits.deduct_failed", lambda event: refused.append(1))
    answer = await talk(incremental(Talker(before=pay)), poor)
    assert texts(answer) == WORDS


async def _false_once(seen: list[int]) -> bool:
    return bool(seen)


async def test_a_short_answer_holds_no_more(incremental: Metered, accounts: Accounts) -> None:
    """A stream that ends within its first half step asks for nothing more."""
    await talk(incremental(Talker(WORDS[:4])))
    assert await accounts.settled() == Decimal("0.049")
    assert [entry.operation for entry in accounts.journal()] == ["add_credits", "reserve", "settle"]


@pytest.mark.parametrize("size", [1, 7, 29, 100, 100_000])
async def test_however_it_is_cut(size: int, incremental: Metered, poor: str, manager: AsyncCreditManager) -> None:
    """The same ends at the same word, however the stream was cut into messages."""
    whole = b"".join(chunk(word) for word in WORDS) + DONE
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    answer = await talk(incremental(app), poor)
    assert texts(answer) == WORDS[:40]
    assert answer.body.endswith(DONE)


async def test_requests_without_a_stream_hold_the_worst_case(incremental: Metered, accounts: Accounts) -> None:
    """A plain answer comes whole: all that it could cost is held."""
    plain = {**REQUEST, "stream": False}
    held = Decimal(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal held
        held = await accounts.held()
        await answering(completion(9, 20))(scope, receive, send)

    await call(incremental(app), plain)
    assert held == Decimal(len(json.dumps(plain))) / 1000 + 2


async def test_hidden_reasoning_holds_the_worst_case(incremental: Metered, accounts: Accounts) -> None:
    """What a model reasons unseen can't be watched: all that it could cost is held."""

    class Reasoner(OpenAIChat):
        def read_request(self, *args: Any) -> MeteredRequest:
            return structs.replace(super().read_request(*args), may_reason_hidden=True)

    answer = await talk(incremental(Talker(), recognisers=[Reasoner()]))
    assert answer.headers["x-credits-reserved"] == str(PROMPT + 2)


async def test_a_reader_that_counts_nothing_holds_the_worst_case(incremental: Metered) -> None:
    """A recogniser of one's own whose reader does not say what was delivered is held whole."""

    class Reader(ResponseReader):
        def document(self, body: bytes) -> None: ...

        def event(self, event: Any) -> None: ...

        def charge(self, *, complete: bool) -> Charge:
            return Charge(UsageMetrics(model="m", output_tokens=1))

    class Own(OpenAIChat):
        def read_response(self, request: MeteredRequest, estimates: Any) -> ResponseReader:
            return Reader()

    answer = await talk(incremental(Talker(), recognisers=[Own()]))
    assert answer.headers["x-credits-reserved"] == str(PROMPT + 2)


async def test_a_lost_answer_holds_once(
    incremental: Metered, accounts: Accounts, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extension whose outcome stayed unknown is asked for again under its key, and takes effect once."""
    extend, calls = manager.store.extend, 0

    async def lose(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = await extend(*args, **options)
        if calls in (1, 3, 4):
            raise StoreUnavailableError("the reply was lost")
        return result

    monkeypatch.setattr(manager.store, "extend", lose)
    assert texts(await talk(incremental(Talker()))) == WORDS
    assert await accounts.settled() == Decimal("0.009") + 2
    extended = [entry.amount for entry in accounts.journal() if entry.operation == "extend"]
    assert sum(extended) == 1_900_000  # all but the first step, in all
    assert calls == len(extended) + 3 > 15


async def test_an_engine_that_is_away_ends_no_stream(
    incremental: Metered, poor: str, manager: AsyncCreditManager, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, is charged what the account can pay, and the rest is a shortfall."""

    async def away(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(manager.store, "extend", away)
    answer = await talk(incremental(Talker()), poor)
    assert texts(answer) == WORDS
    await until(lambda: _nothing_held(manager, poor))
    assert (await manager.get_balance(poor)).balance == 0
    assert accounts.journal(poor)[-1].shortfall == 2_009_000 - int((PROMPT + Decimal("0.47")) * 1_000_000)


async def _nothing_held(manager: AsyncCreditManager, account: str) -> bool:
    return not (await manager.get_balance(account)).held


async def test_what_goes_on_unpaid_takes_of_the_grace(
    incremental: Metered, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine is away, streams that go on leave less of the grace to new requests, until they are charged."""
    store, extend, reserve = manager.store, manager.store.extend, manager.store.reserve
    gone = False
    statuses: list[int] = []

    async def away(operation: Any, *args: Any, **options: Any) -> Any:
        if gone:
            raise StoreUnavailableError("away")
        return await operation(*args, **options)

    async def look(number: int) -> None:
        nonlocal gone
        gone = number < 120 or number == 150
        if number in (3, 100, 150):
            statuses.append((await call(app, {**REQUEST, "max_tokens": 100}, path="/failing" + CHAT)).status)

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await (talker if scope["path"] == CHAT else answering({}, 500))(scope, receive, send)

    talker = Talker(before=look)
    app = incremental(endpoint, holds={"on_unavailable": "allow", "grace": PROMPT + Decimal("1.05")})
    monkeypatch.setattr(store, "extend", partial(away, extend))
    monkeypatch.setattr(store, "reserve", partial(away, reserve))
    assert texts(await talk(app)) == WORDS
    assert statuses == [500, 503, 500]


async def test_the_grace_of_a_stream_without_a_price(
    incremental: Metered, manager: AsyncCreditManager, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stream went on with while the engine was away is given back also where its hold is charged instead."""
    await manager.publish_pricing({"models": {"m": "output_tokens * 0.01 + 0 / (output_tokens - 7)"}})

    async def away(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("away")

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["path"] == CHAT else answering({}, 500))(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for word in WORDS[:27]:
            await send({"type": "http.response.body", "body": chunk(word), "more_body": True})
        await send({"type": "http.response.body", "body": usage_chunk(9, 7) + DONE, "more_body": False})

    metered = incremental(endpoint, holds={"on_unavailable": "allow", "grace": 2})
    with monkeypatch.context() as patched:
        patched.setattr(manager.store, "extend", away)
        assert texts(await talk(metered)) == WORDS[:27]
        assert await accounts.settled() == Decimal("0.1")
    monkeypatch.setattr(manager.store, "reserve", away)
    assert (await call(metered, REQUEST, path="/failing" + CHAT)).status == 500


async def test_a_frozen_account_ends_its_streams(incremental: Metered, manager: AsyncCreditManager) -> None:
    """Freezing refuses further steps."""

    async def freeze(number: int) -> None:
        if number == 22:
            await manager.freeze("u1", actor="ann", reason="chargeback")

    answer = await talk(incremental(Talker(before=freeze)))
    assert 22 < len(texts(answer)) <= 40


async def test_prices_in_tiers(incremental: Metered, manager: AsyncCreditManager, accounts: Accounts) -> None:
    """A step is held at what it adds to the price of all, which a formula of its own would not give."""
    formula = "requests * 3 + (output_tokens * 0.01 if output_tokens < 100 else output_tokens * 0.02)"
    await manager.publish_pricing({"models": {"m": formula}})

    async def look(number: int) -> None:
        if number in (1, 98, 150):
            held = await accounts.held()
            assert held >= 3 + number * Decimal("0.01" if number < 100 else "0.02")
            assert held <= 3 + (number + 20) * Decimal("0.02")

    assert texts(await talk(incremental(Talker(before=look)))) == WORDS
    assert await accounts.settled() == 7


async def test_caps_of_models_count_the_steps(incremental: Metered, manager: AsyncCreditManager) -> None:
    """What a stream holds in steps counts against every cap, that of its model too."""
    await manager.set_spend_cap("u1", PROMPT + Decimal("0.35"), window="day", model="m")
    answer = await talk(incremental(Talker()))
    assert len(texts(answer)) == 30


async def test_a_tokeniser_reads_each_piece_once(metered: Metered, manager: AsyncCreditManager) -> None:
    """The hold grows by what count_tokens says of each piece, and no piece is counted again."""
    counted: list[str] = []

    def count_tokens(model: str | None, text: str) -> int:
        counted.append(text)
        return 2

    app = metered(
        Talker(),
        holds=Holds(strategy="incremental", step_tokens=STEP),
        upstream=Upstream(count_tokens=count_tokens, max_tokens_ceiling=200),
    )
    await manager.add_credits("poor", Decimal("0.302"))
    answer = await talk(app, "poor")
    assert texts(answer) == WORDS[:15]  # a prompt of two tokens, and 30 of output, two a piece
    pieces = [text for text in counted if text in WORDS]
    assert pieces == WORDS[:15]


async def test_a_report_in_the_stream_is_believed(incremental: Metered, poor: str) -> None:
    """A stream that reports as it runs more than was counted is held for what it reports."""
    words = [chunk(word, usage={"prompt_tokens": 9, "completion_tokens": 4 * (n + 1)}) for n, word in enumerate(WORDS)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for word in words:
            await send({"type": "http.response.body", "body": word, "more_body": True})

    answer = await talk(incremental(app), poor)
    assert len(texts(answer)) <= 12


async def test_a_clamped_stream_does_not_grow(incremental: Metered, manager: AsyncCreditManager) -> None:
    """Where not even a first step can be paid, a stream is lowered to what can, and all of that is held."""
    await manager.add_credits("short", PROMPT + Decimal("0.05"))
    answer = await talk(incremental(Talker(WORDS[:5]), holds={"on_short": "clamp", "min_output_tokens": 2}), "short")
    assert (answer.status, answer.headers["x-credits-max-tokens"]) == (200, "5")
    assert texts(answer) == WORDS[:5]


async def test_a_client_that_leaves_while_its_stream_waits(
    incremental: Metered, accounts: Accounts, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation in the middle of an extension charges what was said, and leaves nothing held."""
    extend, asked = manager.store.extend, asyncio.Event()

    async def slow(*args: Any, **options: Any) -> Any:
        asked.set()
        await asyncio.sleep(0.05)
        return await extend(*args, **options)

    monkeypatch.setattr(manager.store, "extend", slow)
    running = asyncio.create_task(talk(incremental(Talker())))
    await asked.wait()
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while manager.pending.tasks:
        await asyncio.sleep(0.01)
    assert Decimal("0.01") < await accounts.settled() < Decimal("0.2")


async def test_usage_without_a_price_is_charged_the_grown_hold(
    incremental: Metered, manager: AsyncCreditManager, accounts: Accounts
) -> None:
    """Where what was used has no price, all that is held by then is charged."""
    await manager.publish_pricing({"models": {"m": "output_tokens * 0.01 + 0 / (output_tokens - 7)"}})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for word in WORDS[:27]:
            await send({"type": "http.response.body", "body": chunk(word), "more_body": True})
        await asyncio.sleep(0.05)  # the step that is on its way is held
        await send({"type": "http.response.body", "body": usage_chunk(9, 7) + DONE, "more_body": False})

    await talk(incremental(app))
    assert await accounts.settled() == Decimal("0.4")


@pytest.mark.parametrize(("grace", "status"), [(PROMPT + 2, 200), (PROMPT + Decimal("1.99"), 503)])
async def test_what_is_let_pass_unpaid_counts_whole(
    incremental: Metered, manager: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch, grace: Decimal, status: int
) -> None:
    """A stream that begins while the engine is away does not grow: its worst case must fit into the grace."""

    async def away(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("away")

    app = incremental(Talker(WORDS[:50]), holds={"on_unavailable": "allow", "grace": grace})
    assert (await talk(app)).status == 200  # the prices are known from here on
    monkeypatch.setattr(manager.store, "reserve", away)
    answer = await talk(app)
    assert answer.status == status
    if status == 200:
        assert texts(answer) == WORDS[:50]


async def test_a_server_that_dies_under_a_stream(start_valkey: Callable[..., Server]) -> None:
    """The stream goes on to its end, and is charged all that it used, once, when the server is back."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.3) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)

        async def kill(number: int) -> None:
            if number == 37:
                server.kill()

        app = MeteringMiddleware(
            Talker(before=kill),
            manager=manager,
            account=lambda scope: "u1",
            holds=Holds(strategy="incremental", step_tokens=STEP),
        )
        assert texts(await talk(app)) == WORDS
        server.start()
        accounts = Accounts(manager)

        async def charged() -> bool:
            return accounts.journal()[-1].operation == "settle"

        await until(charged)
        assert await accounts.spent() == Decimal("0.009") + 2
        assert [entry.operation for entry in accounts.journal()].count("settle") == 1


@pytest.mark.parametrize(("ceiling", "held"), [(None, 200), (150, 150)])
async def test_a_request_without_a_limit(
    ceiling: int | None, held: int, incremental: Metered, accounts: Accounts
) -> None:
    """It grows beyond what is held by default where nothing is set, up to what no model exceeds."""
    unlimited = {name: value for name, value in REQUEST.items() if name != "max_tokens"}
    app = incremental(Talker(), upstream=Upstream(default_max_tokens=20, max_tokens_ceiling=ceiling))
    assert texts(await call(app, unlimited)) == WORDS
    assert await accounts.settled() == Decimal("0.009") + 2
    extended = [entry.amount for entry in accounts.journal() if entry.operation == "extend"]
    assert held * 10_000 <= sum(extended) + STEP * 10_000 <= (held + STEP) * 10_000


async def test_a_stream_in_one_message(incremental: Metered, poor: str, manager: AsyncCreditManager) -> None:
    """A last message with more than the account can pay is cut as any other."""
    body = b"".join([chunk(word) for word in WORDS] + [usage_chunk(9, len(WORDS)), DONE])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    answer = await talk(incremental(app), poor)
    assert texts(answer) == WORDS[:40]
    assert answer.body.endswith(DONE)
    assert [message.get("more_body", False) for message in answer.messages[1:]] == [False]
    await until(lambda: _nothing_held(manager, poor))
    assert (await manager.get_balance(poor)).balance == PROMPT + Decimal("0.47") - Decimal("0.31")
    rich = await talk(incremental(app))
    assert texts(rich) == WORDS
    assert rich.messages[-1].get("more_body", False) is False


async def test_a_recogniser_that_fails_is_charged_the_worst_case(incremental: Metered, accounts: Accounts) -> None:
    """Nobody can say when such a stream is to end: what is charged is not only the step that is held."""

    class FailingReader(ChatResponseReader):
        def skipped(self, events: bytes) -> None:
            raise KeyError("choices")

    class Failing(OpenAIChat):
        def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
            return FailingReader(request, estimates)

    answer = await talk(incremental(Talker(), recognisers=[Failing()]))
    assert texts(answer) == WORDS
    assert await accounts.settled() == PROMPT + Decimal("0.01") * REQUEST["max_tokens"]
    assert json.loads(accounts.journal()[-1].cause)["flags"] == ["answer_unread"]
