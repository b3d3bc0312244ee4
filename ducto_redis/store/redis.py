"""The store on Redis or Valkey servers."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import redis

from ducto_redis.engine.async_link import AsyncLink
from ducto_redis.engine.blocking_link import BlockingLink
from ducto_redis.engine.keys import DEFAULT_PARTITIONS, Namespace
from ducto_redis.engine.link import DEFAULT_TIMEOUT_SECONDS
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.operations import DEFAULT_JOURNAL_LIMIT, Operations
from ducto_redis.engine.scripts import Scripts, load_scripts
from ducto_redis.engine.urls import read_topology
from ducto_redis.store.clients import client_from_url
from ducto_redis.store.redis_journal import RedisJournal
from ducto_redis.store.script_store import OperationStore

R = TypeVar("R")


class RedisStore(OperationStore, RedisJournal):
    """Accounts on one server, on the primary that sentinels name, or on a cluster; over one connection to each node.

    Args:
        url: of the servers, as `read_topology` takes it.
        namespace: what begins every key, so that several systems can share a server.
        partitions: shares of the accounts; fixed when the namespace is created.
        blocking: for threads instead of an event loop.
        timeout_seconds: how long an operation may take before StoreUnavailableError.
        journal_limit: entries in a partition's journal above which nothing new is admitted.
        scripts: other scripts than the package's; tests move the clock by them.

    Raises:
        ConfigError: if the URL or the namespace cannot be used. Nothing is connected yet.
    """

    durable = True
    local = False

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "ducto",
        partitions: int = DEFAULT_PARTITIONS,
        blocking: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        journal_limit: int = DEFAULT_JOURNAL_LIMIT,
        scripts: Scripts | None = None,
    ) -> None:
        operations = Operations(
            Namespace(namespace, partitions), scripts or load_scripts(), journal_limit=journal_limit
        )
        super().__init__(operations)
        self.link = (BlockingLink if blocking else AsyncLink)(read_topology(url), timeout_seconds=timeout_seconds)
        self.run = self.link.run  # type: ignore[method-assign]  # a frame less on the way of every call
        self.blocking = blocking
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._client: redis.Redis | None = None

    def run(self, operation: Operation[R]) -> Coroutine[Any, Any, R]:
        return self.link.run(operation)

    def blocking_twin(self) -> "RedisStore":
        return RedisStore(
            self._url,
            namespace=self.namespace.name,
            partitions=self.namespace.partitions,
            blocking=True,
            timeout_seconds=self._timeout_seconds,
            journal_limit=self.operations.journal_limit,
            scripts=self.scripts,
        )

    def redis(self) -> redis.Redis:
        """Return the store's synchronous client, with connections of its own."""
        if self._client is None:
            self._client = client_from_url(self._url)
        return self._client

    async def close(self) -> None:
        await self.link.close()
        if self._client is not None:
            self._client.close()
