"""The synchronous client of what a URL names: redis-py's, for consumers of the journal and for tools."""

from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel as RedisSentinel

from ducto_redis.engine.cluster import Cluster
from ducto_redis.engine.sentinel import Sentinel
from ducto_redis.engine.topology import ConnectionSettings
from ducto_redis.engine.urls import read_topology
from ducto_redis.store.cluster_client import ClusterClient

_RETRIES = 10
_SENTINEL_SECONDS = 0.5
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.01, 1.0


class SentinelClient(Redis):
    """redis-py's client of the primary that sentinels name. It closes its connections to the sentinels too."""

    def close(self) -> None:
        super().close()
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            sentinel.close()


def client_from_url(url: str) -> Redis:
    """Return a client of the server, the cluster or the service that a URL names; see `read_topology` for URLs.

    Nothing is connected yet. Of a service that sentinels watch it is the primary's, whichever server that is.

    Raises:
        ConfigError: if the URL cannot be read.
    """
    topology = read_topology(url)
    if isinstance(topology, Cluster):
        return ClusterClient(topology)
    if isinstance(topology, Sentinel):
        # One that is silent must not keep us from asking the next.
        impatient = {"socket_timeout": _SENTINEL_SECONDS, "socket_connect_timeout": _SENTINEL_SECONDS}
        sentinels: Any = RedisSentinel(  # type: ignore[no-untyped-call]
            topology.sentinels, sentinel_kwargs=impatient | _options(topology.sentinel_settings, Retry(NoBackoff(), 0))
        )
        retry = Retry(ExponentialWithJitterBackoff(_LONGEST_SECONDS, _SHORTEST_SECONDS), _RETRIES)
        client: Redis = sentinels.master_for(
            topology.service, redis_class=SentinelClient, **_options(topology.server_settings, retry)
        )
        return client
    return Redis.from_url(url, protocol=2)


def _options(settings: ConnectionSettings, retry: Retry) -> dict[str, Any]:
    return {"protocol": 2, "retry": retry, "ssl": settings.tls, **settings.options}
