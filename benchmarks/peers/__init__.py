"""Peers beside ducto-redis: one account that everyone charges, and 10,000.

Every figure has 256 calls in flight, over as many connections as the peer does best with, or 32 threads. The peers are
spared what they do not do: prices are computed before, and what a request consumed is not recorded.
"""

import importlib.util
from collections.abc import Iterator
from functools import partial

from benchmarks.peers.peer import Peer
from benchmarks.setting import Setting
from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure
from ducto_redis.benchmark.setting import ACCOUNT, account_names
from ducto_redis.benchmark.throughput import THREADS

MANY = 10_000

_PACKAGES = ("asyncpg", "coredis", "limits")
_FULL = 6_000


def peers(setting: Setting) -> Iterator[Comparison]:
    """Charges per second of each peer."""
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing or setting.postgres is None:
        what = ", ".join([*missing, *([] if setting.postgres else ["PostgreSQL"])])
        raise BenchmarkError(f"{what} is not installed: `make bench-peers` installs what it compares with")
    from benchmarks.peers.ours import async_rate, threads_rate

    ours_async = "ducto-redis, AsyncCreditManager"
    ours_threads = f"ducto-redis, CreditManager, {THREADS} threads"
    others = all_peers()
    full = setting.count(_FULL)
    for work, accounts in (
        ("charges, one hot account", [ACCOUNT]),
        (f"charges, {setting.count(MANY):,} accounts", account_names(setting.count(MANY))),
    ):
        contenders = [
            Contender(ours_async, partial(async_rate, setting, accounts, full)),
            Contender(ours_threads, partial(threads_rate, setting, accounts, full)),
            *(Contender(peer.name, partial(peer.rate, setting, accounts, full)) for peer in others),
        ]
        figures = [Figure(ours_async if peer.is_async else ours_threads, peer.name) for peer in others]
        yield Comparison(work=work, unit="/s", contenders=contenders, figures=figures)


def all_peers() -> list[Peer]:
    """Return the peers; their packages are imported here."""
    from benchmarks.peers import limits_library, plain_redis, postgres_function

    return [*postgres_function.PEERS, *limits_library.PEERS, *plain_redis.PEERS]
