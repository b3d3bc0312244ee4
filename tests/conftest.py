"""Fixtures that every test can use: real servers, ledger databases, fresh names."""

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

from tests import searching  # registers the profiles
from tests.clusters import Cluster
from tests.sentinels import Sentinels
from tests.servers import PostgresServer, Server, Watchdog, temporary_folder


def pytest_configure(config: pytest.Config) -> None:
    """Choose how far tests search, and announce the folders where the output is a person's."""
    marks: str = config.option.markexpr
    settings.load_profile("long" if "long" in marks and "not long" not in marks else "ordinary")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FolderNotes(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a long run search further in all that hypothesis drives."""
    if searching.is_long_run():
        for item in items:
            if is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker(pytest.mark.long)


class FolderNotes:
    """A line for each folder of tests as its first test begins, with the time since the start."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._seen: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write the line. With several processes the one that shows the results is told of every test, too."""
        folder = "/".join(nodeid.partition("::")[0].split("/")[:2])
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if folder not in self._seen and terminal is not None:
            self._seen.add(folder)
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            terminal.write_line(f"{minutes}:{seconds:02} {folder}")


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """What a command of one test logs to its standard error is over with that test."""
    logger = logging.getLogger("ducto_redis")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where the session's Valkey and Redis keep their data; not under `tmp_path`, of which pytest keeps three."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def watchdog() -> Iterator[None]:
    """Ends the process that cleans up after a killed run, once all servers have been stopped."""
    yield
    Watchdog.close()


@pytest.fixture(scope="session")
def valkey_server(watchdog: None, server_folder: Path) -> Iterator[Server]:
    """The session's Valkey, shared by all tests: use a `namespace` of your own, and do not restart it."""
    folder = server_folder / "valkey"
    folder.mkdir()
    server = Server.valkey(folder).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(watchdog: None, server_folder: Path) -> Iterator[Server]:
    """The session's Redis, from the PATH. Without one the test is skipped at home and fails in CI."""
    program = shutil.which("redis-server")
    if program is None:
        message = "there is no redis-server on the PATH"
        if os.environ.get("CI"):
            pytest.fail(f"{message}; CI has to cover Redis: .ci/run installs it", pytrace=False)
        pytest.skip(message)
    folder = server_folder / "redis"
    folder.mkdir()
    server = Server(program, folder).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster(watchdog: None) -> Iterator[Cluster]:
    """The session's Redis Cluster, shared by all tests: hurt it only inside `cluster.hasty()`, which heals it."""
    with temporary_folder("ducto-tests-cluster-") as folder:
        servers = Cluster(folder)
        try:
            yield servers.start()
        finally:
            servers.stop()


@pytest.fixture(scope="session")
def sentinels(watchdog: None) -> Iterator[Sentinels]:
    """The session's servers under Sentinel, shared by all tests: hurt them only inside `sentinels.hasty()`."""
    with temporary_folder("ducto-tests-sentinel-") as folder:
        servers = Sentinels(folder)
        try:
            yield servers.start()
        finally:
            servers.stop()


@pytest.fixture(scope="session")
def postgres_server(watchdog: None) -> Iterator[PostgresServer]:
    """The session's PostgreSQL, shared by all tests: use `postgres_url`, and do not restart it."""
    with temporary_folder("ducto-tests-postgres-") as folder:
        server = PostgresServer(folder).start()
        yield server
        server.stop()


@pytest.fixture
def valkey_url(valkey_server: Server) -> str:
    """The URL of the session's Valkey."""
    return valkey_server.url


@pytest.fixture
def redis_server_url(redis_server: Server) -> str:
    """The URL of the session's Redis."""
    return redis_server.url


@pytest.fixture(params=["valkey", "redis"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a server; a test that asks for it runs on Valkey and on Redis."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.url


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database, for this test only."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger database; a test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def namespace() -> str:
    """A name for a namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def start_valkey(watchdog: None) -> Iterator[Callable[..., Server]]:
    """Starts a Valkey for this test only, which it may stop, kill and restart: `start_valkey(maxmemory="10mb")`."""
    with contextlib.ExitStack() as stack:

        def start(**config: str | int) -> Server:
            server = Server.valkey(stack.enter_context(temporary_folder()), **config).start()
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def start_postgres(watchdog: None) -> Iterator[Callable[[], PostgresServer]]:
    """Starts a PostgreSQL for this test only, which it may stop, kill and restart; `with server.database() as url`."""
    with contextlib.ExitStack() as stack:

        def start() -> PostgresServer:
            server = PostgresServer(stack.enter_context(temporary_folder("ducto-tests-postgres-"))).start()
            stack.callback(server.stop)
            return server

        yield start
