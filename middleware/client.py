"""The client of one request, as its server knows it, and what the application is told of it."""

import asyncio
from time import monotonic

from starlette.types import Message, Receive, Send


class ClientGoneError(OSError):
    """Nobody takes the answer any more: what a server raises from `send` when its client has left."""


class Client:
    """The server's `receive` and `send`.

    Args:
        receive, send: the server's.
        body: the body of the request where it has been read; the application gets it once. Every later call goes to
            the server.
        drain_seconds: how long an application whose client left may go on before it is told.
    """

    def __init__(self, receive: Receive, send: Send, body: bytes | None = None, drain_seconds: float = 0.0) -> None:
        self.left = False
        """Whether the client is known to have left; after its answer it always does."""
        self.told = False
        """Whether the application has been told that its client left."""
        self._receive = receive
        self._send = send
        self._body = body
        self._drain_seconds = drain_seconds
        self._stopped = False
        self._tell_at = 0.0
        self._ended: asyncio.Event | None = None

    async def receive(self) -> Message:
        """Give the application its next message."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message: Message = {"type": "http.disconnect"} if self.left else await self._receive()
        if message["type"] == "http.disconnect":
            self._leave()
            await self._drained()
            self.told = True
        return message

    async def send(self, message: Message) -> None:
        """Send the server a message; drop it while nobody takes it and the application is not to be told."""
        if self.left:
            if self._stopped:
                raise ClientGoneError("the answer has been ended")
            if self._seconds_to_drain() > 0:
                return
        try:
            await self._send(message)
        except OSError:
            self._leave()
            if self._seconds_to_drain() <= 0:
                self.told = True
                raise

    def end(self) -> None:
        """Note that the answer has ended: an application need not wait any longer for its client to leave."""
        self._drain_seconds = 0.0
        self._tell_at = 0.0
        if self._ended is not None:
            self._ended.set()

    def stop(self) -> None:
        """Tell the application that its client has left: the answer is to end here."""
        self.left = self.told = self._stopped = True
        self.end()

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            self._tell_at = monotonic() + self._drain_seconds

    def _seconds_to_drain(self) -> float:
        return self._tell_at - monotonic() if self._tell_at else 0.0

    async def _drained(self) -> None:
        """Wait until the application is to be told."""
        seconds = self._seconds_to_drain()
        if seconds <= 0:
            return
        if self._ended is None:
            self._ended = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            pass
