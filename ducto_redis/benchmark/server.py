"""Checks that an existing server can be measured."""

from urllib.parse import urlsplit

from redis.exceptions import RedisError

from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.doctor.findings import Finding
from ducto_redis.store.redis import RedisStore

_SCHEMES = ("redis", "rediss", "unix")


def check_url(url: str) -> str:
    """Return the URL of one server. Raises BenchmarkError, which never repeats it."""
    if urlsplit(url).scheme not in _SCHEMES:
        raise BenchmarkError("one server is measured: its URL begins with redis://, rediss:// or unix://")
    return url


def check_argument(url: str) -> str:
    """Return the URL of one server that was given as an argument. Raises BenchmarkError where it holds a password."""
    parts = urlsplit(url)
    if parts.password or "password=" in parts.query:
        raise BenchmarkError(
            "arguments can be read by every user of this machine: give a URL that holds a password to `ducto bench`, "
            "as DUCTO_REDIS_URL"
        )
    return check_url(url)


def check_server(url: str) -> list[Finding]:
    """Look at the server as `ducto doctor` does.

    Returns:
        What it warns of.

    Raises:
        BenchmarkError: if it cannot be measured: it does not answer, is too old, a replica, full, or can evict.
    """
    from ducto_redis.doctor.server import examine_server

    store = RedisStore(check_url(url))
    try:
        findings = list(examine_server(store))
    except RedisError as error:
        raise BenchmarkError(f"the server cannot be reached: {error}") from None
    finally:
        store.redis().close()
    for finding in findings:
        if finding.status == "error":
            raise BenchmarkError(f"{finding.detail}; {finding.advice}")
    return [finding for finding in findings if finding.status == "warning"]
