"""Ledger ingestion: journal entries into SQL, beside plain rows into the same database, and beside who makes them."""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import psycopg

from benchmarks.setting import Setting
from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure, Target
from ducto_redis.benchmark.setting import prepare
from ducto_redis.benchmark.works import USAGE
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.store.redis import RedisStore

IN_FLIGHT = 256
BATCH = 1000

_FULL_ENTRIES = 20_000
_FULL_ACCOUNTS = 500

Batch: TypeAlias = tuple[int, list[tuple[str, bytes]]]
"""A partition, and entries of its journal."""

Database: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Makes an empty database; its URL."""

_INSERT = "INSERT INTO plain VALUES (?, ?, ?)"
_COPY = "COPY plain FROM STDIN"
_CREATE = "CREATE TABLE plain (partition INTEGER, entry_id TEXT, entry TEXT)"


def ledger(setting: Setting) -> Iterator[Comparison]:
    """Compare the rate of one worker on SQLite and on PostgreSQL."""
    batches = _recorded_batches(setting)
    yield _comparison(setting, "ledger on SQLite", batches, partial(sqlite_database, setting), _plain_sqlite)
    if setting.postgres is not None:
        yield _comparison(setting, "ledger on PostgreSQL", batches, setting.postgres.database, _plain_postgres)


def _comparison(
    setting: Setting,
    work: str,
    batches: Sequence[Batch],
    database: Database,
    plain: Callable[[str, Sequence[Batch]], float],
) -> Comparison:
    worker, write, rows = "LedgerWorker, from the journal", "Ledger.write", "plain rows of the same text"
    produced = f"AsyncCreditManager, {IN_FLIGHT} in flight"

    def plain_rate() -> float:
        with database() as url:
            return plain(url, batches)

    return Comparison(
        work=work,
        unit="/s",
        contenders=[
            Contender(worker, partial(_worker_rate, setting, database)),
            Contender(write, partial(_write_rate, database, batches)),
            Contender(rows, plain_rate),
            Contender(produced, partial(_produced_rate, setting)),
        ],
        figures=[
            Figure(worker, target=Target(at_least=30_000)),
            Figure(worker, produced, target=Target(at_least=1)),
            Figure(worker, write),
            Figure(write, rows),
        ],
    )


def _worker_rate(setting: Setting, database: Database) -> float:
    with setting.namespace() as namespace, database() as url:
        asyncio.run(_produce(setting, namespace))
        entries = sum(len(batch) for _, batch in _read_journal(setting, namespace))
        ledger = _migrated(url)
        store = RedisStore(setting.redis_url, namespace=namespace, blocking=True)
        worker = LedgerWorker(store, ledger, batch=BATCH)
        start = perf_counter()
        worker.run_until_idle()
        seconds = perf_counter() - start
        written = worker.health().entries_written
        store.redis().close()
        ledger.close()
    if written != entries:
        raise BenchmarkError(f"the worker wrote {written} of {entries} journal entries")
    return entries / seconds


def _write_rate(database: Database, batches: Sequence[Batch]) -> float:
    with database() as url:
        ledger = _migrated(url)
        start = perf_counter()
        written = sum(ledger.write("bench", partition, entries).written for partition, entries in batches)
        seconds = perf_counter() - start
        ledger.close()
    if written != _entries(batches):
        raise BenchmarkError(f"the ledger wrote {written} of {_entries(batches)} journal entries")
    return written / seconds


def _plain_sqlite(url: str, batches: Sequence[Batch]) -> float:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_CREATE)
        start = perf_counter()
        for partition, entries in batches:
            with connection:
                connection.executemany(_INSERT, [(partition, entry_id, text.decode()) for entry_id, text in entries])
        return _entries(batches) / (perf_counter() - start)


def _plain_postgres(url: str, batches: Sequence[Batch]) -> float:
    with psycopg.connect(url) as connection:
        connection.execute(_CREATE)
        connection.commit()
        start = perf_counter()
        for partition, entries in batches:
            with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for entry_id, text in entries:
                    copy.write_row((partition, entry_id, text.decode()))
            connection.commit()
        return _entries(batches) / (perf_counter() - start)


def _produced_rate(setting: Setting) -> float:
    with setting.namespace() as namespace:
        return asyncio.run(_produce(setting, namespace))


async def _produce(setting: Setting, namespace: str) -> float:
    """Charge many accounts in a seeded order. Returns the charges per second."""
    accounts = [f"customer-{number:04d}" for number in range(setting.count(_FULL_ACCOUNTS))]
    draw = random.Random(setting.seed)
    full = setting.count(_FULL_ENTRIES)
    charges = enumerate([draw.choice(accounts) for _ in range(full)])

    async def call_after_call(manager: AsyncCreditManager) -> None:
        for number, account in charges:
            await manager.deduct(account, USAGE, idempotency_key=f"{number:012d}")

    async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
        await prepare(manager, *accounts)
        start = perf_counter()
        await asyncio.gather(*(call_after_call(manager) for _ in range(IN_FLIGHT)))
        return full / (perf_counter() - start)


def _recorded_batches(setting: Setting) -> list[Batch]:
    with setting.namespace() as namespace:
        asyncio.run(_produce(setting, namespace))
        return [
            (partition, entries[first : first + BATCH])
            for partition, entries in _read_journal(setting, namespace)
            for first in range(0, len(entries), BATCH)
        ]


def _read_journal(setting: Setting, namespace: str) -> list[Batch]:
    store = RedisStore(setting.redis_url, namespace=namespace)
    journals = []
    with setting.redis() as client:
        for partition in store.partitions():
            found: Any = client.xrange(store.namespace.journal(partition))
            journals.append((partition, [(entry_id.decode(), fields[b"entry"]) for entry_id, fields in found]))
    return journals


def _entries(batches: Sequence[Batch]) -> int:
    return sum(len(entries) for _, entries in batches)


def _migrated(url: str) -> Ledger:
    ledger = Ledger.from_url(url)
    ledger.migrate()
    return ledger


@contextmanager
def sqlite_database(setting: Setting) -> Iterator[str]:
    """Yield the URL of a new file, gone afterwards."""
    path = setting.folder / f"ledger-{random.getrandbits(64):016x}.db"
    try:
        yield f"sqlite:///{path}"
    finally:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
