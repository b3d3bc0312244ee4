"""What sentinels tell, and what is believed of it."""

from typing import Any

import pytest
from hiredis import ReplyError

from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError
from ducto_redis.engine.sentinel import Sentinel
from ducto_redis.engine.topology import ConnectionSettings, Node
from ducto_redis.run_sync import run_sync

S1, S2, S3 = Node("s1", 1), Node("s2", 2), Node("s3", 3)
OLD, NEW = Node("old", 6379), Node("new", 6380)
PRIMARY, REPLICA = [b"master", 0, []], [b"slave", b"new", 6380, b"connected", 0]


class Servers:
    """Sentinels and servers that answer as they are told to, and who was asked."""

    def __init__(self, replies: dict[Node, Any]) -> None:
        self.replies = replies
        self.asked: list[Node] = []

    async def ask(self, node: Node, command: tuple[str, ...]) -> Any:
        expected = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "credits") if node in (S1, S2, S3) else ("ROLE",)
        assert command == expected
        self.asked.append(node)
        reply = self.replies.get(node, ConnectionLostError(f"{node}: refused"))
        if isinstance(reply, Node):
            return [reply.host.encode(), str(reply.port).encode()]
        if isinstance(reply, (ConnectionLostError, TimedOutError)):
            raise reply
        return reply


def service() -> Sentinel:
    return Sentinel([S1, S2, S3], "credits", ConnectionSettings(), ConnectionSettings())


def test_the_primary() -> None:
    """Before anybody was asked there is none; then it holds every slot."""
    sentinel = service()
    assert sentinel.node_of(0) is None
    run_sync(sentinel.discover(Servers({S1: OLD, OLD: PRIMARY}).ask))
    assert [sentinel.node_of(slot) for slot in (0, 16383)] == [OLD, OLD]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {S1: TimedOutError()},
        {S1: ReplyError("NOAUTH Authentication required.")},
        {S1: None},
        {S1: OLD, OLD: REPLICA},
        {S1: OLD, OLD: TimedOutError()},
        {S1: OLD, OLD: ReplyError("LOADING Redis is loading the dataset in memory")},
        {S1: OLD},
    ],
)
def test_a_sentinel_that_cannot_say_is_passed_over(bad: dict[Node, Any]) -> None:
    """One that does not answer, does not watch the service, or names what is no primary: the next is asked."""
    sentinel = service()
    servers = Servers({S2: NEW, NEW: PRIMARY} | bad)
    run_sync(sentinel.discover(servers.ask))
    assert sentinel.node_of(0) == NEW
    servers.asked.clear()
    run_sync(sentinel.discover(servers.ask))
    assert servers.asked == [S2, NEW]  # the one that knew is asked first


def test_nobody_can_say() -> None:
    """Where all fail, the error says what was wrong with each."""
    sentinel = service()
    servers = Servers({S1: OLD, OLD: REPLICA, S2: None})
    with pytest.raises(ConnectionLostError) as caught:
        run_sync(sentinel.discover(servers.ask))
    for reason in ("s1:1 names old:6379, which is no primary", "s2:2 watches no service 'credits'", "s3:3: refused"):
        assert reason in str(caught.value)
    assert sentinel.node_of(0) is None


def test_lost() -> None:
    """A lost primary is believed no longer; of any other server nothing was believed."""
    sentinel = service()
    run_sync(sentinel.discover(Servers({S1: OLD, OLD: PRIMARY}).ask))
    sentinel.lost(NEW)
    sentinel.lost(S1)
    assert sentinel.node_of(0) == OLD
    sentinel.lost(OLD)
    assert sentinel.node_of(0) is None
