"""The middleware: an application that is metered beside the same application alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from time import perf_counter, process_time

from starlette.types import ASGIApp, Message, Scope

from benchmarks.chat_app import CHUNKS, PATH, bare, metered_by, request_body
from benchmarks.http_load import CONNECTIONS, load, load_tool
from benchmarks.servers import AppServer
from benchmarks.setting import Setting
from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure, Target
from ducto_redis.benchmark.run import QUICK_SCALE
from ducto_redis.benchmark.setting import ACCOUNT, prepare, prepare_namespace
from ducto_redis.benchmark.throughput import journalled

_FULL_REQUESTS = 3_000
_FULL_STREAMS = 200
_FULL_LONG_STREAMS = 6
_LONG_STREAM = 5_000
_SHORT_STREAM = 500
_FULL_SECONDS = 2.0
_WARM_UP_SECONDS = 1.0

_METERED, _BARE = "metered", "bare"


def middleware(setting: Setting) -> Iterator[Comparison]:
    """Compare a JSON answer and a stream in this process: rate and processor time; and JSON under uvicorn."""
    requests = setting.count(_FULL_REQUESTS)
    for work, full, stream in (
        ("chat, JSON, in process", requests, 0),
        (f"chat, stream of {CHUNKS} chunks, in process", setting.count(_FULL_STREAMS), CHUNKS),
    ):
        yield _comparison(
            work,
            partial(_in_process, setting, partial(_rate, request_body(chunks=stream), full), metered=True),
            partial(_in_process, setting, partial(_rate, request_body(chunks=stream), full), metered=False),
            None,
        )
    yield Comparison(
        work=f"chat, JSON, processor time of a request in process, {CONNECTIONS} at once",
        unit="µs",
        contenders=[
            Contender(name, partial(_in_process, setting, partial(_processor, requests), metered=name == _METERED))
            for name in (_METERED, _BARE)
        ],
        figures=[Figure(_METERED, _BARE, kind="overhead")],
    )
    yield Comparison(
        work="a streamed chunk that carries no usage",
        unit="µs",
        contenders=[
            Contender(name, partial(_in_process, setting, partial(_chunk, setting), metered=name == _METERED))
            for name in (_METERED, _BARE)
        ],
        figures=[Figure(_METERED, _BARE, kind="difference", target=Target(at_most=3))],
    )
    with ExitStack() as stack:
        served = {name: stack.enter_context(_served(setting, name)) for name in (_METERED, _BARE)}
        yield _comparison(
            f"chat, JSON, {AppServer.stack()}, {CONNECTIONS} connections of {load_tool()}",
            served[_METERED],
            served[_BARE],
            Target(at_least=0.65),
        )


def _comparison(
    work: str, metered: Callable[[], float], bare: Callable[[], float], target: Target | None
) -> Comparison:
    contenders = [Contender(_METERED, metered), Contender(_BARE, bare)]
    return Comparison(work=work, unit="/s", contenders=contenders, figures=[Figure(_METERED, _BARE, target=target)])


Measure = Callable[[ASGIApp], Awaitable[float]]


def _in_process(setting: Setting, measure: Measure, *, metered: bool) -> float:
    async def measured(namespace: str) -> float:
        async with AsyncExitStack() as stack:
            if not metered:
                return await measure(bare())
            manager = AsyncCreditManager.from_url(setting.redis_url, namespace=namespace)
            await stack.enter_async_context(manager)
            await prepare(manager, ACCOUNT)
            before = (await manager.get_balance(ACCOUNT)).balance
            sample = await measure(metered_by(manager))
            if (await manager.get_balance(ACCOUNT)).balance >= before:
                raise BenchmarkError("the metered application charged nothing")
            return sample

    with setting.namespace() as namespace:
        return asyncio.run(measured(namespace))


async def _rate(body: bytes, full: int, app: ASGIApp) -> float:
    """Requests per second, from 64 callers."""
    await _calls(app, body, max(1, full // 10))
    start = perf_counter()
    await _calls(app, body, full)
    return full / (perf_counter() - start)


async def _processor(full: int, app: ASGIApp) -> float:
    """Microseconds of the processor for one JSON request, of 64 callers."""
    body = request_body()
    await _calls(app, body, max(1, full // 10))
    start = process_time()
    await _calls(app, body, full)
    return (process_time() - start) / full * 1e6


async def _chunk(setting: Setting, app: ASGIApp) -> float:
    """Microseconds of the processor for one chunk: what long streams take beyond short ones, one at a time."""
    streams = setting.count(_FULL_LONG_STREAMS)
    used = []
    for chunks in (_SHORT_STREAM, _LONG_STREAM):
        body = request_body(chunks=chunks)
        await call(app, body)
        start = process_time()
        for _ in range(streams):
            await call(app, body)
        used.append(process_time() - start)
    return (used[1] - used[0]) / (streams * (_LONG_STREAM - _SHORT_STREAM)) * 1e6


async def _calls(app: ASGIApp, body: bytes, full: int) -> None:
    calls = iter(range(full))

    async def call_after_call() -> None:
        for _ in calls:
            await call(app, body)

    await asyncio.gather(*(call_after_call() for _ in range(CONNECTIONS)))


async def call(app: ASGIApp, body: bytes) -> None:
    statuses: list[int] = []
    ended = asyncio.Event()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif not message.get("more_body", False):
            ended.set()

    await app(_scope(len(body)), receive, send)
    if statuses != [200] or not ended.is_set():
        raise BenchmarkError(f"the application answered {statuses}")


def _scope(length: int) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % length),
        ],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }


@contextmanager
def _served(setting: Setting, name: str) -> Iterator[Callable[[], float]]:
    """Serves one of the applications of chat_app.py with uvicorn. What it gives measures its requests per second."""
    with setting.namespace() as namespace:
        asyncio.run(prepare_namespace(setting, namespace, ACCOUNT))
        folder = setting.folder / namespace
        folder.mkdir()
        environment = {"DUCTO_REDIS_URL": setting.redis_url, "DUCTO_NAMESPACE": namespace}
        server = AppServer(folder, f"benchmarks.chat_app:{name}", environment).start()
        try:
            send = partial(load, server.port, PATH, request_body(), folder=folder)
            if setting.scale >= QUICK_SCALE:
                send(seconds=_WARM_UP_SECONDS)

            def measure() -> float:
                before = journalled(setting, namespace)
                rate, answered = send(seconds=_FULL_SECONDS * setting.scale)
                charged = journalled(setting, namespace) - before
                if name == _METERED and charged < 2 * answered:  # each has a reserve and a settle
                    raise BenchmarkError(f"{answered} answers made {charged} journal entries")
                return rate

            yield measure
        finally:
            server.stop()
