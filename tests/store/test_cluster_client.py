"""The synchronous client of a cluster."""

from collections.abc import Iterator

import pytest
import redis

from ducto_redis.engine.keys import slot_of
from ducto_redis.engine.scripts import load_scripts, run_script
from ducto_redis.errors import ConfigError
from ducto_redis.store.clients import client_from_url
from ducto_redis.store.cluster_client import ClusterClient
from tests.clusters import Cluster
from tests.sentinels import Sentinels

KEYS = 60


@pytest.fixture
def client(cluster: Cluster) -> Iterator[ClusterClient]:
    """A client of the session's cluster."""
    client = client_from_url(cluster.url)
    assert isinstance(client, ClusterClient)
    yield client
    client.close()


@pytest.fixture
def keys(client: ClusterClient, namespace: str) -> Iterator[list[str]]:
    """Keys on all nodes, each with its number as value."""
    keys = [f"{namespace}:{number}" for number in range(KEYS)]
    for number, key in enumerate(keys):
        client.set(key, number)
    yield keys
    client.delete(*client.scan_iter(f"{namespace}:*"))


def test_nothing_is_connected_at_first() -> None:
    """A client can be made while the cluster is away; the first command says so, with an error of redis-py's."""
    client = client_from_url("redis+cluster://:secret@127.0.0.1:1")
    with pytest.raises(redis.ConnectionError) as caught:
        client.ping()
    assert "secret" not in str(caught.value)
    client.close()


def test_a_server_that_is_no_cluster(valkey_url: str) -> None:
    """It is named, with what it said."""
    client = client_from_url(valkey_url.replace("redis://", "redis+cluster://"))
    with pytest.raises(redis.ConnectionError, match="cluster support disabled"):
        client.ping()
    client.close()


def test_bad_url() -> None:
    """A URL that cannot be read is refused before anything is connected."""
    with pytest.raises(ConfigError):
        client_from_url("redis+cluster://host/7")


def test_commands_go_to_the_node_of_their_key(cluster: Cluster, client: ClusterClient, keys: list[str]) -> None:
    """Every node got its share, and all can be read again: one by one, together, and by scanning."""
    shares = [len(list(node.scan_iter(f"{keys[0][:-2]}:*"))) for node in client.primaries().values()]
    assert sum(shares) == KEYS
    assert all(shares)
    values = [str(number).encode() for number in range(KEYS)]
    assert [client.get(key) for key in keys] == values
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.get(key)
        assert pipeline.execute() == values
    assert sorted(client.scan_iter(f"{keys[0][:-2]}:*")) == sorted(key.encode() for key in keys)
    assert client.delete(*keys[:7]) == 7


def test_scripts_and_streams(client: ClusterClient, namespace: str) -> None:
    """Commands whose key is not their first argument find their node too."""
    for number in range(10):
        stream = f"{namespace}:{number}:stream"
        entry_id = client.xadd(stream, {"a": "b"})
        ((name, entries),) = client.xread({stream: "0-0"}, count=5)
        assert (name, entries) == (stream.encode(), [(entry_id, {b"a": b"b"})])
        assert client.xinfo_stream(stream)["length"] == 1
        client.xgroup_create(stream, "group", "0")
        ((_, entries),) = client.xreadgroup("group", "me", {stream: ">"}, noack=True)
        assert [found for found, _ in entries] == [entry_id]
        script = load_scripts()["read_partition"]
        key = f"{namespace}:{{{number}}}:meta".encode()
        assert run_script(client, script, (key,), ()) == []
        client.delete(stream)


def test_scripts_in_pipelines(client: ClusterClient, namespace: str) -> None:
    """Scripts of several nodes are sent together; those that a node does not know are errors among the replies."""
    script = load_scripts()["read_partition"]
    keys = [f"{namespace}:{{{number}}}:meta" for number in range(10)]
    for node in client.primaries().values():
        node.script_flush()
    with client.pipeline() as pipeline:
        for key in keys:
            pipeline.evalsha(script.sha.decode(), 1, key)
        replies = pipeline.execute(raise_on_error=False)
    assert all(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies)
    client.set(f"{namespace}:text", "x")
    with client.pipeline() as pipeline:
        pipeline.get(f"{namespace}:text").xlen(f"{namespace}:text")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            pipeline.execute()
    client.delete(f"{namespace}:text")


def test_commands_without_a_key(cluster: Cluster, client: ClusterClient) -> None:
    """They go to the node of partition 0, which lies in slot 0."""
    assert client.ping()
    assert client.info("server")["tcp_port"] == cluster.primary_of(0).port
    seconds, _ = client.time()
    assert seconds > 0
    assert len(client.nodes()) == len(cluster.nodes)


def test_a_slot_that_moves(cluster: Cluster, client: ClusterClient, namespace: str) -> None:
    """While a slot moves and after it, each command is sent to where its key is: ASK, and then MOVED."""
    tag = f"{{{namespace}}}"
    keys = [f"{tag}:{number}" for number in range(5)]
    slot = slot_of(namespace.encode())
    for key in keys:
        client.set(key, key)
    target = next(node for node in cluster.primaries() if node is not cluster.primary_of(slot))
    cluster.begin_migration(slot, target)
    for _ in cluster.migrate_keys(slot, target):
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]
        with client.pipeline() as pipeline:
            for key in keys:
                pipeline.get(key)
            assert pipeline.execute() == [key.encode() for key in keys]
        client.incr(f"{tag}:new")
    cluster.end_migration(slot, target)
    assert [client.get(key) for key in keys] == [key.encode() for key in keys]
    assert client.get(f"{tag}:new") == b"5"
    client.delete(*keys, f"{tag}:new")


def test_a_primary_that_dies(cluster: Cluster, client: ClusterClient, keys: list[str]) -> None:
    """Commands wait until its replica has taken over; those that were sent together are sent again one by one."""
    client.get(keys[0])
    primary = cluster.primary_of(0)
    assert primary.ask("WAIT", 1, 5000) == 1
    with cluster.hasty():
        primary.kill()
        with client.pipeline() as pipeline:
            for key in keys:
                pipeline.get(key)
            assert pipeline.execute() == [str(number).encode() for number in range(KEYS)]


def test_the_primary_under_sentinel(sentinels: Sentinels, namespace: str) -> None:
    """Under Sentinel it is redis-py's client of the primary, and follows it through a failover."""
    with client_from_url(sentinels.url) as client:
        client.set(namespace, 1)
        assert client.wait(2, 5000) == 2
        with sentinels.hasty():
            old = sentinels.primary()
            old.kill()
            assert client.get(namespace) == b"1"
            assert client.info("server")["tcp_port"] == sentinels.primary().port != old.port
        client.delete(namespace)
