"""The store without a server: the same Lua scripts, run by fakeredis and lupa inside the process."""

import threading
from typing import Any

from redis.exceptions import ResponseError

from ducto_redis.engine.keys import DEFAULT_PARTITIONS, Namespace
from ducto_redis.engine.operations import DEFAULT_JOURNAL_LIMIT
from ducto_redis.engine.scripts import Script, Scripts, load_scripts, run_script
from ducto_redis.errors import ConfigError, StoreError
from ducto_redis.store.redis_journal import RedisJournal
from ducto_redis.store.script_store import ScriptStore


class MemoryStore(ScriptStore, RedisJournal):
    """Accounts in this process, gone with it. For tests and first steps; for threads and event loops alike.

    Args:
        namespace, partitions, journal_limit, scripts: as for `RedisStore`.

    Raises:
        ConfigError: if the extra `memory` is not installed.
    """

    blocking = True
    durable = False
    local = True

    def __init__(
        self,
        *,
        namespace: str = "ducto",
        partitions: int = DEFAULT_PARTITIONS,
        journal_limit: int = DEFAULT_JOURNAL_LIMIT,
        scripts: Scripts | None = None,
    ) -> None:
        try:
            from fakeredis import FakeRedis, FakeServer
        except ImportError:
            raise ConfigError("memory:// needs fakeredis and lupa: pip install 'ducto-redis[memory]'") from None
        self._client = FakeRedis(server=FakeServer(server_type="valkey"), protocol=2)
        self._lock = threading.Lock()
        super().__init__(
            Namespace(namespace, partitions), scripts or load_scripts(shebang=False), journal_limit=journal_limit
        )

    def blocking_twin(self) -> "MemoryStore":
        return self

    def redis(self) -> Any:
        """Return the client that all parts of this store share."""
        return self._client

    async def execute(self, script: Script, keys: tuple[bytes, ...], args: tuple[str | bytes | int, ...]) -> Any:
        try:
            with self._lock:
                return run_script(self._client, script, keys, args)
        except ResponseError as error:
            raise StoreError(f"{script.name} failed in the engine: {error}") from None

    async def close(self) -> None:
        pass
