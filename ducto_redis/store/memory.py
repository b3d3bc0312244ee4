"""The store without a server: the same Lua scripts, run by fakeredis and lupa inside the process."""

import threading
from typing import Any

import hiredis

from ducto_redis.engine.keys import DEFAULT_PARTITIONS, Namespace
from ducto_redis.engine.link import Link
from ducto_redis.engine.scripts import Scripts, load_scripts
from ducto_redis.errors import ConfigError
from ducto_redis.store.script_store import DEFAULT_JOURNAL_LIMIT, ScriptStore


class MemoryStore(ScriptStore):
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
        super().__init__(
            _MemoryLink(self._client),
            Namespace(namespace, partitions),
            scripts or load_scripts(shebang=False),
            journal_limit=journal_limit,
        )

    def blocking_twin(self) -> "MemoryStore":
        return self

    def redis(self) -> Any:
        """The client that everything of this store shares."""
        return self._client


class _MemoryLink(Link):
    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._lock = threading.Lock()

    async def exchange(self, command: bytes, deadline: float) -> Any:
        from redis.exceptions import NoScriptError, ResponseError

        reader = hiredis.Reader()
        reader.feed(command)
        try:
            with self._lock:
                return self._client.execute_command(*reader.gets())
        except NoScriptError:
            return hiredis.ReplyError("NOSCRIPT")
        except ResponseError as error:
            return hiredis.ReplyError(str(error))

    async def close(self) -> None:
        pass
