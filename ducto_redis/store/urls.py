"""URLs choose the store."""

from ducto_redis.engine.keys import DEFAULT_PARTITIONS
from ducto_redis.engine.link import DEFAULT_TIMEOUT_SECONDS
from ducto_redis.engine.operations import DEFAULT_JOURNAL_LIMIT
from ducto_redis.engine.urls import SCHEMES
from ducto_redis.errors import ConfigError
from ducto_redis.store.contract import JournalledStore
from ducto_redis.store.memory import MemoryStore
from ducto_redis.store.redis import RedisStore


class EmbeddedStore(RedisStore):
    """Accounts on a Valkey of their own, whose data lives in a folder. The server is started with the store.

    Args:
        path: the folder.
        namespace, partitions, blocking, timeout_seconds, journal_limit: as for `RedisStore`.
    """

    local = True

    def __init__(
        self,
        path: str,
        *,
        namespace: str,
        partitions: int,
        blocking: bool,
        timeout_seconds: float,
        journal_limit: int,
    ) -> None:
        from ducto_redis.store.embedded import EmbeddedServer  # only where the system has what it needs

        self._server = EmbeddedServer.open(path)
        super().__init__(
            self._server.url,
            namespace=namespace,
            partitions=partitions,
            blocking=blocking,
            timeout_seconds=timeout_seconds,
            journal_limit=journal_limit,
        )

    async def close(self) -> None:
        await super().close()
        self._server.close()


def store_from_url(
    url: str,
    *,
    namespace: str = "ducto",
    partitions: int = DEFAULT_PARTITIONS,
    blocking: bool = False,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    journal_limit: int = DEFAULT_JOURNAL_LIMIT,
) -> JournalledStore:
    """Return the store that a URL names.

    Args:
        url: of servers, as `read_topology` takes it: redis://, rediss:// or unix:// for one, redis+cluster:// and
            redis+sentinel:// for several; embedded:///path for a Valkey with its data in that folder, memory:// for
            none at all.
        namespace, partitions, blocking, timeout_seconds, journal_limit: as for `RedisStore`.

    Raises:
        ConfigError: if the URL names no store, or an extra is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "memory":
        return MemoryStore(namespace=namespace, partitions=partitions, journal_limit=journal_limit)
    if scheme == "embedded":
        return EmbeddedStore(
            rest,
            namespace=namespace,
            partitions=partitions,
            blocking=blocking,
            timeout_seconds=timeout_seconds,
            journal_limit=journal_limit,
        )
    if scheme not in SCHEMES:
        raise ConfigError(
            "a store's URL begins with redis://, rediss://, unix://, redis+cluster://, redis+sentinel://, embedded:///"
            " or memory://" + (f", not {scheme}://" if separator and scheme.isalnum() else "")
        )
    return RedisStore(
        url,
        namespace=namespace,
        partitions=partitions,
        blocking=blocking,
        timeout_seconds=timeout_seconds,
        journal_limit=journal_limit,
    )
