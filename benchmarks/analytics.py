"""Questions about spending, answered from roll-ups, beside the same sums made from the entries."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.harness import BenchmarkError, Comparison, Contender, Figure
from benchmarks.ledger import sqlite_database
from benchmarks.setting import Setting
from ducto_redis.ledger import Ledger

if TYPE_CHECKING:
    from ducto_redis.ledger.analytics import Analytics

NAMESPACE = "bench"
ENTRIES = 1_000_000

_ACCOUNTS = 10_000
_PARTITIONS = 16
_DAYS = 90
_BATCH = 2_000
_MODELS = ("gpt-4o", "o3", "claude-opus", "claude-haiku")
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FROM_ENTRIES = (
    "SELECT account, SUM(charged) FROM ducto_entries"
    " WHERE namespace = 'bench' AND operation = 'deduct' AND superseded = 0 GROUP BY account"
)


def analytics(setting: Setting) -> Iterator[Comparison]:
    """A ledger of a million entries (`--scale 10`: ten millions), on SQLite and on PostgreSQL."""
    databases: list[tuple[str, Callable[[], AbstractContextManager[str]]]] = [
        ("SQLite", partial(sqlite_database, setting))
    ]
    if setting.postgres is not None:
        databases.append(("PostgreSQL", setting.postgres.database))
    for name, database in databases:
        with database() as url, closing(Ledger.from_url(url)) as ledger:
            ledger.migrate()
            entries = setting.count(ENTRIES)
            _fill(ledger, entries, setting.seed)
            with ledger._database.write() as connection:  # what PostgreSQL does by itself after a while
                connection.exec_driver_sql("ANALYZE")
            yield _comparison(f"{entries:,} entries, {name}", ledger)


def _comparison(work: str, ledger: Ledger) -> Comparison:
    asked, end = ledger.analytics(NAMESPACE), _START + timedelta(days=_DAYS)
    week = end - timedelta(days=7, minutes=17)
    limit = "SUM over the entries, by account"
    questions: dict[str, Callable[[Analytics], Sequence[Any]]] = {
        "spend_by_user": lambda it: it.spend_by_user(),
        "spend_by_user, 7 days, odd minutes": lambda it: it.spend_by_user(week, end),
        "spend_by_model": lambda it: it.spend_by_model(),
        "daily_spend": lambda it: it.daily_spend(),
        "daily_spend, half-hour zone": lambda it: it.daily_spend(time_zone="Asia/Kolkata"),
        "daily_spend of one account": lambda it: it.daily_spend(account="customer-00001"),
        "aggregate_stats": lambda it: (it.aggregate_stats(),),
        "usage by day": lambda it: it.usage("input_tokens", "day"),
        "list_user_transactions": lambda it: it.list_user_transactions("customer-00001").transactions,
        "anomalies": lambda it: (it.anomalies(at_least=0),),
    }
    contenders = [Contender(name, partial(_microseconds, partial(ask, asked))) for name, ask in questions.items()]
    contenders.append(Contender(limit, partial(_microseconds, partial(_sum_entries, ledger))))
    return Comparison(work, "µs", contenders, [Figure(name, limit) for name in questions])


def _microseconds(ask: Callable[[], Sequence[Any]]) -> float:
    start = perf_counter()
    rows = ask()
    seconds = perf_counter() - start
    if not rows:
        raise BenchmarkError("a question about a full ledger was answered with nothing")
    return seconds * 1e6


def _sum_entries(ledger: Ledger) -> Sequence[Any]:
    with ledger._database.read() as connection:
        return connection.exec_driver_sql(_FROM_ENTRIES).all()


def _fill(ledger: Ledger, entries: int, seed: int) -> None:
    """Charges of many accounts, spread over the days, most of them on few accounts."""
    draw = random.Random(seed)
    begin, step = round(_START.timestamp() * 1000), _DAYS * 86_400_000 // entries
    places: dict[str, tuple[int, int]] = {}
    batches: dict[int, list[tuple[str, bytes]]] = {partition: [] for partition in range(_PARTITIONS)}
    for number in range(entries):
        drawn = int(_ACCOUNTS * draw.random() ** 2)
        account, partition = f"customer-{drawn:05d}", drawn % _PARTITIONS
        seq, balance = places.get(account, (0, 0))
        seq, balance = seq + 1, balance - 5_000
        places[account] = seq, balance
        cause = f'{{"usage":{{"model":"{draw.choice(_MODELS)}","input_tokens":1200,"output_tokens":300}}}}'
        text = f"deduct\t{account}\t1\t{seq}\tkey/{number}\t5000\t-5000\t0\t1\t{cause}\t\tbalance\t{balance}"
        batch = batches[partition]
        batch.append((f"{begin + number * step}-0", text.encode()))
        if len(batch) == _BATCH:
            ledger.write(NAMESPACE, partition, batch)
            batch.clear()
    for partition, batch in batches.items():
        ledger.write(NAMESPACE, partition, batch)
