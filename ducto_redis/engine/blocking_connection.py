"""A connection that threads share: those that call at the same time are served by one pipelined socket.

One thread leads: it writes what has gathered and reads replies, its own and the others', and hands the lead over once
its own is in. A thread waits for its own call, so there are never more calls than threads. Only `socket` and
`threading` are used, so that gevent's patches hold.
"""

import threading
from collections import deque
from contextlib import suppress
from socket import SHUT_RDWR
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis

from ducto_redis.engine.breaker import Breaker
from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

_NOTHING = object()
_RECEIVE_BYTES = 65536
_DEADLINE_CHECK_SECONDS = 0.05


class SharedConnection:
    """The connection to a node, made at first use and again when it was lost.

    Args:
        connect: makes the socket, within so many seconds.
        breaker: of the node, told whether it answers.
        attempt_seconds: after which a server that does not let itself be connected to, or owes replies and says
            nothing, is given up.
    """

    def __init__(self, connect: "Callable[[float], socket]", breaker: Breaker, attempt_seconds: float) -> None:
        self._connect_socket = connect
        self._breaker = breaker
        self._attempt_seconds = attempt_seconds
        self._mutex = threading.Lock()  # over all that follows
        self._leader: _Call | None = None
        self._unsent: deque[_Call] = deque()
        self._connection: _Connection | None = None

    def exchange(self, command: bytes, deadline: float, *, before: bytes = b"") -> Any:
        """Send a command and return its reply. `before` goes before it, and its reply is dropped.

        Raises:
            ConnectionLostError, TimedOutError
        """
        call = _Call(command, deadline)
        calls = (_Call(before, deadline, waits=False), call) if before else (call,)
        try:
            with self._mutex:
                self._unsent.extend(calls)
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
            raise type(call.lost)(str(call.lost))
        if not call.done:
            raise TimedOutError
        return call.reply

    def close(self) -> None:
        """Close the socket, and fail what is under way."""
        self._lose("the link was closed", unsent=True)

    def drop_after_fork(self) -> None:
        """Let go of the parent's socket, which goes on using it: closing a copy of its descriptor does not end it."""
        if self._connection is not None:
            self._connection.socket.close()

    def _lead(self, call: "_Call") -> None:
        try:
            while not call.done:
                connection = self._connection or self._connect(call)
                if connection is not None:
                    self._write(connection, call)
                    self._read(connection, call)
        except _DeadlinePassed:
            pass
        except (OSError, hiredis.HiredisError) as error:
            self._lose(str(error) or type(error).__name__)
        except BaseException:
            # Interrupted, perhaps between receiving and parsing: what was received so far cannot be trusted.
            self._lose("the thread that read replies was interrupted")
            raise

    def _connect(self, call: "_Call") -> "_Connection | None":
        began = monotonic()
        try:
            connection = _Connection(self._connect_socket(min(call.remaining(), self._attempt_seconds)))
        except ConnectionLostError as error:
            self._breaker.failed(monotonic(), since=began)
            # One attempt serves all who wait for it.
            self._lose(error, unsent=True)
            return None
        with self._mutex:
            if not call.done:
                self._connection = connection
                return connection
        connection.close()  # the link was closed meanwhile
        return None

    def _write(self, connection: "_Connection", call: "_Call") -> None:
        call.remaining()
        with self._mutex:
            if not self._unsent or connection is not self._connection:
                return
            if not connection.in_flight:
                connection.heard_at = monotonic()
            command = b"".join([waiting.command for waiting in self._unsent])
            connection.in_flight.extend(self._unsent)
            self._unsent.clear()
        unsent = memoryview(command)
        while unsent:
            try:
                unsent = unsent[connection.socket.send(unsent) :]
            except TimeoutError:
                if monotonic() > min(call.deadline, connection.heard_at + self._attempt_seconds):
                    # A command may have gone out in part: nothing can follow it.
                    raise OSError("the server takes no more commands") from None

    def _read(self, connection: "_Connection", call: "_Call") -> None:
        try:
            data = connection.socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            if monotonic() - connection.heard_at > self._attempt_seconds:
                raise OSError("the server fell silent") from None
            return
        if not data:
            raise OSError("the server closed the connection")
        connection.heard_at = monotonic()
        if self._breaker.failures:
            self._breaker.succeeded()
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

    def _lose(self, reason: str | ConnectionLostError, *, unsent: bool = False) -> None:
        lost = ConnectionLostError(reason) if isinstance(reason, str) else reason
        with self._mutex:
            connection, self._connection = self._connection, None
            calls = [] if connection is None else list(connection.in_flight)
            if unsent:
                calls.extend(self._unsent)
                self._unsent.clear()
        if connection is not None and connection.in_flight:
            self._breaker.failed(monotonic(), since=connection.heard_at)
        for call in calls:
            call.lost = lost
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


class _DeadlinePassed(Exception):
    """To the thread that leads: its own call has no more time."""


class _Connection:
    """A connected socket, and the calls whose replies it owes, in their order."""

    __slots__ = ("heard_at", "in_flight", "reader", "socket")

    def __init__(self, connected: "socket") -> None:
        self.socket = connected
        # Set once, and deadlines looked at this often: to set it for each call takes a system call, and lets go of the
        # interpreter's lock where other threads wait for it.
        connected.settimeout(_DEADLINE_CHECK_SECONDS)
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
        left: whether its thread has gone, or none ever waited for it.
        wake: released when it is done, or when its thread is to lead.
    """

    __slots__ = ("command", "deadline", "done", "left", "lost", "reply", "wake")

    def __init__(self, command: bytes, deadline: float, *, waits: bool = True) -> None:
        self.command = command
        self.deadline = deadline
        self.reply: Any = None
        self.lost: ConnectionLostError | None = None
        self.done = False
        self.left = not waits
        self.wake = threading.Lock()
        self.wake.acquire()

    def remaining(self) -> float:
        """Seconds until its deadline. Raises _DeadlinePassed where there are none."""
        seconds = self.deadline - monotonic()
        if seconds <= 0:
            raise _DeadlinePassed
        return seconds

    def signal(self) -> None:
        """Wake the call's thread; once more changes nothing."""
        with suppress(RuntimeError):
            self.wake.release()
