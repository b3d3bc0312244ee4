"""URLs of servers, clusters and services that sentinels watch."""

import traceback

import pytest

from ducto_redis.engine.cluster import Cluster
from ducto_redis.engine.sentinel import Sentinel
from ducto_redis.engine.topology import Node, Standalone
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import ConfigError


def test_one_server() -> None:
    """A plain URL is one server, whatever the slot."""
    topology = read_topology("redis://user:pass@host:1234/5")
    assert isinstance(topology, Standalone)
    node = topology.node_of(77)
    assert node == Node("host", 1234)
    settings = topology.settings(node)
    assert not settings.tls
    assert settings.options == {"username": "user", "password": "pass", "db": 5}


def test_cluster() -> None:
    """Several nodes, each with a port or with Redis's; credentials and options hold for all of them."""
    topology = read_topology("redis+cluster://user:p%40ss%2F@one:1,two,[::1]:3/0?socket_keepalive=true")
    assert isinstance(topology, Cluster)
    assert topology.seeds == (Node("one", 1), Node("two", 6379), Node("::1", 3))
    settings = topology.settings(Node("another", 9))
    assert not settings.tls
    assert settings.options == {"username": "user", "password": "p@ss/", "socket_keepalive": True}


@pytest.mark.parametrize("url", ["rediss+cluster://h", "redis+cluster://h?ssl=true", "redis+cluster://h?ssl=True"])
def test_cluster_with_tls(url: str) -> None:
    """TLS is asked for by the scheme, or by an option."""
    topology = read_topology(url)
    assert topology.settings(Node("h", 1)).tls


def test_sentinel() -> None:
    """The servers' credentials are the URL's, the sentinels' are options; options of connections hold for both."""
    topology = read_topology(
        "redis+sentinel://user:pass@s1,s2:7/my-service/3?sentinel_username=watch&sentinel_password=p%40&socket_keepalive=true"
    )
    assert isinstance(topology, Sentinel)
    assert topology.sentinels == (Node("s1", 26379), Node("s2", 7))
    assert topology.service == "my-service"
    servers, sentinels = topology.settings(Node("primary", 1)), topology.settings(Node("s2", 7))
    assert servers.options == {"username": "user", "password": "pass", "db": 3, "socket_keepalive": True}
    assert sentinels.options == {"username": "watch", "password": "p@", "socket_keepalive": True}
    assert not servers.tls
    assert not sentinels.tls


def test_sentinel_without_credentials_of_its_own() -> None:
    """A sentinel is never given the servers' password."""
    topology = read_topology("redis+sentinel://user:pass@s1/service")
    assert topology.settings(Node("s1", 26379)).options == {}


def test_sentinel_with_tls() -> None:
    """TLS holds for servers and sentinels, unless the sentinels are left out of it."""
    both = read_topology("rediss+sentinel://s1/service?ssl_ca_certs=ca.pem")
    servers_only = read_topology("rediss+sentinel://s1/service?ssl_ca_certs=ca.pem&sentinel_ssl=false")
    sentinel, server = Node("s1", 26379), Node("primary", 1)
    for topology, tls in ((both, True), (servers_only, False)):
        assert topology.settings(server).tls
        assert topology.settings(server).options == {"ssl_ca_certs": "ca.pem"}
        assert topology.settings(sentinel).tls is tls
        assert topology.settings(sentinel).options == ({"ssl_ca_certs": "ca.pem"} if tls else {})


@pytest.mark.parametrize(
    "url",
    [
        "http+cluster://user:secret@host",
        "secret",
        "redis+cluster://",
        "redis+cluster://user:secret@",
        "redis+cluster://user:secret@host:port",
        "redis+cluster://user:secret@host:99999",
        "redis+cluster://user:secret@one,,two",
        "redis+cluster://user:secret@host/1",
        "redis+cluster://user:secret@host?db=1",
        "redis+cluster://user:secret@host?no_such_option=secret",
        "redis+cluster://user:secret@host?ssl=perhaps",
        "redis+cluster://user:sec/secret@host",
        "redis+cluster://user:sec?secret@host",
        "redis+cluster://user:1#secret@host",
        "redis+cluster://user:sec]secret@host",
        "redis+sentinel://user:secret@host",
        "redis+sentinel://user:secret@host/",
        "redis+sentinel://user:secret@host/service/secret",
        "redis+sentinel://user:secret@host/service/0/1",
        "redis+sentinel://user:1/secret@host/service",
        "redis+sentinel://user:secret@host/service?sentinel_ssl=secret",
        "redis+sentinel://user:secret@host/service?sentinel_pasword=secret",
    ],
)
def test_bad_url(url: str) -> None:
    """What cannot be read is a ConfigError, and nobody learns the password from it."""
    with pytest.raises(ConfigError) as caught:
        read_topology(url)
    assert "secret" not in "".join(traceback.format_exception_only(caught.value))
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "secret" not in str(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
