"""Questions about spending, answered from roll-ups, beside the same sums made from the entries."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.ledger import sqlite_database
from benchmarks.setting import Setting
from ducto_redis.benchmark.harness import BenchmarkError, Comparison, Contender, Figure
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger import Ledger
from ducto_redis.ledger.rebuilding import account_row, store_accounts

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
_CHARGE = 5_000
_COLUMNS = (
    "namespace",
    "partition",
    "epoch",
    "entry_ms",
    "entry_seq",
    "account",
    "seq",
    "operation",
    "operation_key",
    "amount",
    "balance_change",
    "shortfall",
    "balance_after",
    "version",
    "model",
    "cause",
    "changes",
    "charged",
)
_ADDED = "entries, charges, charged, amount, balance_change, input_tokens, output_tokens"
_SUMMED = ", ".join(f"SUM({name})" for name in _ADDED.split(", "))
_DETAIL = "operation, member, model, operation_type, type"
_ROLLUPS = (
    f"INSERT INTO ducto_account_hours (namespace, partition, hour, account, {_DETAIL}, {_ADDED})"
    " SELECT namespace, partition, entry_ms / 3600000, account, operation, '', model, operation_type, '',"
    " COUNT(*), COUNT(*), SUM(charged), SUM(amount), SUM(balance_change), 1200 * COUNT(*), 300 * COUNT(*)"
    " FROM ducto_entries GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
    f"INSERT INTO ducto_partition_hours (namespace, hour, partition, operation, model, operation_type, type, {_ADDED})"
    f" SELECT namespace, hour, partition, operation, model, operation_type, type, {_SUMMED}"
    " FROM ducto_account_hours GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7",
    f"INSERT INTO ducto_account_days (namespace, partition, day, account, operation, member, {_ADDED})"
    f" SELECT namespace, partition, hour / 24, account, operation, member, {_SUMMED}"
    " FROM ducto_account_hours GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6",
)
_WEEKS = (
    f"INSERT INTO ducto_account_weeks (namespace, partition, week, account, operation, member, {_ADDED})"
    f" SELECT namespace, partition, day / 7, account, operation, member, {_SUMMED}"
    " FROM ducto_account_days WHERE day < 7 * {open_week} GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
)
_PARTITIONS_ROWS = (
    "INSERT INTO ducto_partitions (namespace, partition, epoch, entry_ms, entry_seq, open_week)"
    " SELECT namespace, partition, 1, MAX(entry_ms), 0, {open_week} FROM ducto_entries GROUP BY 1, 2"
)
_FROM_ENTRIES = (
    "SELECT account, SUM(charged) FROM ducto_entries"
    " WHERE namespace = 'bench' AND operation = 'deduct' AND superseded = 0 GROUP BY account"
)


def analytics(setting: Setting) -> Iterator[Comparison]:
    """Measure a ledger of a million entries (`--scale 10`: ten millions), on SQLite and on PostgreSQL."""
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
            _check(ledger, entries)
            with ledger._database.write() as connection:  # what PostgreSQL does by itself after a while
                connection.exec_driver_sql("ANALYZE")
            yield _comparison(f"{entries:,} entries, {name}", ledger)


def _comparison(work: str, ledger: Ledger) -> Comparison:
    asked, end = ledger.analytics(NAMESPACE), _START + timedelta(days=_DAYS)
    week = end - timedelta(days=7, minutes=17)
    odd = _START + timedelta(days=3, hours=5, minutes=17)
    limit = "SUM over the entries, by account"
    questions: dict[str, Callable[[Analytics], Sequence[Any]]] = {
        "spend_by_user": lambda it: it.spend_by_user(),
        "spend_by_user, 7 days, odd minutes": lambda it: it.spend_by_user(week, end),
        "spend_by_user, 85 days, odd minutes": lambda it: it.spend_by_user(odd, end - timedelta(hours=31)),
        "top_users": lambda it: it.top_users(),
        "spend_by_model": lambda it: it.spend_by_model(),
        "spend_by_member": lambda it: it.spend_by_member("customer-00000"),
        "daily_spend": lambda it: it.daily_spend(),
        "daily_spend, half-hour zone": lambda it: it.daily_spend(time_zone="Asia/Kolkata"),
        "daily_spend of one account": lambda it: it.daily_spend(account="customer-00001"),
        "aggregate_stats": lambda it: (it.aggregate_stats(),),
        "usage by day": lambda it: it.usage("input_tokens", "day"),
        "usage by day, half-hour zone": lambda it: it.usage("input_tokens", "day", time_zone="Asia/Kolkata"),
        "usage by account": lambda it: it.usage("input_tokens", "account"),
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
    """Charges of many accounts, spread over the days, most of them on few accounts: the rows that the writer makes.

    Not by the writer, which takes a quarter of an hour for ten millions. `_check` finds what does not add up.
    """
    database = ledger._database
    balances = [0] * _ACCOUNTS
    if database.is_sqlite:
        with database.sqlite_setup() as connection:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000000"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            raw = connection.connection.cursor()
            raw.execute("BEGIN")
            places = ", ".join("?" for _ in _COLUMNS)
            insert = f"INSERT INTO ducto_entries ({', '.join(_COLUMNS)}) VALUES ({places})"
            for rows in _batches(entries, seed, balances):
                raw.executemany(insert, rows)
            raw.execute("COMMIT")
    else:
        with database.write() as connection, connection.connection.cursor() as raw:
            copying = raw.copy(f"COPY ducto_entries ({', '.join(_COLUMNS)}) FROM STDIN")  # type: ignore[attr-defined]
            with copying as copy:
                for rows in _batches(entries, seed, balances):
                    for row in rows:
                        copy.write_row(row)
    last_week = _week_of(_START + timedelta(days=_DAYS, milliseconds=-1))
    with database.write() as connection:
        for statement in _ROLLUPS:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(_WEEKS.format(open_week=last_week))
        connection.exec_driver_sql(_PARTITIONS_ROWS.format(open_week=last_week))
        states = []
        for number, balance in enumerate(balances):
            if balance:
                fields = {"epoch": "1", "seq": str(-balance // _CHARGE), "balance": str(balance)}
                states.append(account_row(NAMESPACE, _name(number), number % _PARTITIONS, AccountState(fields), ()))
        store_accounts(connection, states)
    if database.is_sqlite:
        ledger.close()
        ledger.migrate()  # the file is as the writer has it again: with its log, synced


def _check(ledger: Ledger, entries: int) -> None:
    week = f"day < 7 * (SELECT MIN(open_week) FROM ducto_partitions WHERE namespace = '{NAMESPACE}')"
    with ledger._database.read() as connection:

        def counted(table: str, condition: str = "1 = 1") -> int:
            statement = f"SELECT SUM(entries), SUM(charged) FROM {table} WHERE {condition}"
            count, charged = connection.exec_driver_sql(statement).one()
            if charged != count * _CHARGE:
                raise BenchmarkError(f"{table} does not add up")
            return int(count)

        tables = ("ducto_account_hours", "ducto_account_days", "ducto_partition_hours")
        if {counted(table) for table in tables} != {entries}:
            raise BenchmarkError("the roll-ups are not those of the entries")
        if counted("ducto_account_weeks") != counted("ducto_account_days", week):
            raise BenchmarkError("the roll-ups by the week are not those of the days")


def _batches(entries: int, seed: int, balances: list[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of entries, as many of one partition at a time as a worker writes."""
    draw = random.Random(seed)
    begin, step = round(_START.timestamp() * 1000), _DAYS * 86_400_000 // entries
    causes = [f'{{"usage":[["{it}",1200,300]]}}' for it in _MODELS]
    names = [_name(number) for number in range(_ACCOUNTS)]
    batches: list[list[tuple[Any, ...]]] = [[] for _ in range(_PARTITIONS)]
    for number in range(entries):
        account = int(_ACCOUNTS * draw.random() ** 2)
        model = int(len(_MODELS) * draw.random())
        balances[account] = balance = balances[account] - _CHARGE
        batch = batches[account % _PARTITIONS]
        batch.append(
            (
                NAMESPACE,
                account % _PARTITIONS,
                1,
                begin + number * step,
                0,
                names[account],
                -balance // _CHARGE,
                "deduct",
                f"key/{number}",
                _CHARGE,
                -_CHARGE,
                0,
                balance,
                1,
                _MODELS[model],
                causes[model],
                f"balance\t{balance}",
                _CHARGE,
            )
        )
        if len(batch) == _BATCH:
            yield batch
            batch.clear()
    yield from batches


def _name(number: int) -> str:
    return f"customer-{number:05d}"


def _week_of(time: datetime) -> int:
    return int(time.timestamp()) // (7 * 86_400)
