"""A TCP proxy in front of a server, which can hold replies back, cut connections, and let them fall silent."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


class Proxy:
    """Listens on a port of its own and passes everything on, until it is told otherwise.

    Attributes:
        url: of the proxy, as a client uses it.
        connections: how many were made so far.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.connections = 0
        self._open: list[_Connection] = []
        self._changed = threading.Condition()
        self._replies_pass = True
        self._next_is_silent = False
        self._end_next_reply: Callable[[_Connection], None] | None = None
        self._requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The thread that accepts is blocked in the listener, which closing alone does not wake.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release_replies()
        self.cut()

    def hold_replies(self) -> None:
        """From now on requests reach the server, and their replies wait here."""
        with self._changed:
            self._replies_pass = False
            self._requests = 0

    def release_replies(self) -> None:
        """Let the replies go on."""
        with self._changed:
            self._replies_pass = True
            self._changed.notify_all()

    def wait_for_replies(self, count: int = 1) -> None:
        """Wait until so many pieces of replies are held back: their requests have taken effect."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._requests >= count, timeout=30)

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self._take():
            connection.close()

    def cut_before_next_reply(self) -> None:
        """The next request takes effect, and its connection is cut instead of the reply."""
        self._end_next_reply = _Connection.close

    def half_close_before_next_reply(self) -> None:
        """The next request takes effect; instead of its reply the server's side is closed, the client's stays open."""
        self._end_next_reply = _Connection.half_close

    def cut_in_the_middle_of_next_reply(self) -> None:
        """Of the next reply only the first byte goes through."""
        self._end_next_reply = _Connection.close_after_a_byte

    def silence(self) -> None:
        """The connections that are open now pass nothing on any more, and stay open; new ones work."""
        for connection in self._take():
            connection.silent = True

    def silence_next_connection(self) -> None:
        """The next connection is accepted and passes nothing on; those after it work."""
        self._next_is_silent = True

    def _take(self) -> "list[_Connection]":
        with self._changed:
            taken, self._open = self._open, []
        return taken

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(client, socket.create_connection(self._server))
            with self._changed:
                connection.silent, self._next_is_silent = self._next_is_silent, False
                self.connections += 1
                self._open.append(connection)
            for work in (connection.pass_requests, lambda made=connection: self._pass_replies(made)):
                threading.Thread(target=work, daemon=True).start()

    def _pass_replies(self, connection: "_Connection") -> None:
        while data := connection.receive(connection.server):
            with self._changed:
                self._requests += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._replies_pass)
                end, self._end_next_reply = self._end_next_reply, None
            connection.last_reply = data
            if end is not None:
                end(connection)
                return
            if not connection.silent:
                connection.send(connection.client, data)
        connection.close()


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.silent = False
        self.last_reply = b""

    def pass_requests(self) -> None:
        while data := self.receive(self.client):
            if not self.silent:
                self.send(self.server, data)
        self.close()

    def receive(self, source: socket.socket) -> bytes:
        try:
            return source.recv(65536)
        except OSError:
            return b""

    def send(self, target: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):
            target.sendall(data)

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)

    def close_after_a_byte(self) -> None:
        self.send(self.client, self.last_reply[:1])
        self.close()

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
