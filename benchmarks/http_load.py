"""Load over HTTP: connections that send the same request again as soon as its answer is there.

`wrk` does it where it is installed. Else a Python process, which takes more of the processor from the server: it reads
of an answer only what it must, its status and its length.
"""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from time import perf_counter

from ducto_redis.benchmark.harness import BenchmarkError

CONNECTIONS = 64

_TIMEOUT_SECONDS = 60
_HEAD_END = b"\r\n\r\n"
_WRK_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = assert(io.open(BODY_FILE, "rb"))
wrk.body = file:read("*a")
file:close()

done = function(summary)
  local errors = summary.errors
  io.write(string.format('\\n{"answered": %d, "microseconds": %d, "failed": %d}\\n', summary.requests,
    summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def load_tool() -> str:
    """Return the load tool that is here."""
    return "wrk" if shutil.which("wrk") else "a Python load generator"


def load(port: int, path: str, body: bytes, *, seconds: float, folder: Path) -> tuple[float, int]:
    """POST a JSON body from 64 connections for some seconds.

    Returns:
        Answers per second, and how many there were.

    Raises:
        BenchmarkError: for any answer but 200.
    """
    if shutil.which("wrk"):
        return _wrk(port, path, body, seconds, folder)
    return asyncio.run(_python(port, path, body, seconds))


def _wrk(port: int, path: str, body: bytes, seconds: float, folder: Path) -> tuple[float, int]:
    body_file, script = folder / "wrk-body.json", folder / "wrk.lua"
    body_file.write_bytes(body)
    script.write_text(f"local BODY_FILE = {json.dumps(str(body_file))}\n{_WRK_SCRIPT}")
    whole = max(1, round(seconds))
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{whole}s", "-s", str(script), f"http://127.0.0.1:{port}{path}"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        raise BenchmarkError(f"wrk failed: {(done.stderr or done.stdout)[-500:]}")
    said = json.loads(lines[-1])
    if said["failed"] or not said["answered"]:
        raise BenchmarkError(f"of {said['answered']} requests, {said['failed']} were not answered with 200")
    return said["answered"] / (said["microseconds"] / 1e6), said["answered"]


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transport.write(self._load.request)

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
            self._load.answered += 1
            if not self._load.over.done():
                self._transport.write(self._load.request)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.fail("the application closed a connection")


class _Load:
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answered = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_exception(BenchmarkError(reason))


async def _python(port: int, path: str, body: bytes, seconds: float) -> tuple[float, int]:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    loop = asyncio.get_running_loop()
    load = _Load(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    start = perf_counter()
    transports = []
    for _ in range(CONNECTIONS):
        transport, _ = await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
        transports.append(transport)
    timer = loop.call_later(seconds, load.end)
    try:
        await load.over
        return load.answered / (perf_counter() - start), load.answered
    finally:
        timer.cancel()
        for transport in transports:
            transport.abort()
