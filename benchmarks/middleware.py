"""The middleware: an application that is metered beside the same application alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from time import perf_counter

from starlette.types import ASGIApp, Message, Scope

from benchmarks.chat_app import CHUNKS, PATH, bare, metered_by, request_body
from benchmarks.harness import BenchmarkError, Comparison, Contender, Figure
from benchmarks.http_load import requests_per_second
from benchmarks.servers import AppServer
from benchmarks.setting import Setting, prepare, prepare_namespace
from benchmarks.works import ACCOUNT
from ducto_redis import AsyncCreditManager

CONNECTIONS = 64

_FULL_REQUESTS = 3_000
_FULL_STREAMS = 200
_FULL_SERVED = 2_000

_METERED, _BARE = "metered", "bare"


def middleware(setting: Setting) -> Iterator[Comparison]:
    """Requests per second of a JSON answer and of a stream, in this process; and of a JSON answer under uvicorn."""
    for work, full, stream in (
        ("chat, JSON, in process", setting.count(_FULL_REQUESTS), False),
        (f"chat, stream of {CHUNKS} chunks, in process", setting.count(_FULL_STREAMS), True),
    ):
        yield _comparison(
            work,
            partial(_in_process, setting, full, stream, metered=True),
            partial(_in_process, setting, full, stream, metered=False),
        )
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_served(setting, name)) for name in (_METERED, _BARE)}
        full = setting.count(_FULL_SERVED)
        yield _comparison(
            f"chat, JSON, uvicorn, {CONNECTIONS} connections",
            partial(_over_http, ports[_METERED], full),
            partial(_over_http, ports[_BARE], full),
        )


def _comparison(work: str, metered: Callable[[], float], bare: Callable[[], float]) -> Comparison:
    contenders = [Contender(_METERED, metered), Contender(_BARE, bare)]
    return Comparison(work=work, unit="/s", contenders=contenders, figures=[Figure(_METERED, _BARE)])


def _in_process(setting: Setting, full: int, stream: bool, *, metered: bool) -> float:
    async def measure(namespace: str) -> float:
        async with AsyncExitStack() as stack:
            app: ASGIApp = bare()
            if metered:
                manager = AsyncCreditManager.from_url(setting.redis_url, namespace=namespace)
                await stack.enter_async_context(manager)
                await prepare(manager, ACCOUNT)
                app = metered_by(manager)
            body = request_body(stream=stream)
            await _calls(app, body, max(1, full // 10))
            return await _calls(app, body, full)

    with setting.namespace() as namespace:
        return asyncio.run(measure(namespace))


async def _calls(app: ASGIApp, body: bytes, full: int) -> float:
    calls = iter(range(full))

    async def call_after_call() -> None:
        for _ in calls:
            await _call(app, body)

    start = perf_counter()
    await asyncio.gather(*(call_after_call() for _ in range(CONNECTIONS)))
    return full / (perf_counter() - start)


async def _call(app: ASGIApp, body: bytes) -> None:
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
def _served(setting: Setting, name: str) -> Iterator[int]:
    """The port on which uvicorn serves one of the applications of chat_app.py."""
    with setting.namespace() as namespace:
        asyncio.run(prepare_namespace(setting, namespace, ACCOUNT))
        folder = setting.folder / namespace
        folder.mkdir()
        environment = {"DUCTO_REDIS_URL": setting.redis_url, "DUCTO_NAMESPACE": namespace}
        server = AppServer(folder, f"benchmarks.chat_app:{name}", environment).start()
        try:
            yield server.port
        finally:
            server.stop()


def _over_http(port: int, full: int) -> float:
    body = request_body(stream=False)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    asyncio.run(requests_per_second(port, request, count=max(CONNECTIONS, full // 10), connections=CONNECTIONS))
    return asyncio.run(requests_per_second(port, request, count=full, connections=CONNECTIONS))
