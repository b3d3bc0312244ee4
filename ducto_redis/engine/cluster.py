"""The topology of a Redis Cluster: each slot is held by a primary, and its replicas stand by to take it over."""

import random
from collections.abc import Sequence
from typing import Any

from hiredis import ReplyError

from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError
from ducto_redis.engine.keys import SLOTS
from ducto_redis.engine.topology import Ask, ConnectionSettings, Node, Topology

_UNKNOWN_HOST = "?"


class Cluster(Topology):
    """The slots of a cluster by primary, as its nodes report them.

    Args:
        seeds: nodes to ask first, any of the cluster's.
        settings: how to connect to all its nodes.
    """

    def __init__(self, seeds: Sequence[Node], settings: ConnectionSettings) -> None:
        self.seeds = tuple(seeds)
        self._settings = settings
        self._holders: list[Node | None] = [None] * SLOTS
        self._primaries: set[Node] = set()
        self._nodes: tuple[Node, ...] = ()
        self._doubted: set[Node] = set()

    @property
    def primaries(self) -> tuple[Node, ...]:
        """The nodes that hold slots, as far as is known."""
        return tuple(sorted(self._primaries))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the cluster named, replicas too; none before it was asked."""
        return self._nodes

    def node_of(self, slot: int) -> Node | None:
        return self._holders[slot]

    async def discover(self, ask: Ask) -> None:
        failures = []
        for node in self._in_order():
            try:
                reply = await ask(node, ("CLUSTER", "SLOTS"))
            except (ConnectionLostError, TimedOutError) as error:
                failures.append(f"{node}: {str(error) or 'no answer in time'}")
                self._doubted.add(node)
                continue
            if isinstance(reply, ReplyError):
                failures.append(f"{node}: {reply!s:.200}")
            elif not self._take(node, reply):
                failures.append(f"{node} knows of no slots")
            else:
                self._doubted.discard(node)
                return
        raise ConnectionLostError(f"no node of the cluster says who holds what: {'; '.join(failures)}")

    def moved(self, slot: int, node: Node) -> None:
        self._holders[slot] = node
        self._primaries.add(node)
        self._doubted.discard(node)

    def lost(self, node: Node) -> None:
        self._doubted.add(node)
        if node in self._primaries:  # all whose calls failed say so, and the first has said enough
            self._primaries.discard(node)
            self._holders = [None if holder == node else holder for holder in self._holders]

    def settings(self, node: Node) -> ConnectionSettings:
        return self._settings

    def _in_order(self) -> list[Node]:
        """Whom to ask: those that did not fail of late first, and not every client the same one."""
        nodes = list(dict.fromkeys((*self._nodes, *self.seeds)))
        random.shuffle(nodes)
        return sorted(nodes, key=self._doubted.__contains__)

    def _take(self, asked: Node, reply: Any) -> bool:
        """Take in what CLUSTER SLOTS told. Returns whether it told anything."""
        holders: list[Node | None] = [None] * SLOTS
        primaries: set[Node] = set()
        nodes: dict[Node, None] = {}
        for first, last, *servers in reply:
            found = [_node(asked, server) for server in servers]
            nodes.update((node, None) for node in found if node is not None)
            if found and (primary := found[0]) is not None:
                primaries.add(primary)
                holders[first : last + 1] = [primary] * (last + 1 - first)
        if not primaries:
            return False
        self._holders, self._primaries, self._nodes = holders, primaries, tuple(nodes)
        return True


def _node(asked: Node, server: Sequence[Any]) -> Node | None:
    """Read a server as CLUSTER SLOTS names it: host, port, id, and perhaps pairs of other names."""
    host = (server[0] or b"").decode()
    if host == _UNKNOWN_HOST:  # it was to be named by its host name, and has none
        more = server[3] if len(server) > 3 else []
        host = dict(zip(more[::2], more[1::2], strict=False)).get(b"ip", b"").decode()
        if not host:
            return None
    return Node(host or asked.host, int(server[1]))
