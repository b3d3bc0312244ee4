"""The packaged migrations."""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec import structs
from sqlalchemy import Engine, inspect

from ducto_redis.errors import LedgerUnavailableError
from ducto_redis.ledger import Ledger
from ducto_redis.ledger.migration import VERSION_TABLE, configuration
from ducto_redis.ledger.schema import metadata
from tests.ledger.entries import Account, Journal, cause_of, engine_of


@pytest.fixture
def database(ledger_url: str) -> Iterator[Engine]:
    engine = engine_of(ledger_url)
    yield engine
    engine.dispose()


def migrate(url: str) -> None:
    with Ledger.from_url(url) as ledger:
        ledger.migrate()


def description(engine: Engine) -> dict[str, Any]:
    """What the database says of the ledger's tables."""
    found = inspect(engine)
    return {
        table: {
            "columns": [(it["name"], str(it["type"]), it["nullable"]) for it in found.get_columns(table)],
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted((it["name"], it["column_names"]) for it in found.get_unique_constraints(table)),
            "indexes": sorted((it["name"], it["column_names"]) for it in found.get_indexes(table)),
        }
        for table in sorted(found.get_table_names())
        if table.startswith("ducto_") and table != VERSION_TABLE
    }


def test_migrations_end_in_the_schema(ledger_url: str, database: Engine) -> None:
    """The tables that the migrations make are those that the code was written for."""
    migrate(ledger_url)
    with database.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    migrated = description(database)
    with database.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    assert description(database) == migrated
    assert list(migrated) == sorted(metadata.tables)


def test_migrating_again_changes_nothing(ledger_url: str, database: Engine) -> None:
    """Every start may migrate."""
    migrate(ledger_url)
    before = description(database)
    migrate(ledger_url)
    assert description(database) == before


def migrate_together(url: str, barrier: Any) -> None:
    barrier.wait()
    migrate(url)


def test_processes_that_migrate_together_take_turns(ledger_url: str, database: Engine) -> None:
    """Several applications that start at once on a new database all find it migrated."""
    processes = 4
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    children = [context.Process(target=migrate_together, args=(ledger_url, barrier)) for _ in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * processes
    assert set(metadata.tables) <= set(inspect(database).get_table_names())


def test_applications_keep_their_own_migrations(ledger_url: str, database: Engine) -> None:
    """The ledger may live in an application's database: Alembic's usual table is left alone."""
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('app-7')")
    migrate(ledger_url)
    with database.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["app-7"]


def test_a_database_that_was_not_migrated_says_so(ledger_url: str) -> None:
    """The error names the command that helps, and is one that is worth waiting on."""
    with Ledger.from_url(ledger_url) as ledger, pytest.raises(LedgerUnavailableError, match="ducto ledger migrate"):
        ledger.is_empty("ducto")


def test_an_older_ledger_gets_its_rollups(ledger_url: str, database: Engine) -> None:
    """What was written before there were roll-ups is in them after the migration, as if it had been written after."""
    journal = Journal()
    account, other = Account(journal, "u1"), Account(journal, "u2")
    cause = cause_of({"model": "gpt", "input_tokens": 5}, operation_type="chat")
    raw = [account.add(100, credits_type="purchase"), account.deduct(7, cause=cause), account.reserve("l", 20)]
    raw += [account.expire("l"), account.settle("l", 12, cause=cause), other.add(5), other.deduct(2)]
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        ledger.write("n", 0, raw)
        expected = ledger.analytics("n").aggregate_stats()
        entries = ledger.entries("n", "u1")
        with ledger._database.write() as connection:
            command.downgrade(configuration(connection), "0001")
        assert "ducto_account_hours" not in inspect(database).get_table_names()
        ledger.migrate()
        assert ledger.analytics("n").aggregate_stats() == expected
        assert [structs.replace(entry, details="") for entry in entries] == ledger.entries("n", "u1")
        report = ledger.verify()
        assert (report.ok, report.entries) == (True, 7)
        assert ledger.analytics("n").usage("input_tokens", "account")[0].quantity == 10


def test_rollups_of_an_older_ledger_are_taken_over(ledger_url: str, database: Engine) -> None:
    """Hours and days come to their partitions; weeks are made by the next batch, of all that was there before."""
    journal = Journal()
    account = Account(journal, "u1")
    cause = cause_of({"model": "gpt", "input_tokens": 5})
    raw = [account.add(100), account.deduct(7, cause=cause), account.deduct(2, cause=cause)]
    with Ledger.from_url(ledger_url) as ledger:
        ledger.migrate()
        ledger.write("n", 3, raw)
        spent = ledger.analytics("n").spend_by_user()
        with ledger._database.write() as connection:
            command.downgrade(configuration(connection), "0002")
        assert "ducto_account_weeks" not in inspect(database).get_table_names()
        ledger.migrate()
        assert ledger.analytics("n").spend_by_user() == spent
        assert ledger.verify().ok
        journal.move_to(1_700_000_000_000 + 15 * 86_400_000)
        ledger.write("n", 3, [account.add(1)])
        with database.connect() as connection:
            made = connection.exec_driver_sql("SELECT account, SUM(charged) FROM ducto_account_weeks GROUP BY account")
            assert [(name, int(charged)) for name, charged in made] == [("u1", 9)]
        assert ledger.analytics("n").spend_by_user() == spent
        assert ledger.verify().ok
