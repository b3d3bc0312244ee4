"""Applications behind a real uvicorn, in the test's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tests.middleware.asgi import until


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the test keeps its own signal handlers


@asynccontextmanager
async def serve(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """Serve an application; gives the port on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5, **options))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:

            async def ready() -> bool:
                return server.started or task.done()

            await until(ready)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class RawClient:
    """A client that sends bytes and hangs up when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def post(cls, port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> "RawClient":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = {"host": "test", "content-length": str(len(body)), **(headers or {})}
        head = "\r\n".join([f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())])
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return cls(reader, writer)

    async def hang_up(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
