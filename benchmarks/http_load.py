"""Load over HTTP: connections that send the same request again as soon as its answer is there.

It reads of an answer only what it must, its status and its length, so that most of the processor is left to the server.
"""

import asyncio
from time import perf_counter

from benchmarks.harness import BenchmarkError

_TIMEOUT_SECONDS = 60
_HEAD_END = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._length:
            end = self._received.find(_HEAD_END)
            if end < 0:
                return
            head = self._received[:end].lower()
            if not head.startswith(b"http/1.1 200 "):
                self._load.fail(f"the application answered {head[:60]!r}")
                return
            value = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._length = end + len(_HEAD_END) + int(value)
        if len(self._received) >= self._length:
            self._received, self._length = b"", 0
            self._load.answered()
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.fail("the application closed a connection")

    def _send(self) -> None:
        if self._load.take():
            self._transport.write(self._load.request)


class _Load:
    def __init__(self, request: bytes, count: int) -> None:
        self.request = request
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_send = self._to_answer = count

    def take(self) -> bool:
        self._to_send -= 1
        return self._to_send >= 0

    def answered(self) -> None:
        self._to_answer -= 1
        if self._to_answer == 0:
            self.done.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchmarkError(reason))


async def requests_per_second(port: int, request: bytes, *, count: int, connections: int) -> float:
    """Send `count` requests to 127.0.0.1. Raises BenchmarkError for any answer but 200, with a content-length."""
    loop = asyncio.get_running_loop()
    load = _Load(request, count)
    start = perf_counter()
    transports = []
    for _ in range(connections):
        transport, _ = await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
        transports.append(transport)
    try:
        await asyncio.wait_for(load.done, _TIMEOUT_SECONDS)
        return count / (perf_counter() - start)
    finally:
        for transport in transports:
            transport.abort()
