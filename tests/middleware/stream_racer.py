"""Streams that race for one account: `python -m tests.middleware.stream_racer URL NAMESPACE PROCESSES STREAMS`.

The processes start together once all are connected; each prints, as JSON, how its streams ended.
"""

import asyncio
import json
import multiprocessing
import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, MeteringMiddleware
from tests.middleware.asgi import DONE, Answer, call, chunk, usage_chunk

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

ACCOUNT = "racers"
STEP_TOKENS = 20
MOST_WORDS = 150
REQUEST = {"model": "m", "messages": [], "max_tokens": 1000, "stream": True}


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    """Stream words of one token each, some at a time, and report them at the end."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    words, said = random.randint(1, MOST_WORDS), 0
    while said < words:
        count = min(words - said, random.choice((1, 1, 2, 5)))
        await send({"type": "http.response.body", "body": chunk("ab ") * count, "more_body": True})
        said += count
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": usage_chunk(1, said) + DONE, "more_body": False})


def outcome(answer: Answer) -> str:
    """How a stream ended."""
    if answer.status != 200:
        return str(answer.status)
    return "stopped" if b'"length"' in answer.body else "finished"


async def race(url: str, namespace: str, streams: int, start: "Barrier") -> dict[str, int]:
    """Run streams until the account has nothing left for any."""
    ended: Counter[str] = Counter()

    async def one(app: MeteringMiddleware) -> None:
        while (how := outcome(await call(app, REQUEST))) != "402":
            ended[how] += 1

    async with AsyncCreditManager.from_url(url, namespace=namespace, timeout_seconds=30) as manager:
        holds = Holds(strategy="incremental", step_tokens=STEP_TOKENS)
        app = MeteringMiddleware(talk, manager=manager, account=lambda scope: ACCOUNT, holds=holds)
        await asyncio.to_thread(start.wait)
        await asyncio.gather(*(one(app) for _ in range(streams)))
    return dict(ended)


def run(url: str, namespace: str, number: int, streams: int, start: "Barrier") -> None:
    """One of the processes."""
    random.seed(number)
    ended = asyncio.run(race(url, namespace, streams, start))
    os.write(sys.stdout.fileno(), json.dumps(ended).encode() + b"\n")  # in one piece: all processes share the output


def main(url: str, namespace: str, count: int, streams: int) -> int:
    """Start them and wait for them; 0 where all ended well."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(count)
    processes = [context.Process(target=run, args=(url, namespace, number, streams, start)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return any(process.exitcode for process in processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
