"""The link of threads: those that call at the same time share one pipelined socket.

One thread leads: it writes what has gathered and reads replies, its own and the others', and hands the lead over once
its own is in. Only `socket` and `threading` are used, so that gevent's patches hold.
"""

import os
import threading
from collections import deque
from contextlib import suppress
from socket import SHUT_RDWR
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import hiredis

from ducto_redis.engine.connecting import check_url, connect_blocking
from ducto_redis.engine.link import DEFAULT_TIMEOUT_SECONDS, ConnectionLostError, Link, TimedOutError

if TYPE_CHECKING:
    from socket import socket

_NOTHING = object()
_RECEIVE_BYTES = 65536


class BlockingLink(Link):
    """One shared connection, made at first use and again when it was lost; a forked child makes its own.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: how long an operation may take, connecting included.
    """

    def __init__(self, url: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        super().__init__(timeout_seconds=timeout_seconds)
        self._url = check_url(url)
        self._reset()
        reset = WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        self._mutex = threading.Lock()  # over all that follows
        self._leader: _Call | None = None
        self._unsent: deque[_Call] = deque()
        self._connection: _Connection | None = None

    async def exchange(self, command: bytes, deadline: float) -> Any:
        call = _Call(command, deadline)
        try:
            with self._mutex:
                self._unsent.append(call)
                # A leader that was interrupted on its way out has left without naming the next.
                if self._leader is None or self._leader.left:
                    self._leader = call
            if self._leader is not call:
                call.wake.acquire(timeout=max(0.0, deadline - monotonic()))
            if self._leader is call:
                self._lead(call)
        finally:
            call.left = True
            if not call.done or self._leader is call:
                self._leave(call)
        if call.lost is not None:
            raise ConnectionLostError(call.lost)
        if not call.done:
            raise TimedOutError
        return call.reply

    async def close(self) -> None:
        self.times_closed += 1
        self._lose("the link was closed", unsent=True)

    def _after_fork(self) -> None:
        # The parent goes on using the connection; closing the child's copy of the descriptor does not end it.
        inherited = self._connection
        self._reset()
        if inherited is not None:
            inherited.socket.close()

    def _lead(self, call: "_Call") -> None:
        try:
            while not call.done:
                connection = self._connection or self._connect(call)
                if connection is not None:
                    self._write(connection, call)
                    self._read(connection, call)
        except TimeoutError:
            connection = self._connection
            if connection is not None and monotonic() - connection.heard_at > self.timeout_seconds:
                self._lose("the server fell silent")
        except (OSError, hiredis.HiredisError) as error:
            self._lose(str(error) or type(error).__name__)
        except BaseException:
            # Interrupted, perhaps between receiving and parsing: what was received so far cannot be trusted.
            self._lose("the thread that read replies was interrupted")
            raise

    def _connect(self, call: "_Call") -> "_Connection | None":
        try:
            connection = _Connection(connect_blocking(self._url, call.remaining()))
        except ConnectionLostError as error:
            # One attempt serves all who wait for it.
            self._lose(str(error), unsent=True)
            return None
        with self._mutex:
            if not call.done:
                self._connection = connection
                return connection
        connection.close()  # the link was closed meanwhile
        return None

    def _write(self, connection: "_Connection", call: "_Call") -> None:
        remaining = call.remaining()
        with self._mutex:
            if not self._unsent or connection is not self._connection:
                return
            if not connection.in_flight:
                connection.heard_at = monotonic()
            command = b"".join([waiting.command for waiting in self._unsent])
            connection.in_flight.extend(self._unsent)
            self._unsent.clear()
        connection.socket.settimeout(remaining)
        try:
            connection.socket.sendall(command)
        except TimeoutError:  # a command may have gone out in part
            raise OSError("the server takes no more commands") from None

    def _read(self, connection: "_Connection", call: "_Call") -> None:
        connection.socket.settimeout(call.remaining())
        data = connection.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise OSError("the server closed the connection")
        connection.heard_at = monotonic()
        connection.reader.feed(data)
        replies = []
        while (reply := connection.reader.gets()) is not _NOTHING:
            replies.append(reply)
        with self._mutex:
            if connection is not self._connection:
                return
            if len(replies) > len(connection.in_flight):
                raise OSError("the server broke the protocol: it sent a reply that nobody had asked for")
            for reply in replies:
                # It leaves the queue once it has its reply: until then a lost connection is told to it.
                answered = connection.in_flight[0]
                answered.reply = reply
                answered.done = True
                connection.in_flight.popleft()
                answered.signal()

    def _lose(self, reason: str, *, unsent: bool = False) -> None:
        with self._mutex:
            connection, self._connection = self._connection, None
            calls = [] if connection is None else list(connection.in_flight)
            if unsent:
                calls.extend(self._unsent)
                self._unsent.clear()
        for call in calls:
            call.lost = reason
            call.done = True
            call.signal()
        if connection is not None:
            connection.close()  # a leader that waits for its data wakes up, and finds that its call is lost

    def _leave(self, call: "_Call") -> None:
        with self._mutex:
            if not call.done and call in self._unsent:
                self._unsent.remove(call)
            if self._leader is call:
                in_flight = () if self._connection is None else self._connection.in_flight
                waiting = (other for other in (*in_flight, *self._unsent) if not (other.left or other.done))
                self._leader = next(waiting, None)
                if self._leader is not None:
                    self._leader.signal()


class _Connection:
    """A connected socket, and the calls whose replies it owes, in their order."""

    __slots__ = ("heard_at", "in_flight", "reader", "socket")

    def __init__(self, connected: "socket") -> None:
        self.socket = connected
        self.reader = hiredis.Reader(notEnoughData=_NOTHING)
        self.in_flight: deque[_Call] = deque()
        self.heard_at = monotonic()

    def close(self) -> None:
        """Close it, also under a thread that waits for its data."""
        with suppress(OSError):
            self.socket.shutdown(SHUT_RDWR)
        self.socket.close()


class _Call:
    """One command under way.

    Attributes:
        done: whether its reply is there, or `lost`, why there will be none.
        left: whether its thread has gone.
        wake: released when it is done, or when its thread is to lead.
    """

    __slots__ = ("command", "deadline", "done", "left", "lost", "reply", "wake")

    def __init__(self, command: bytes, deadline: float) -> None:
        self.command = command
        self.deadline = deadline
        self.reply: Any = None
        self.lost: str | None = None
        self.done = False
        self.left = False
        self.wake = threading.Lock()
        self.wake.acquire()

    def remaining(self) -> float:
        """Seconds until its deadline. Raises TimeoutError where it has passed."""
        seconds = self.deadline - monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def signal(self) -> None:
        """Wake the call's thread; once more changes nothing."""
        with suppress(RuntimeError):
            self.wake.release()
