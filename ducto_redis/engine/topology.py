"""Topologies: the node of each slot, and its settings. A standalone server is the topology of one node."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct


class Node(NamedTuple):
    """The address of a server: a host and a port, or the path of a unix socket and 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ConnectionSettings(Struct, frozen=True):
    """The settings of a connection, to any node.

    Attributes:
        tls: whether the connection is encrypted.
        options: what redis-py's connections take besides the address: `username`, `password`, `db`, `ssl_ca_certs`, ….
    """

    tls: bool = False
    options: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        # The options hold a password.
        return f"ConnectionSettings(tls={self.tls})"


Ask: TypeAlias = Callable[[Node, tuple[str, ...]], Awaitable[Any]]
"""Sends one command to a node and returns its reply, undecoded; an error reply is returned, not raised.

Raises ConnectionLostError and TimedOutError (`engine/connecting.py`).
"""


class Topology(ABC):
    """The node of each slot. It does no I/O of its own: where it has to ask, it asks through a link.

    A link asks it from several threads at once; each method leaves it usable for the others at every moment.
    """

    only: Node | None = None
    """The node that always holds every slot; None where there may be several, or another one later."""

    @abstractmethod
    def node_of(self, slot: int) -> Node | None:
        """Return the node that holds a slot; None where it has to be discovered first. Called for every operation."""

    @abstractmethod
    async def discover(self, ask: Ask) -> None:
        """Find out which node holds what. A link does so once at a time.

        Raises:
            ConnectionLostError: where nobody can say.
        """

    @abstractmethod
    def moved(self, slot: int, node: Node) -> None:
        """Note that a server named another node for the slot."""

    @abstractmethod
    def lost(self, node: Node) -> None:
        """Note that the node could not be reached, or serves no writes: it is to be discovered anew."""

    @abstractmethod
    def settings(self, node: Node) -> ConnectionSettings:
        """Return the settings to connect to a node with."""


class Standalone(Topology):
    """One server, which holds every slot."""

    def __init__(self, node: Node, settings: ConnectionSettings) -> None:
        self.only: Node = node
        self._settings = settings

    def node_of(self, slot: int) -> Node:
        return self.only

    async def discover(self, ask: Ask) -> None:
        pass

    def moved(self, slot: int, node: Node) -> None:
        pass

    def lost(self, node: Node) -> None:
        pass

    def settings(self, node: Node) -> ConnectionSettings:
        return self._settings
