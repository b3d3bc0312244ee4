"""URLs of Redis: one server, a cluster, or a service that sentinels watch."""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

from ducto_redis.engine.cluster import Cluster
from ducto_redis.engine.connecting import read_url
from ducto_redis.engine.sentinel import Sentinel
from ducto_redis.engine.topology import ConnectionSettings, Node, Standalone, Topology
from ducto_redis.errors import ConfigError

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
"""Of all URLs that name servers. Those with `rediss` encrypt."""

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")
_ESCAPE = "in a user name or password, /, ?, #, @ and : have to be percent-encoded"


def read_topology(url: str) -> Topology:
    """Return the topology that a URL names, with its settings. Nothing is connected yet.

    Args:
        url: `redis://[user:password@]host[:port][/database]`, `rediss://…` with TLS, `unix://path`;
            `redis+cluster://[user:password@]host[:port][,host[:port]…]` for a cluster, of which one node is enough;
            `redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/database]` for the primary of a
            service, where the hosts are sentinels and user and password the servers'. The sentinels' own are the
            options `sentinel_username` and `sentinel_password`. `rediss+cluster://` and `rediss+sentinel://`, or the
            option `ssl=true`, encrypt; `sentinel_ssl=false` leaves the sentinels out of that. All other options are
            redis-py's: `ssl_ca_certs=…`, `socket_keepalive=true`, ….

    Raises:
        ConfigError: if it cannot be read. The message holds nothing of the URL's user and password.
    """
    scheme, _, _ = url.partition("://")
    kind, plus, setup = scheme.partition("+")
    if scheme not in SCHEMES:
        raise ConfigError(f"a Redis URL begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if not plus:
        return Standalone(*read_url(url))
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        if parts.fragment:
            raise ValueError
    except ValueError:
        raise ConfigError(f"the Redis URL cannot be read; {_ESCAPE}") from None
    if _flag(options, "ssl", False):
        kind = "rediss"
    credentials, at, hosts = parts.netloc.rpartition("@")
    if setup == "cluster":
        seeds = _nodes(hosts, _REDIS_PORT)
        if parts.path not in ("", "/", "/0") or options.pop("db", "0") != "0":
            raise ConfigError(f"a cluster's URL ends with its nodes, or with /0, its only database; {_ESCAPE}")
        return Cluster(seeds, _settings(kind, credentials + at, "", options))
    sentinels = _nodes(hosts, _SENTINEL_PORT)
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not _SERVICE.fullmatch(service) or (database and not database.isdecimal()):
        raise ConfigError(
            "a sentinel URL names its service behind the sentinels, and perhaps a database:"
            f" redis+sentinel://host:26379/service/0; {_ESCAPE}"
        )
    sentinel_credentials = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    sentinel_tls = _flag(options, "sentinel_ssl", kind == "rediss")
    settings = _settings(kind, credentials + at, database, options)
    shared = {name: value for name, value in settings.options.items() if name not in ("username", "password", "db")}
    if settings.tls and not sentinel_tls:
        shared = {name: value for name, value in shared.items() if not name.startswith("ssl_")}
    return Sentinel(sentinels, service, settings, ConnectionSettings(sentinel_tls, {**shared, **sentinel_credentials}))


def _flag(options: dict[str, str], name: str, default: bool) -> bool:
    """Take an option that is true or false out of the others."""
    value = options.pop(name, str(default)).lower()
    if value not in ("true", "false"):
        raise ConfigError(f"the option {name} of a Redis URL is true or false")
    return value == "true"


def _nodes(hosts: str, default_port: int) -> list[Node]:
    nodes = []
    for address in hosts.split(","):
        try:
            parts = urlsplit(f"//{address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.path or parts.query:
            raise ConfigError(f"a Redis URL names its hosts as host:port,host:port; {_ESCAPE}")
        nodes.append(Node(host, default_port if port is None else port))
    return nodes


def _settings(kind: str, credentials: str, database: str, options: dict[str, str]) -> ConnectionSettings:
    query = f"?{urlencode(options)}" if options else ""
    _, settings = read_url(f"{kind}://{credentials}any.host/{database}{query}")
    return settings
