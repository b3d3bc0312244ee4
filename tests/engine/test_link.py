"""What every link makes of replies: results, errors, one more try."""

from time import monotonic
from typing import Any

import hiredis
import pytest

from ducto_redis.engine.breaker import FAILURES
from ducto_redis.engine.connecting import ConnectionLostError, HandshakeRefusedError, TimedOutError
from ducto_redis.engine.link import Link
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.refusals import MoreIsDue
from ducto_redis.engine.scripts import Script
from ducto_redis.engine.topology import Ask, ConnectionSettings, Node, Standalone, Topology
from ducto_redis.errors import CreditError, StoreError, StoreUnavailableError
from tests.engine.echo import echo


class Scripted(Link):
    """A link that exchanges nothing, and answers from a list."""

    def __init__(self, *answers: Any, topology: Topology | None = None) -> None:
        super().__init__(topology or Standalone(Node("one", 1), ConnectionSettings()))
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.nodes: list[tuple[str, bool]] = []
        self.pauses: list[float] = []

    async def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Any:
        self.sent.append(command)
        self.nodes.append((node.host, asking))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception) and not isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def discover(self, deadline: float) -> None:
        async def ask(node: Node, command: tuple[str, ...]) -> Any:
            raise AssertionError("nobody is asked")

        await self.topology.discover(ask)

    async def close(self) -> None:
        pass


class Halves(Topology):
    """Two nodes, each with half of the slots; the second takes over whatever the first loses."""

    def __init__(self) -> None:
        self.holders: dict[bool, Node | None] = {False: Node("one", 1), True: Node("two", 1)}
        self.discovered = 0

    def node_of(self, slot: int) -> Node | None:
        return self.holders[slot >= 8192]

    async def discover(self, ask: Ask) -> None:
        self.discovered += 1
        self.holders = {half: node or Node("two", 1) for half, node in self.holders.items()}

    def moved(self, slot: int, node: Node) -> None:
        self.holders[slot >= 8192] = node

    def lost(self, node: Node) -> None:
        self.holders = {half: None if holder == node else holder for half, holder in self.holders.items()}

    def settings(self, node: Node) -> ConnectionSettings:
        return ConnectionSettings()


def patient(value: int) -> Operation[int]:
    """An operation that understands `again`."""
    operation = echo(value)

    def read(_: Operation[int], reply: bytes) -> int:
        if reply == b"again":
            raise MoreIsDue
        return int(reply)

    operation.read = read
    return operation


async def test_result() -> None:
    """The reply of the script is the operation's result."""
    assert await Scripted(b"5").run(echo(5)) == 5


async def test_the_sweep_of_an_operation_comes_first() -> None:
    """What asks for a sweep is sent again after it, whatever the sweep replies, and each with its own script's text."""
    operation, sweep = patient(5), echo(7)
    operation.sweep = sweep
    link = Scripted(b"again", hiredis.ReplyError("NOSCRIPT No matching script."), b"refused", b"again", b"7", b"5")
    assert await link.run(operation) == 5
    arguments = [command.split(b"\r\n")[-2] for command in link.sent]
    assert arguments == [b"5", b"7", b"7", b"5", b"7", b"5"]
    assert sweep.script.text in link.sent[2]
    assert link.pauses == []


async def test_unknown_script_is_sent_whole() -> None:
    """A server that does not know the script gets its text."""
    link = Scripted(hiredis.ReplyError("NOSCRIPT No matching script."), b"5")
    assert await link.run(echo(5)) == 5
    assert [command.split(b"\r\n")[2] for command in link.sent] == [b"EVALSHA", b"EVAL"]


async def test_tried_again_until_the_deadline() -> None:
    """What lost its connection is sent again, the same command, after ever longer pauses, as long as there is time."""
    link = Scripted(*[ConnectionLostError("cut")] * 3, b"5")
    assert await link.run(echo(5)) == 5
    assert len(set(link.sent)) == 1
    assert len(link.pauses) == 3
    link = Scripted(ConnectionLostError("cut"), b"5")
    with pytest.raises(StoreUnavailableError, match="cut") as unavailable:
        await link.run(echo(5), timeout_seconds=0)
    assert unavailable.value.operation_key == "key 5"


