"""The link of threads: those that call at the same time share one pipelined socket.

One thread leads: it writes what has gathered and reads replies, its own and the others', and hands the lead over once
its own is in. Only `socket` and `threading` are used, so that gevent's patches hold.
"""

import os
import threading
from collections import deque
from contextlib import suppress
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
        self._socket: socket | None = None
        self._led = False
        self._reset()
        reset = WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    async def exchange(self, command: bytes, deadline: float) -> Any:
        call = _Call(command, deadline)
        with self._mutex:
            self._unsent.append(call)
            leads = not self._led
            self._led = True
        if not leads:
            self._follow(call)
        if call.leads or leads:
            self._lead(call)
        if call.lost is not None:
            raise ConnectionLostError(call.lost)
        return call.reply

    async def close(self) -> None:
        with self._mutex:
            lost, self._socket = self._socket, None
            calls = self._take_all()
        if lost is not None:
            lost.close()
        _tell(calls, "the link was closed")

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._led = False
        self._unsent: deque[_Call] = deque()
        self._in_flight: deque[_Call] = deque()
        self._socket = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._heard_at = 0.0

    def _after_fork(self) -> None:
        # The parent goes on using the connection; closing the child's copy of the descriptor does not end it.
        inherited = self._socket
        self._reset()
        if inherited is not None:
            inherited.close()

    def _follow(self, call: "_Call") -> None:
        try:
            woken = call.wake.acquire(timeout=max(0.0, call.deadline - monotonic()))
        except BaseException:
            self._leave(call)
            raise
        if not woken:
            self._leave(call)
            if not call.done:
                raise TimedOutError

    def _leave(self, call: "_Call") -> None:
        with self._mutex:
            call.abandoned = True
            if call in self._unsent:
                self._unsent.remove(call)
        if call.leads:
            self._hand_over()

    def _lead(self, call: "_Call") -> None:
        try:
            while not call.done:
                self._write()
                if not call.done:
                    self._read(call.deadline)
        except TimeoutError:
            call.abandoned = True
            if monotonic() - self._heard_at > self.timeout_seconds:
                self._lose("the server fell silent")
            if not call.done or call.lost is not None:
                raise TimedOutError from None
        except (OSError, hiredis.HiredisError, ConnectionLostError) as error:
            self._lose(str(error) or type(error).__name__)
        except BaseException:
            # Interrupted, perhaps between receiving and parsing: what was received so far cannot be trusted.
            call.abandoned = True
            self._lose("the thread that read replies was interrupted")
            raise
        finally:
            self._hand_over()

    def _write(self) -> None:
        with self._mutex:
            if not self._unsent:
                return
            calls = list(self._unsent)
            self._unsent.clear()
            if not self._in_flight:
                self._heard_at = monotonic()
            self._in_flight.extend(calls)
        if self._socket is None:
            remaining = max(call.deadline for call in calls) - monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._socket = connect_blocking(self._url, remaining)
            self._reader = hiredis.Reader(notEnoughData=_NOTHING)
            self._heard_at = monotonic()
        self._socket.settimeout(self.timeout_seconds)
        self._socket.sendall(b"".join([call.command for call in calls]))

    def _read(self, deadline: float) -> None:
        connection = self._socket
        if connection is None:
            raise ConnectionLostError("the link was closed")
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        data = connection.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionLostError("the server closed the connection")
        self._heard_at = monotonic()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _NOTHING:
            with self._mutex:
                answered = self._in_flight.popleft()
            answered.reply = reply
            answered.done = True
            answered.signal()

    def _lose(self, reason: str) -> None:
        with self._mutex:
            lost, self._socket = self._socket, None
            calls = self._take_all()
        if lost is not None:
            lost.close()
        _tell(calls, reason)

    def _take_all(self) -> "list[_Call]":
        calls = list(self._in_flight)
        self._in_flight.clear()
        return calls

    def _hand_over(self) -> None:
        with self._mutex:
            for waiting in (*self._in_flight, *self._unsent):
                if not waiting.abandoned and not waiting.done:
                    waiting.leads = True
                    waiting.signal()
                    return
            self._led = False


class _Call:
    """One command under way. `wake` is released when its reply is in, or when its thread is to lead."""

    __slots__ = ("abandoned", "command", "deadline", "done", "leads", "lost", "reply", "wake")

    def __init__(self, command: bytes, deadline: float) -> None:
        self.command = command
        self.deadline = deadline
        self.reply: Any = None
        self.lost: str | None = None
        self.done = False
        self.leads = False
        self.abandoned = False
        self.wake = threading.Lock()
        self.wake.acquire()

    def signal(self) -> None:
        """Wake the call's thread; once more changes nothing."""
        with suppress(RuntimeError):
            self.wake.release()


def _tell(calls: "list[_Call]", reason: str) -> None:
    for call in calls:
        call.lost = reason
        call.done = True
        call.signal()
