"""The topology of a service that sentinels watch: one primary, which they replace when it is lost."""

from collections.abc import Sequence

from hiredis import ReplyError

from ducto_redis.engine.connecting import ConnectionLostError, TimedOutError
from ducto_redis.engine.topology import Ask, ConnectionSettings, Node, Topology


class Sentinel(Topology):
    """The primary of a service, as its sentinels tell and as it says itself.

    Args:
        sentinels: whom to ask.
        service: the name under which they watch it.
        settings: how to connect to the servers.
        sentinel_settings: how to connect to the sentinels, which have credentials of their own.
    """

    def __init__(
        self,
        sentinels: Sequence[Node],
        service: str,
        settings: ConnectionSettings,
        sentinel_settings: ConnectionSettings,
    ) -> None:
        self.sentinels = tuple(sentinels)
        self.service = service
        self.server_settings = settings
        self.sentinel_settings = sentinel_settings
        self._primary: Node | None = None

    def node_of(self, slot: int) -> Node | None:
        return self._primary

    async def discover(self, ask: Ask) -> None:
        failures = []
        for sentinel in self.sentinels:
            try:
                named = await self._ask_sentinel(ask, sentinel)
                # A sentinel may not have heard yet of a failover that others have decided.
                role = await ask(named, ("ROLE",))
                if isinstance(role, ReplyError):
                    raise ConnectionLostError(f"{named}: {role!s:.200}")
                if role[0] != b"master":
                    raise ConnectionLostError(f"{sentinel} names {named}, which is no primary")
            except (ConnectionLostError, TimedOutError) as error:
                failures.append(str(error) or f"{sentinel} or the primary that it names did not answer in time")
                continue
            # The one that knew is asked first the next time.
            self.sentinels = (sentinel, *(other for other in self.sentinels if other != sentinel))
            self._primary = named
            return
        raise ConnectionLostError(f"no sentinel names a primary of {self.service!r} that serves: {'; '.join(failures)}")

    def moved(self, slot: int, node: Node) -> None:
        pass

    def lost(self, node: Node) -> None:
        if node == self._primary:
            self._primary = None

    def settings(self, node: Node) -> ConnectionSettings:
        return self.sentinel_settings if node in self.sentinels else self.server_settings

    async def _ask_sentinel(self, ask: Ask, sentinel: Node) -> Node:
        reply = await ask(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))
        if isinstance(reply, ReplyError):
            raise ConnectionLostError(f"{sentinel}: {reply!s:.200}")
        if reply is None:
            raise ConnectionLostError(f"{sentinel} watches no service {self.service!r}")
        host, port = reply
        return Node(host.decode(), int(port))