async def test_credentials_that_are_refused() -> None:
    """Trying again would change nothing."""
    with pytest.raises(StoreUnavailableError, match="WRONGPASS"):
        await Scripted(HandshakeRefusedError("WRONGPASS"), b"5").run(echo(5))


def of_slot(operation: Operation[int], tag: bytes) -> Operation[int]:
    """The operation on a key with that hash tag."""
    operation.keys = (b"ns:{%b}:account" % tag,)
    return operation


@pytest.mark.parametrize(("tag", "node"), [(b"foo", "two"), (b"bar", "one")])  # slots 12182 and 5061
async def test_goes_to_the_node_that_holds_the_slot(tag: bytes, node: str) -> None:
    """An operation goes straight to the node of its partition."""
    link = Scripted(b"5", topology=Halves())
    await link.run(of_slot(echo(5), tag))
    assert link.nodes == [(node, False)]


async def test_moved() -> None:
    """A slot that has moved is looked for at its new node at once, and from then on."""
    link = Scripted(hiredis.ReplyError("MOVED 5061 three:1"), b"5", b"5", topology=Halves())
    for _ in range(2):
        await link.run(of_slot(echo(5), b"bar"))
    assert [host for host, _ in link.nodes] == ["one", "three", "three"]
    assert link.pauses == []


async def test_moving() -> None:
    """While a slot is moving the other node is asked, for this one call, also where it does not know the script."""
    answers = [hiredis.ReplyError("ASK 5061 three:1"), hiredis.ReplyError("NOSCRIPT"), b"5", b"5"]
    link = Scripted(*answers, topology=Halves())
    for _ in range(2):
        await link.run(of_slot(echo(5), b"bar"))
    assert link.nodes == [("one", False), ("three", True), ("three", True), ("one", False)]


async def test_sent_back_and_forth() -> None:
    """Nodes that disagree get an operation only so often without a pause."""
    there, back = hiredis.ReplyError("MOVED 5061 two:1"), hiredis.ReplyError("MOVED 5061 one:1")
    link = Scripted(*[there, back] * 4, b"5", topology=Halves())
    await link.run(of_slot(echo(5), b"bar"))
    assert len(link.pauses) == 2


@pytest.mark.parametrize("answer", [ConnectionLostError("cut"), hiredis.ReplyError("READONLY You can't write")])
async def test_a_lost_node_is_looked_for(answer: Exception) -> None:
    """Who holds the slot is found out anew where the node is gone, or no primary any more."""
    topology = Halves()
    link = Scripted(answer, b"5", topology=topology)
    await link.run(of_slot(echo(5), b"bar"))
    assert [host for host, _ in link.nodes] == ["one", "two"]
    assert topology.discovered == 1


async def test_no_right_to_evalsha() -> None:
    """A user who may only EVAL is served by EVAL, from the first refusal on without asking again."""
    refused = hiredis.ReplyError("NOPERM User u has no permissions to run the 'evalsha' command")
    link = Scripted(refused, b"5", b"5")
    for _ in range(2):
        await link.run(echo(5))
    assert [command.split(b"\r\n")[2] for command in link.sent] == [b"EVALSHA", b"EVAL", b"EVAL"]


def named(operation: Operation[int], script: str) -> Operation[int]:
    """The operation, as one of that script."""
    operation.script = Script(script, operation.script.text, operation.script.sha)
    return operation


@pytest.mark.parametrize("script", ["reserve", "deduct", "extend", "add_credits", "read_pricing"])
async def test_an_open_breaker_admits_nothing(script: str) -> None:
    """While a node is away nothing new waits for it; what was admitted is charged, and that is tried."""
    link = Scripted(b"5", b"5")
    breaker = link.breaker_of(Node("one", 1))
    for _ in range(FAILURES):
        breaker.failed(monotonic(), since=monotonic())
    with pytest.raises(StoreUnavailableError, match="nothing is admitted") as unavailable:
        await link.run(named(echo(5), script))
    assert unavailable.value.operation_key == "key 5"
    assert link.sent == []
    await link.run(named(echo(5), "settle"))
    breaker.succeeded()
    await link.run(named(echo(5), script))


