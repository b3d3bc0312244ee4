"""The connection to the ledger's database: SQLite or PostgreSQL."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ducto_redis.errors import ConfigError, LedgerError, LedgerUnavailableError

_LOCK_MS = 5000
# A worker that froze inside a transaction holds its locks: others must not wait long for them.
_FROZEN_MS = 30000
_POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    # Detects a server that vanished without closing the connection.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}


class Database:
    """Transactions on one database. The engine is created at first use, and again in a forked child.

    Args:
        url: `sqlite:///path`, `sqlite://` (in memory, gone with the process) or `postgresql://user@host/name`.

    Raises:
        ConfigError: if the URL is malformed, or names another kind of database.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        secrets = [name for name in self._url.query if "password" in name]
        self.name = self._url.difference_update_query(secrets).render_as_string(hide_password=True)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.in_memory = self.is_sqlite and self._url.database in (None, "", ":memory:")
        # A database in memory has one connection: its users take turns.
        self._turn: Any = threading.RLock() if self.in_memory else nullcontext()
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._process = os.getpid()

    def _open(self) -> Engine:
        if self._process != os.getpid():
            if self.in_memory:
                raise ConfigError("a ledger in memory belongs to the process that opened it, not to a forked child")
            self._opening = threading.Lock()
            if self._engine is not None:
                self._engine.dispose(close=False)
            self._engine, self._process = None, os.getpid()
        with self._opening:
            if self._engine is None:
                self._engine = _create_engine(self._url, self.is_sqlite, self.in_memory)
            return self._engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes. Raises LedgerUnavailableError, LedgerError."""
        with self._errors(), self._turn, self._open().connect() as connection:
            connection = connection.execution_options(ducto_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that reads one state of the database, unaffected by other writers."""
        with self._errors(), self._turn, self._open().connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def sqlite_setup(self) -> Iterator[Connection]:
        """Open a connection to SQLite without a transaction, for settings that cannot change in one."""
        with self._errors(), self._turn, self._open().connect().execution_options(ducto_begin="") as connection:
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _is_passing(error):
                raise LedgerUnavailableError(f"the ledger {self.name} is not available: {_text(error)}") from error
            raise LedgerError(f"the ledger {self.name} refused: {_text(error)}") from error
        except PoolTimeoutError as error:
            raise LedgerUnavailableError(f"the ledger {self.name} has no free connection: {error}") from error
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.name} failed: {error}") from error

    def close(self) -> None:
        """Close the connections. They are opened again when needed; a database in memory is gone."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose(close=self._process == os.getpid())


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("a ledger URL must be sqlite:///path or postgresql://user@host/name") from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigError(f"a ledger URL must be sqlite:// or postgresql://, not {url.drivername}://")
    return url


def _create_engine(url: URL, is_sqlite: bool, in_memory: bool) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True}
    if in_memory:
        options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    elif not is_sqlite:
        given = {name: value for name, value in _POSTGRESQL_OPTIONS.items() if name not in url.query}
        options |= {"connect_args": given, "pool_pre_ping": True}
    try:
        engine = create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise ConfigError(f"PostgreSQL needs {error.name}: pip install 'ducto-redis[postgres]'") from error
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_LOCK_MS}")
    # Committed entries are trimmed from the journal: they must survive a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA cache_size = -65536")
    cursor.close()


def _prepare_postgresql(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {_LOCK_MS}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_FROZEN_MS}")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("ducto_begin", "BEGIN")
    if begin:
        connection.exec_driver_sql(begin)


def _is_passing(error: DBAPIError) -> bool:
    # These two are caused by the written data. All others are for the server or its operator to resolve: a lock, a
    # full disk, a missing permission, a missing table.
    return not isinstance(error, DataError | IntegrityError)


def _text(error: DBAPIError) -> str:
    text = " ".join(str(error.orig).split())
    missing = "no such table" in text or getattr(error.orig, "sqlstate", None) == "42P01"
    return f"{text}; run `ducto ledger migrate`" if missing else text
