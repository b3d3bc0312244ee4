"""The link to the engine: one operation in, its result out, many of them on each connection at a time.

`AsyncLink` and `BlockingLink` differ in how they exchange bytes and wait; where an operation goes, what its reply
means, and what may be done again, is the same for both and stands here. Every operation that changes something carries
its own key, so one whose connection was lost is sent again, until its deadline: it takes effect once.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from time import monotonic
from typing import Any, NoReturn, TypeVar

import hiredis

from ducto_redis.engine.backoff import backoff
from ducto_redis.engine.breaker import Breaker
from ducto_redis.engine.connecting import ConnectionLostError, HandshakeRefusedError, TimedOutError
from ducto_redis.engine.keys import slot_of_key
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.refusals import MoreIsDue
from ducto_redis.engine.scripts import Script
from ducto_redis.engine.topology import Node, Topology
from ducto_redis.errors import StoreError, StoreUnavailableError

R = TypeVar("R")

DEFAULT_TIMEOUT_SECONDS = 2.0
ASKING = hiredis.pack_command(("ASKING",))

ADMITTING = frozenset(("add_credits", "deduct", "extend", "find_lease", "kept_value", "read_pricing", "reserve"))
"""What a breaker that is open refuses at once: what admits something new, and the looking before that. All else goes on
until its deadline: what was admitted is charged."""

_NODES_ASKED = 4
_ATTEMPTS = 2
_SHORTEST_ATTEMPT_SECONDS = 0.01
# Replies of a node that cannot serve now but may soon: starting, failing over, moving slots, busy with a script.
_SOON = ("LOADING", "BUSY", "TRYAGAIN", "NOREPLICAS")
# Replies of a node that is not, or no longer, the one to ask.
_ELSEWHERE = ("READONLY", "MASTERDOWN", "CLUSTERDOWN")
_NO_RIGHTS = ("NOPERM", "NOAUTH", "WRONGPASS")


class Link(ABC):
    """Sends operations and reads their replies. `run` is a coroutine; a blocking link's never suspends.

    Args:
        topology: which node holds what. A link keeps it up to date.
        timeout_seconds: how long an operation may take, connecting and trying again included.

    Attributes:
        attempt_seconds: after which a server that does not let itself be connected to, or owes replies and says
            nothing, is given up: half of the time of an operation, so that the other half is left for a new connection.
    """

    def __init__(self, topology: Topology, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.topology = topology
        self.timeout_seconds = timeout_seconds
        self.attempt_seconds = timeout_seconds / _ATTEMPTS
        self.times_closed = 0
        self._slots: dict[int, int] = {}
        self._breakers: dict[Node, Breaker] = {}
        self._without_evalsha: set[Node] = set()

    @abstractmethod
    def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Awaitable[Any]:
        """Send a packed command to a node; awaited, it is the reply. An error reply is returned, not raised.

        Args:
            node: where to.
            command: packed.
            deadline: on the clock of `monotonic`.
            asking: whether ASKING goes before it, for a slot that is moving there.

        Raises:
            ConnectionLostError, TimedOutError
        """

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait before the next attempt. Closing the link ends it."""

    @abstractmethod
    async def discover(self, deadline: float) -> None:
        """Let the topology find out which node holds what. Those who want that at the same time share one attempt.

        Raises:
            ConnectionLostError, TimedOutError
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections, count it in `times_closed`, and fail what is under way.

        They are made again when they are needed again.
        """

    def patience(self) -> float:
        """Return the deadline of a node that is asked for the slots, early enough to ask another one."""
        return monotonic() + self.timeout_seconds / _NODES_ASKED

    def breaker_of(self, node: Node) -> Breaker:
        """Return the circuit breaker of a node."""
        breaker = self._breakers.get(node)
        if breaker is None:
            breaker = self._breakers.setdefault(node, Breaker(self.timeout_seconds))
        return breaker

    async def run(self, operation: Operation[R], *, timeout_seconds: float | None = None) -> R:
        """Run an operation and return its result.

        Args:
            operation: what to run.
            timeout_seconds: after which it is given up, connecting and trying again included; the link's by default.

        Raises:
            StoreUnavailableError: if the engine did not answer in time; whether it took effect is unknown, unless the
                message says that it was not sent.
            CreditError: what the operation's refusals mean.
        """
        deadline = monotonic() + (self.timeout_seconds if timeout_seconds is None else timeout_seconds)
        slot = self._slots.get(operation.partition)
        if slot is None:
            slot = self._slots[operation.partition] = slot_of_key(operation.keys[0]) if operation.keys else 0
        call = _Call(operation, slot, deadline, self.times_closed)
        while True:
            at_once = False
            node = call.asking or self.topology.only or self.topology.node_of(slot)
            try:
                if node is None:
                    node = await self._discovered(slot, deadline)
                breaker = self._breakers.get(node)
                if (breaker is not None and breaker.is_open) or self._without_evalsha:
                    self._prepare(call, node, breaker)
                reply = await self.exchange(node, call.command, deadline, asking=call.asking is not None)
            except HandshakeRefusedError as error:
                raise _unreachable(operation, str(error)) from error
            except ConnectionLostError as error:
                if node is not None:
                    self.topology.lost(node)
                call.reason, call.asking = str(error), None
            except TimedOutError as error:
                raise _timed_out(operation, error.reason) from None
            else:
                if isinstance(reply, hiredis.ReplyError):
                    at_once = self._heed(call, node, str(reply))
                elif call.sent is not operation:  # the sweep is done: whatever it replied, the operation tells
                    call.send(operation)
                    at_once = True
                else:
                    try:
                        return operation.read(operation, reply)
                    except MoreIsDue:
                        call.send(operation.sweep or operation)
                        call.reason, at_once = "more is due than there was time for", True
            if not at_once:
                await self._wait(call)
            elif self.times_closed != call.times_closed:
                raise _unreachable(operation, "the link was closed")
            elif monotonic() >= deadline:
                raise _timed_out(operation, call.reason)

    async def _discovered(self, slot: int, deadline: float) -> Node:
        await self.discover(deadline)
        node = self.topology.node_of(slot)
        if node is None:
            raise ConnectionLostError("no node holds the account's slot")
        return node

    def _prepare(self, call: "_Call", node: Node, breaker: Breaker | None) -> None:
        """Refuse what an open breaker does not admit, and send the script's text where its SHA is not taken."""
        if breaker is not None and breaker.is_open and not call.attempts:  # what has begun goes on
            _check_admitted(breaker, node, call.operation)
        if node in self._without_evalsha:
            call.command = _pack(call.sent, "EVAL", call.sent.script.text)

    def _heed(self, call: "_Call", node: Node, error: str) -> bool:
        """Do what an error reply asks for. Returns whether the next attempt may be made at once."""
        call.reason = error
        if error.startswith("NOSCRIPT"):
            call.command = _pack(call.sent, "EVAL", call.sent.script.text)
            return True
        if error.startswith("NOPERM") and "evalsha" in error and node not in self._without_evalsha:
            self._without_evalsha.add(node)
            return True
        if error.startswith(("MOVED ", "ASK ")):
            target = _read_redirection(error, node)
            call.asking = target if error.startswith("ASK ") else None
            if call.asking is None:
                self.topology.moved(call.slot, target)
            call.redirections += 1
            call.reason = call.waited_for or error  # being sent on is no reason: what is there in its way is one
            return call.redirections % _REDIRECTIONS_AT_ONCE != 0
        if error.startswith(_ELSEWHERE):
            self.topology.lost(node)
        elif not error.startswith(_SOON):
            _raise_reply_error(call.sent.script, error, call.operation.operation_key)
        call.asking = None
        return False

    async def _wait(self, call: "_Call") -> None:
        """Wait for the next attempt. Raises StoreUnavailableError where there will be none."""
        call.attempts += 1
        call.waited_for = call.reason
        remaining = call.deadline - monotonic()
        # What was under way when the link was closed does not connect it anew.
        if self.times_closed != call.times_closed or remaining < _SHORTEST_ATTEMPT_SECONDS:
            raise _unreachable(call.operation, call.reason)
        await self.pause(min(backoff(call.attempts), remaining / 2))
        if self.times_closed != call.times_closed:
            raise _unreachable(call.operation, "the link was closed")


