"""What a cluster's nodes tell, and what is believed of it."""

from typing import Any

import pytest
from hiredis import ReplyError

from ducto_redis.engine.cluster import Cluster
from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError
from ducto_redis.engine.keys import SLOTS
from ducto_redis.engine.topology import ConnectionSettings, Node
from ducto_redis.engine.urls import read_topology
from ducto_redis.run_sync import run_sync
from tests import clusters

A, B, C = Node("10.0.0.1", 1), Node("10.0.0.2", 2), Node("10.0.0.3", 3)


def server(node: Node, *more: Any) -> list[Any]:
    return [node.host.encode(), node.port, b"an id", *more]


HALVES = [[0, 8191, server(A), server(C)], [8192, SLOTS - 1, server(B)]]


class Nodes:
    """Nodes that answer as they are told to, and who was asked."""

    def __init__(self, **replies: Any) -> None:
        self.replies = {{"a": A, "b": B, "c": C}[name]: reply for name, reply in replies.items()}
        self.asked: list[Node] = []

    async def ask(self, node: Node, command: tuple[str, ...]) -> Any:
        assert command == ("CLUSTER", "SLOTS")
        self.asked.append(node)
        reply = self.replies.get(node, ConnectionLostError("refused"))
        if isinstance(reply, (ConnectionLostError, TimedOutError)):
            raise reply
        return reply


def discovered(nodes: Nodes, *seeds: Node) -> Cluster:
    cluster = Cluster(seeds, ConnectionSettings())
    run_sync(cluster.discover(nodes.ask))
    return cluster


def test_nothing_is_known_at_first() -> None:
    """Before anybody was asked no slot has a node."""
    cluster = Cluster([A], ConnectionSettings())
    assert [cluster.node_of(slot) for slot in (0, SLOTS - 1)] == [None, None]


def test_slots() -> None:
    """Each slot is the primary's of its range; replicas are known as nodes, and hold nothing."""
    cluster = discovered(Nodes(a=HALVES), A)
    assert [cluster.node_of(slot) for slot in (0, 8191, 8192, SLOTS - 1)] == [A, A, B, B]
    assert cluster.primaries == (A, B)
    assert set(cluster.nodes) == {A, B, C}


@pytest.mark.parametrize("host", [b"", None])
def test_a_node_that_does_not_know_its_own_address(host: bytes | None) -> None:
    """A server without a host is where the one that was asked is."""
    cluster = discovered(Nodes(a=[[0, SLOTS - 1, [host, 7, b"an id"]]]), A)
    assert cluster.node_of(5) == Node(A.host, 7)


def test_a_host_name_that_is_not_set() -> None:
    """Where host names are preferred and one has none, its IP address is taken; without that it is unknown."""
    named = [0, 99, [b"?", 7, b"an id", [b"ip", b"10.9.9.9"]]]
    unnamed = [100, 199, [b"?", 8, b"an id", []]]
    cluster = discovered(Nodes(a=[named, unnamed]), A)
    assert cluster.node_of(0) == Node("10.9.9.9", 7)
    assert cluster.node_of(100) is None


def test_an_uncovered_slot_has_no_node() -> None:
    """A cluster that serves only some slots is taken as it is."""
    cluster = discovered(Nodes(a=HALVES[:1]), A)
    assert [cluster.node_of(slot) for slot in (0, SLOTS - 1)] == [A, None]


@pytest.mark.parametrize(
    "bad",
    [
        ConnectionLostError("refused"),
        TimedOutError(),
        ReplyError("LOADING Redis is loading the dataset in memory"),
        [],
        [[0, SLOTS - 1, [b"?", 1, b"an id", []]]],
    ],
)
def test_a_node_that_cannot_say_is_passed_over(bad: Any) -> None:
    """Whatever is wrong with some, the first that knows is believed."""
    for _ in range(20):  # the order is random
        nodes = Nodes(a=bad, b=HALVES)
        cluster = discovered(nodes, A, B)
        assert cluster.node_of(0) == A
        assert nodes.asked[-1] == B


def test_nobody_can_say() -> None:
    """Where all fail, the error names each and what was wrong with it."""
    nodes = Nodes(b=ReplyError("ERR This instance has cluster support disabled"))
    with pytest.raises(ConnectionLostError) as caught:
        discovered(nodes, A, B)
    assert "10.0.0.1:1: refused" in str(caught.value)
    assert "10.0.0.2:2: ERR This instance has cluster support disabled" in str(caught.value)


def test_moved() -> None:
    """A slot that moved is its new node's, and only that slot."""
    cluster = discovered(Nodes(a=HALVES), A)
    cluster.moved(7, C)
    assert [cluster.node_of(slot) for slot in (6, 7, 8)] == [A, C, A]


def test_lost() -> None:
    """Nothing that a lost node held has a node until it is discovered anew, and the others go on."""
    nodes = Nodes(a=HALVES, b=HALVES, c=HALVES)
    cluster = discovered(nodes, A)
    cluster.lost(A)
    cluster.lost(A)
    assert [cluster.node_of(slot) for slot in (0, 8192)] == [None, B]
    assert cluster.primaries == (B,)
    cluster.moved(0, A)
    cluster.lost(A)
    assert cluster.node_of(0) is None
    run_sync(cluster.discover(nodes.ask))
    assert cluster.node_of(0) == A


def test_a_lost_node_is_asked_last() -> None:
    """What a node that fails would say is asked for only where nobody else answers."""
    nodes = Nodes(a=HALVES, b=HALVES, c=HALVES)
    cluster = discovered(nodes, A)
    for _ in range(20):
        cluster.lost(A)
        nodes.asked.clear()
        run_sync(cluster.discover(nodes.ask))
        assert nodes.asked[0] != A


def test_seeds_that_are_gone_are_not_needed() -> None:
    """Once the nodes are known, any of them can be asked."""
    nodes = Nodes(a=HALVES, b=HALVES, c=HALVES)
    cluster = discovered(nodes, A)
    nodes.replies.pop(A)
    cluster.lost(A)
    run_sync(cluster.discover(nodes.ask))
    assert cluster.node_of(8192) == B


def test_a_real_cluster(cluster: clusters.Cluster) -> None:
    """What real nodes answer is read: three primaries and their replicas, from any of them."""
    for seed in cluster.nodes:
        topology = read_topology(f"redis+cluster://127.0.0.1:{seed.port}")
        assert isinstance(topology, Cluster)

        async def ask(node: Node, command: tuple[str, ...]) -> Any:
            return cluster.node_at(node.port).ask(*command)

        run_sync(topology.discover(ask))
        assert {node.port for node in topology.nodes} == {node.port for node in cluster.nodes}
        assert {node.port for node in topology.primaries} == {node.port for node in cluster.primaries()}
        for slot in (0, 5460, 5461, SLOTS - 1):
            node = topology.node_of(slot)
            assert node is not None
            assert node.port == cluster.primary_of(slot).port
