"""A process that asks with Idempotency-Keys: `python -m tests.middleware.repeater URL NAMESPACE WORK`.

    race   says `ready`, waits for a line, asks with all of KEYS at once, and says what it was answered
    hang   says `running` once its application runs, which never answers

The application notes its runs in Redis.
"""

import asyncio
import hashlib
import json
import sys

import redis.asyncio
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, IdempotencyKeys, MeteringMiddleware, StoredAnswers
from tests.middleware.asgi import DONE, Answer, chunk, completion, scope, usage_chunk

KEYS = [f"key-{number}" for number in range(12)]
ANSWER_KEY = b"k" * 32
TTL_SECONDS = 1.0
"""The life of a hold whose process is killed: the test waits for its end."""
LONG_TTL_SECONDS = 60.0
"""The life of a hold in a race, which no busy machine outlasts."""


def app_on(client: "redis.asyncio.Redis", namespace: str) -> ASGIApp:
    """An application whose first run of every third key fails. It answers with JSON or a stream, never twice alike."""

    async def app(asked: Scope, receive: Receive, send: Send) -> None:
        key = dict(asked["headers"])[b"idempotency-key"].decode()
        run = await client.incr(f"runs:{namespace}:{key}")
        if await client.incr(f"now:{namespace}:{key}") > 1:
            await client.incr(f"overlaps:{namespace}")
        for _ in range(5):
            await client.ping()
        fails = run == 1 and int(key.rpartition("-")[2]) % 3 == 0
        streams = int(key.rpartition("-")[2]) % 2 == 1
        await client.decr(f"now:{namespace}:{key}")
        text = f"run {run} of {key}"
        pieces = [chunk(text), usage_chunk(10, 20), DONE] if streams else [json.dumps(completion(text=text)).encode()]
        kind = b"text/event-stream" if streams else b"application/json"
        await send(
            {"type": "http.response.start", "status": 500 if fails else 200, "headers": [(b"content-type", kind)]}
        )
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def metered(manager: AsyncCreditManager, app: ASGIApp, *, ttl_seconds: float = TTL_SECONDS) -> ASGIApp:
    """The middleware of all the processes."""
    return MeteringMiddleware(
        app,
        manager=manager,
        account=lambda _: "u1",
        idempotency=IdempotencyKeys(on_repeat="wait", stored_answers=StoredAnswers([ANSWER_KEY])),
        holds=Holds(ttl_seconds=ttl_seconds),
    )


async def ask(app: ASGIApp, key: str) -> Answer:
    """Ask with a key."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}).encode()
    answer, messages = Answer(), iter([{"type": "http.request", "body": body, "more_body": False}])
    stays = asyncio.Event()

    async def receive() -> dict[str, object]:
        message = next(messages, None)
        if message is None:
            await stays.wait()
        return message or {}

    async def send(message: dict[str, object]) -> None:
        answer.messages.append(message)

    await app(scope(headers={"Idempotency-Key": key}), receive, send)  # type: ignore[arg-type]
    return answer


async def race(url: str, namespace: str) -> None:
    """Ask with all keys at once."""
    async with AsyncCreditManager.from_url(url, namespace=namespace, timeout_seconds=30) as manager:
        client = redis.asyncio.Redis.from_url(url)
        app = metered(manager, app_on(client, namespace), ttl_seconds=LONG_TTL_SECONDS)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        answers = await asyncio.gather(*(ask(app, key) for key in KEYS))
        await client.aclose()
        # A refusal is told as it is, so that a race that went wrong says why.
        said = {
            key: (answer.status, hashlib.sha256(answer.body).hexdigest() if answer.status < 400 else str(answer.body))
            for key, answer in zip(KEYS, answers, strict=True)
        }
        print(json.dumps(said), flush=True)


async def hang(url: str, namespace: str) -> None:
    """Ask with the first key, and hang in the application."""

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        print("running", flush=True)
        await asyncio.Event().wait()

    async with AsyncCreditManager.from_url(url, namespace=namespace) as manager:
        await ask(metered(manager, hanging), KEYS[0])


if __name__ == "__main__":
    asyncio.run({"race": race, "hang": hang}[sys.argv[3]](sys.argv[1], sys.argv[2]))
