"""Repeats on a real server: many processes with the same keys, a process that is killed, and the official client."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import openai
import pytest
import redis
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import IdempotencyKeys, MeteringMiddleware, StoredAnswers
from tests.middleware.asgi import CHAT, CHAT_REQUEST, DONE, answering, chunk, completion, streaming, until, usage_chunk
from tests.middleware.conftest import FUNDS, PRICING, Accounts
from tests.middleware.repeater import KEYS, ask, metered
from tests.middleware.serving import RawClient, serve
from tests.servers import Server

PROCESSES = 4
ROOT = Path(__file__).parents[2]
COST = Decimal("0.21")


@pytest.fixture
async def manager(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    """A manager on the server that the processes use."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace, timeout_seconds=30) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        yield manager


@pytest.fixture
def processes(valkey_url: str, namespace: str) -> Iterator[Any]:
    """Starts processes, and kills what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def start(work: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.middleware.repeater", valkey_url, namespace, work]
        started.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def said(process: "subprocess.Popen[str]") -> str:
    out: IO[str] | None = process.stdout
    assert out is not None
    return (await asyncio.to_thread(out.readline)).strip()


async def test_processes_race(
    manager: AsyncCreditManager, accounts: Accounts, processes: Any, valkey_url: str, namespace: str
) -> None:
    """Whoever comes first with a key runs and is charged, alone; all others get the same answer, byte for byte."""
    racers = [processes("race") for _ in range(PROCESSES)]
    for racer in racers:
        assert await said(racer) == "ready"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told: list[dict[str, tuple[int, str]]] = [json.loads(await said(racer)) for racer in racers]
    with redis.Redis.from_url(valkey_url) as client:
        assert client.get(f"overlaps:{namespace}") is None
        for number, key in enumerate(KEYS):
            answers = [tuple(answers[key]) for answers in told]
            fails = number % 3 == 0
            assert client.get(f"runs:{namespace}:{key}") == (b"2" if fails else b"1")
            statuses = sorted(status for status, _ in answers)
            assert statuses == [200] * (PROCESSES - fails) + [500] * fails, answers
            assert len({digest for status, digest in answers if status == 200}) == 1
    assert await accounts.settled() == len(KEYS) * COST
    operations = [entry.operation for entry in accounts.journal()]
    assert operations.count("settle") == len(KEYS)


async def test_a_process_is_killed(manager: AsyncCreditManager, accounts: Accounts, processes: Any) -> None:
    """Where a process is killed while it runs, a repeat that waits runs once the lease has expired, and is charged."""
    runs = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal runs
        runs += 1
        await answering(completion(10, 20))(scope, receive, send)

    hanging = processes("hang")
    assert await said(hanging) == "running"
    waiting = [asyncio.create_task(ask(metered(manager, app), KEYS[0])) for _ in range(3)]
    hanging.kill()
    answers = [await one for one in waiting]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert len({answer.body for answer in answers}) == 1
    assert (runs, await accounts.settled()) == (1, COST)
    ended = [entry.operation for entry in accounts.journal() if entry.operation_key.startswith("lease/")]
    assert ended == ["reserve", "expire", "reserve", "settle"]


async def test_the_engine_goes_away_while_the_first_runs(start_valkey: Callable[..., Server]) -> None:
    """The first gets its answer all the same; a repeat is refused until the engine is back, and then runs nothing."""
    server = start_valkey(appendfsync="always")
    async with AsyncCreditManager.from_url(server.url, timeout_seconds=0.5) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u1", FUNDS)
        runs = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal runs
            runs += 1
            server.kill()
            await answering(completion(10, 20))(scope, receive, send)

        wrapped = MeteringMiddleware(
            app, manager=manager, account=lambda _: "u1", idempotency=IdempotencyKeys(on_repeat="wait")
        )
        assert (await ask(wrapped, "k1")).status == 200
        assert (await ask(wrapped, "k1")).status == 503
        server.start()

        async def engine_is_back() -> bool:
            return not manager.pending.outbox

        await until(engine_is_back)
        repeat = await ask(wrapped, "k1")
        assert (repeat.status, repeat.error["code"]) == (409, "already_charged")
        assert (runs, await Accounts(manager).settled()) == (1, COST)


async def test_whoever_hangs_up_waits_no_longer(manager: AsyncCreditManager) -> None:
    """A repeat whose client closes its connection is let go by a real server, while the first goes on."""
    started, gate, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await gate.wait()
        await answering(completion(10, 20))(scope, receive, send)

    wrapped = metered(manager, app)

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        await wrapped(scope, receive, send)
        if not gate.is_set():
            left.set()

    body = json.dumps(CHAT_REQUEST).encode()
    async with serve(watched, lifespan="off") as port:
        first = await RawClient.post(port, CHAT, body, {"idempotency-key": "k1"})
        await started.wait()
        repeat = await RawClient.post(port, CHAT, body, {"idempotency-key": "k1"})
        await repeat.hang_up()
        await left.wait()
        gate.set()
        assert b"200 OK" in await first.reader.readline()
        await first.hang_up()


class Client:
    """The official client, whose requests may be lost on their way back."""

    def __init__(self, base_url: str) -> None:
        self.openai = openai.AsyncOpenAI(api_key="u1", base_url=base_url, max_retries=2)

    async def complete(self, key: str, **options: Any) -> Any:
        return await self.openai.chat.completions.with_raw_response.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=100,
            extra_headers={"Idempotency-Key": key},
            **options,
        )


@pytest.fixture
async def client(manager: AsyncCreditManager) -> AsyncIterator[Client]:
    """A client of an application that answers plainly, or, where it is asked to stream, with a stream."""
    whole = {"id": "1", "created": 1, "model": "m"}
    pieces = [chunk("a", **whole), chunk("b", **whole), usage_chunk(10, 20), DONE]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        answer = streaming(*pieces) if json.loads(body).get("stream") else answering(completion(10, 20, **whole))
        await answer(scope, again, send)

    wrapped = MeteringMiddleware(
        Starlette(routes=[Mount("/", app=app)]),
        manager=manager,
        account=lambda _: "u1",
        idempotency=IdempotencyKeys(on_repeat="conflict", stored_answers=StoredAnswers([b"k" * 32], ttl_seconds=60)),
    )
    async with serve(wrapped) as port:
        client = Client(f"http://127.0.0.1:{port}/v1")
        yield client
        await client.openai.close()


async def test_the_official_client(client: Client, accounts: Accounts) -> None:
    """The openai client gets the stored answer of its key, and reads it as the first."""
    first, repeat = await client.complete("k1"), await client.complete("k1")
    assert first.parse() == repeat.parse()
    assert first.content == repeat.content
    assert "idempotent-replayed" not in first.headers
    assert repeat.headers["idempotent-replayed"] == "true"
    assert await accounts.settled() == COST


async def test_the_official_client_streams(client: Client, accounts: Accounts) -> None:
    """So it does where it streams."""
    texts = []
    for _ in range(2):
        stream = (await client.complete("k1", stream=True)).parse()
        texts.append([part.choices[0].delta.content async for part in stream if part.choices])
    assert texts == [["a", "b"]] * 2
    assert await accounts.settled() == COST


async def test_the_official_client_is_refused(client: Client) -> None:
    """Another request with the same key raises the client's ConflictError, and is not sent again."""
    await client.complete("k1")
    with pytest.raises(openai.ConflictError) as refused:
        await client.complete("k1", temperature=1)
    assert refused.value.code == "idempotency_conflict"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