class _Call:
    """One operation on its way: what is sent next, and why the last attempt did not do."""

    __slots__ = (
        "asking",
        "attempts",
        "command",
        "deadline",
        "operation",
        "reason",
        "redirections",
        "sent",
        "slot",
        "times_closed",
        "waited_for",
    )

    def __init__(self, operation: Operation[Any], slot: int, deadline: float, times_closed: int) -> None:
        self.operation = operation
        self.slot = slot
        self.deadline = deadline
        self.times_closed = times_closed
        self.send(operation)
        self.attempts = 0
        self.redirections = 0
        self.reason = ""
        self.waited_for = ""

    def send(self, operation: Operation[Any]) -> None:
        """Send this next: the operation itself, or the sweep that comes before it."""
        self.sent = operation
        self.command = _pack(operation, "EVALSHA", operation.script.sha)
        self.asking: Node | None = None  # the node that a slot is moving to, for the next attempt


# Nodes that disagree may send an operation back and forth: now and then it waits.
_REDIRECTIONS_AT_ONCE = 4


def _check_admitted(breaker: Breaker, node: Node, operation: Operation[Any]) -> None:
    now = monotonic()
    if operation.script.name in ADMITTING and not breaker.admits(now):
        raise _unreachable(
            operation,
            f"{node} has not answered for {breaker.seconds_failing(now):.1f} s, nothing is admitted for another"
            f" {breaker.seconds_closed(now):.1f} s",
        )


def _read_redirection(text: str, asked: Node) -> Node:
    """Return the node that `MOVED 3999 127.0.0.1:6381` names; without a host it is on the one that was asked."""
    host, _, port = text.split(" ")[2].rpartition(":")
    return Node(asked.host if host in ("", "?") else host, int(port))


def _unreachable(operation: Operation[Any], reason: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"the engine could not be reached: {reason}", operation_key=operation.operation_key)


def _timed_out(operation: Operation[Any], reason: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the engine did not answer {operation.script.name} in time{reason and f': {reason}'}",
        operation_key=operation.operation_key,
    )


def _pack(operation: Operation[Any], command: str, script: str | bytes) -> bytes:
    keys = operation.keys
    packed: bytes = hiredis.pack_command((command, script, len(keys), *keys, *operation.args))  # type: ignore[arg-type]
    return packed


def _raise_reply_error(script: Script, text: str, operation_key: str | None) -> NoReturn:
    if text.startswith("MISCONF"):
        raise StoreUnavailableError(f"the engine cannot serve now: {text:.200}", operation_key=operation_key)
    if text.startswith("OOM"):
        raise StoreError(f"the engine's memory is full: {script.name} was refused; settle and release still work")
    if text.startswith(_NO_RIGHTS):
        raise StoreError(f"the engine refused the credentials or their rights: {text:.200}")
    raise StoreError(f"{script.name} failed in the engine: {text:.400}")
