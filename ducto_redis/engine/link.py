"""The link to the engine: one operation in, its result out, many of them on one connection at a time.

`AsyncLink` and `BlockingLink` differ in how they exchange bytes; what is done with a reply, and what may be done again,
is the same for both and stands here. Every operation that changes something carries its own key, so an operation whose
connection was lost may be sent again: it takes effect once.
"""

from abc import ABC, abstractmethod
from time import monotonic
from typing import Any, NoReturn, TypeVar

import hiredis

from ducto_redis.engine.operation import Operation
from ducto_redis.engine.replies import MoreIsDue
from ducto_redis.engine.scripts import Script
from ducto_redis.errors import StoreError, StoreUnavailableError

R = TypeVar("R")

DEFAULT_TIMEOUT_SECONDS = 2.0

# Replies of a server that cannot serve now but may soon: starting, failing over, its disk full, busy with a script.
_TEMPORARY = ("LOADING", "BUSY", "MASTERDOWN", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF")
_RETRIES = 1


class ConnectionLostError(Exception):
    """The connection was lost, or could not be made; what was sent may or may not have taken effect."""


class TimedOutError(Exception):
    """The deadline passed."""


class Link(ABC):
    """Sends operations and reads their replies. `run` is a coroutine; a blocking link's never suspends."""

    def __init__(self, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.timeout_seconds = timeout_seconds
        self.times_closed = 0

    @abstractmethod
    async def exchange(self, command: bytes, deadline: float) -> Any:
        """Send a packed command and return its reply; an error reply is returned, not raised.

        Raises:
            ConnectionLostError, TimedOutError
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, count it in `times_closed`, and fail what is under way.

        The connection is made again when it is needed again.
        """

    async def run(self, operation: Operation[R], *, timeout_seconds: float | None = None) -> R:
        """Run an operation and return its result.

        Args:
            operation: what to run.
            timeout_seconds: after which it is given up, connecting and trying again included; the link's by default.

        Raises:
            StoreUnavailableError: if the engine did not answer in time; whether it took effect is unknown.
            CreditError: what the operation's refusals mean.
        """
        deadline = monotonic() + (self.timeout_seconds if timeout_seconds is None else timeout_seconds)
        command = _pack_evalsha(operation)
        retries = _RETRIES
        times_closed = self.times_closed
        while True:
            try:
                if self.times_closed != times_closed:  # what was under way then does not connect it anew
                    raise ConnectionLostError("the link was closed")
                reply = await self.exchange(command, deadline)
            except ConnectionLostError as error:
                if retries and self.times_closed == times_closed and monotonic() < deadline:
                    retries -= 1
                    continue
                raise StoreUnavailableError(
                    f"the engine could not be reached: {error}", operation_key=operation.operation_key
                ) from error
            except TimedOutError:
                raise _timed_out(operation) from None
            if isinstance(reply, hiredis.ReplyError):
                if str(reply).startswith("NOSCRIPT"):
                    command = _pack_eval(operation)
                    continue
                _raise_reply_error(operation.script, reply, operation.operation_key)
            try:
                return operation.result(reply)
            except MoreIsDue:
                if monotonic() >= deadline:
                    raise _timed_out(operation) from None
                command = _pack_evalsha(operation)


def _timed_out(operation: Operation[Any]) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the engine did not answer {operation.script.name} in time", operation_key=operation.operation_key
    )


def _pack_evalsha(operation: Operation[Any]) -> bytes:
    keys = operation.keys
    return _pack(("EVALSHA", operation.script.sha, len(keys), *keys, *operation.args))


def _pack_eval(operation: Operation[Any]) -> bytes:
    keys = operation.keys
    return _pack(("EVAL", operation.script.text, len(keys), *keys, *operation.args))


def _pack(command: tuple[str | bytes | int, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means one or more of these
    return packed


def _raise_reply_error(script: Script, error: hiredis.ReplyError, operation_key: str | None) -> NoReturn:
    text = str(error)
    if text.startswith(_TEMPORARY):
        raise StoreUnavailableError(f"the engine cannot serve now: {text:.200}", operation_key=operation_key)
    if text.startswith("OOM"):
        raise StoreError(f"the engine's memory is full: {script.name} was refused; settle and release still work")
    if text.startswith(("NOPERM", "NOAUTH", "WRONGPASS")):
        raise StoreError(f"the engine refused the credentials or their rights: {text:.200}")
    raise StoreError(f"{script.name} failed in the engine: {text:.400}")