async def test_what_has_begun_goes_on_while_the_breaker_opens() -> None:
    """A charge that lost its connection may have been made: it is tried until its deadline, not refused half-way."""
    link = Scripted(*[ConnectionLostError("cut")] * 3, b"5")
    breaker = link.breaker_of(Node("one", 1))

    def fail_all() -> None:
        for _ in range(FAILURES):
            breaker.failed(monotonic(), since=monotonic())

    pause = link.pause

    async def pause_and_fail(seconds: float) -> None:
        fail_all()
        await pause(seconds)

    link.pause = pause_and_fail  # type: ignore[method-assign]
    assert await link.run(named(echo(5), "deduct")) == 5
    with pytest.raises(StoreUnavailableError, match="nothing is admitted"):
        await link.run(named(echo(5), "deduct"))


async def test_no_more_time() -> None:
    """An operation that took too long is not tried again, and its error carries its key."""
    link = Scripted(TimedOutError(), b"5")
    with pytest.raises(StoreUnavailableError) as unavailable:
        await link.run(echo(5))
    assert (unavailable.value.operation_key, len(link.sent)) == ("key 5", 1)
    link = Scripted(ConnectionLostError("cut"), b"5")
    with pytest.raises(StoreUnavailableError):
        await link.run(echo(5), timeout_seconds=0)
    assert len(link.sent) == 1


class ClosedMeanwhile(Scripted):
    """A link that somebody closes while the first command is under way."""

    async def exchange(self, node: Node, command: bytes, deadline: float, *, asking: bool = False) -> Any:
        self.times_closed += 1
        return await super().exchange(node, command, deadline)


@pytest.mark.parametrize("answer", [ConnectionLostError("the link was closed"), hiredis.ReplyError("NOSCRIPT")])
async def test_closed_link_tries_nothing_again(answer: Exception) -> None:
    """Closing a link ends what is under way; sending again would connect it anew."""
    link = ClosedMeanwhile(answer, b"5")
    with pytest.raises(StoreUnavailableError, match="was closed"):
        await link.run(echo(5))
    assert len(link.sent) == 1


async def test_asked_again_until_nothing_more_is_due() -> None:
    """An operation is sent again for as long as its answer is that more is due, and no longer than it has time."""
    link = Scripted(b"again", hiredis.ReplyError("NOSCRIPT"), b"again", b"5")
    assert await link.run(patient(5)) == 5
    assert [command.split(b"\r\n")[2] for command in link.sent] == [b"EVALSHA", b"EVALSHA", b"EVAL", b"EVALSHA"]
    with pytest.raises(StoreUnavailableError, match="in time"):
        await Scripted(b"again", b"5").run(patient(5), timeout_seconds=0)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ("MISCONF Errors writing to the AOF file", StoreUnavailableError, "cannot serve now"),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreError, "memory is full"),
        ("NOPERM this user has no permissions", StoreError, "credentials or their rights"),
        ("NOAUTH Authentication required.", StoreError, "credentials or their rights"),
        ("ERR user_script:3: something", StoreError, "echo failed in the engine"),
        ("WRONGTYPE Operation against a key", StoreError, "echo failed in the engine"),
    ],
)
async def test_final_error_replies(reply: str, kind: type[CreditError], text: str) -> None:
    """Each kind of error reply is an error of its own, and tells what happened."""
    with pytest.raises(kind, match=text) as refused:
        await Scripted(hiredis.ReplyError(reply)).run(echo(5))
    assert type(refused.value) is kind


@pytest.mark.parametrize(
    "reply",
    [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script",
        "MASTERDOWN Link with MASTER is down",
        "READONLY You can't write against a read only replica.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
    ],
)
async def test_passing_error_replies(reply: str) -> None:
    """A server that may serve soon is asked again, and named where time runs out."""
    link = Scripted(hiredis.ReplyError(reply), b"5")
    assert await link.run(echo(5)) == 5
    assert len(link.pauses) == 1
    with pytest.raises(StoreUnavailableError, match=reply.split()[0]):
        await Scripted(hiredis.ReplyError(reply)).run(echo(5), timeout_seconds=0)
