"""The migration of a database to the ledger's newest schema, with the Alembic migrations in this package."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from ducto_redis.errors import LedgerUnavailableError
from ducto_redis.ledger.database import Database
from ducto_redis.ledger.rebuilding import rebuild_all

VERSION_TABLE = "ducto_ledger_version"
_LOCK = 0x647563746F  # "ducto": the PostgreSQL advisory lock of migrations
_WAL_SECONDS = 30.0
# Entries of this version have no roll-ups. A migration cannot make them: it would use the tables of a later schema.
_WITHOUT_ROLLUPS = "0001"


def migrate(database: Database) -> None:
    """Run the missing migrations in one transaction. Several processes take turns."""
    if database.is_sqlite and not database.in_memory:
        _use_wal(database)
    with database.write() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        before = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
        command.upgrade(configuration(connection), "head")
        if before == _WITHOUT_ROLLUPS:
            rebuild_all(connection)


def configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _use_wal(database: Database) -> None:
    # The file keeps the mode. A change fails at once, without waiting, while another process uses the file.
    deadline = time.monotonic() + _WAL_SECONDS
    while True:
        try:
            with database.sqlite_setup() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except LedgerUnavailableError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
