"""A real Redis Cluster of three primaries and three replicas, which tests may hurt and heal."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from tests.servers import START_SECONDS, Server, ServerError, free_port

PRIMARIES = 3
SLOTS = 16384
UNHURRIED_MS = 15_000
"""After which nodes that do not answer are believed dead. Long: nobody is replaced because the machine is busy."""
HASTY_MS = 1000
"""The same, for tests in which a node dies."""


class ClusterNode(Server):
    """A Valkey that is, or will be, part of a cluster."""

    def __init__(self, folder: Path, **config: str | int) -> None:
        in_cluster: dict[str, str | int] = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": HASTY_MS,
            "cluster_allow_replica_migration": "no",
            "cluster_replica_validity_factor": 0,
            "repl_diskless_sync_delay": 0,
        }
        super().__init__(Server.valkey(folder).program, folder, **in_cluster, **config)

    def choose_ports(self) -> None:
        super().choose_ports()
        self.config["cluster-port"] = free_port()

    def client(self) -> "redis.Redis":
        """A client of this node alone."""
        return redis.Redis(port=self.port, protocol=2, password=str(self.config.get("requirepass", "")) or None)

    def ask(self, *command: Any) -> Any:
        """What it answers to one command, as it says it."""
        with self.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    @property
    def node_id(self) -> str:
        """Its name among the nodes."""
        node_id: bytes = self.ask("CLUSTER MYID")
        return node_id.decode()

    def role(self) -> str:
        """`master` or `slave`, as it says itself."""
        role: str = self.info("replication")["role"]
        return role

    def info(self, section: str) -> dict[str, Any]:
        """A section of what it tells of itself."""
        with self.client() as client:
            info: dict[str, Any] = client.info(section)
            return info


class Cluster:
    """Three primaries, each with a replica, on one machine.

    Args:
        folder: where their folders are made.
        config: directives of all of them.
    """

    def __init__(self, folder: Path, **config: str | int) -> None:
        self.nodes = []
        for number in range(2 * PRIMARIES):
            place = folder / f"node-{number}"
            place.mkdir()
            self.nodes.append(ClusterNode(place, **config))

    @property
    def url(self) -> str:
        """The URL of all its nodes."""
        password = self.nodes[0].config.get("requirepass", "")
        user = f":{password}@" if password else ""
        return f"redis+cluster://{user}" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> "Cluster":
        """Starts the nodes, makes a cluster of them, and waits until it serves."""
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                node.ask("CLUSTER MEET", "127.0.0.1", other.port, other.config["cluster-port"])
        for number, node in enumerate(self.nodes[:PRIMARIES]):
            first, end = number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES
            node.ask("CLUSTER ADDSLOTSRANGE", first, end - 1)
        self._wait("know each other", lambda: all(self._knows_all(node) for node in self.nodes))
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            node.ask("CLUSTER REPLICATE", self.nodes[number].node_id)
        self.heal()
        return self

    def stop(self) -> None:
        """Stops all nodes."""
        for node in self.nodes:
            node.stop()

    def primaries(self) -> list[ClusterNode]:
        """The nodes that run and say that they are primaries."""
        return [node for node in self.nodes if node.process is not None and node.role() == "master"]

    def primary_of(self, slot: int) -> ClusterNode:
        """The node that serves a slot."""
        port = self._holder(self._running()[0], slot)
        if port is None:
            raise ServerError(f"nobody serves slot {slot}")
        return self.node_at(port)

    def replica_of(self, primary: ClusterNode) -> ClusterNode:
        """The running replica of a primary."""
        for node in self._running():
            replication = node.info("replication")
            if replication["role"] == "slave" and replication["master_port"] == primary.port:
                return node
        raise ServerError(f"the node at {primary.port} has no replica")

    def node_at(self, port: int) -> ClusterNode:
        """The node that listens on a port."""
        return next(node for node in self.nodes if node.port == port)

    @contextlib.contextmanager
    def hasty(self) -> Iterator[None]:
        """Dead nodes are replaced within seconds meanwhile. Afterwards everything is healed."""
        self._set_node_timeout(HASTY_MS)
        try:
            yield
        finally:
            self.heal()

    def heal(self) -> None:
        """Starts nodes that are down, and waits until three primaries have a replica each again."""
        for node in self.nodes:
            if node.process is None:
                node.start()
        self.wait_until_whole()
        self._set_node_timeout(UNHURRIED_MS)

    def wait_until_promoted(self, replica: ClusterNode) -> None:
        """Waits until a replica has become a primary, and all that run know it and serve."""
        self._wait(
            "promote a replica",
            lambda: (
                replica.role() == "master"
                and all(b"cluster_state:ok" in node.ask("CLUSTER INFO") for node in self._running())
            ),
        )

    def wait_until_held(self, slot: int, primary: ClusterNode) -> None:
        """Waits until all nodes know that a primary holds a slot."""
        self._wait("move a slot", lambda: all(self._holder(node, slot) == primary.port for node in self._running()))

    def wait_until_whole(self) -> None:
        """Waits until every node serves, and every primary has one replica that is up to date."""
        self._wait("become whole", self._is_whole)

    def begin_migration(self, slot: int, target: ClusterNode) -> None:
        """From now on the slot's keys may be on either of two nodes."""
        source = self.primary_of(slot)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.node_id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.node_id)

    def migrate_keys(self, slot: int, target: ClusterNode) -> Iterator[bytes]:
        """Moves the slot's keys one at a time, in any order, and gives each once it was moved; until there are none."""
        source = self.primary_of(slot)
        password = source.config.get("requirepass", "")
        auth = ("AUTH", password) if password else ()
        with source.client() as client:
            while keys := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
                random.shuffle(keys)
                for key in keys:
                    client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000, *auth)
                    yield key

    def end_migration(self, slot: int, target: ClusterNode) -> None:
        """The slot is the target's; all primaries are told."""
        node_id = target.node_id
        for node in [target, *(node for node in self.primaries() if node is not target)]:
            node.ask("CLUSTER SETSLOT", slot, "NODE", node_id)
        self.wait_until_held(slot, target)

    def _running(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.process is not None]

    def _holder(self, node: ClusterNode, slot: int) -> int | None:
        """The port of the primary that a node believes to hold a slot."""
        for first, last, (_, port, *_), *_ in node.ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                return int(port)
        return None

    def _knows_all(self, node: ClusterNode) -> bool:
        known: list[bytes] = node.ask("CLUSTER NODES").splitlines()
        return len(known) == len(self.nodes) and not any(b"handshake" in other for other in known)

    def _is_whole(self) -> bool:
        seen = set()
        for node in self.nodes:
            try:
                replication, state = node.info("replication"), node.ask("CLUSTER INFO")
                slots: list[Any] = node.ask("CLUSTER SLOTS")
            except redis.ConnectionError:
                return False
            if b"cluster_state:ok" not in state or any(len(entry) != 4 for entry in slots):
                return False
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
            seen.add(tuple(sorted((first, last, primary[1], replica[1]) for first, last, primary, replica in slots)))
        return len(seen) == 1

    def _set_node_timeout(self, milliseconds: int) -> None:
        for node in self._running():
            node.ask("CONFIG SET", "cluster-node-timeout", milliseconds)
            node.config["cluster-node-timeout"] = milliseconds

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not done():
            if time.monotonic() > give_up:
                states = b"\n".join(node.ask("CLUSTER NODES") if node.process else b"down" for node in self.nodes)
                raise ServerError(f"the cluster did not {what} within {START_SECONDS} seconds:\n{states.decode()}")
            time.sleep(0.05)
