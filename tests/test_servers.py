"""The servers that the other tests rely on."""

import itertools
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.servers import PostgresServer, Server

ROOT = Path(__file__).parents[1]


def test_server_never_evicts_and_appends(server_url: str) -> None:
    """Both servers run as a ledger of money has to: append-only file, no eviction."""
    with redis.Redis.from_url(server_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("append*") | {"appendonly": "yes", "appendfsync": "everysec"} == client.config_get(
            "append*"
        )


def test_killed_server_comes_back_with_its_data(start_valkey: Callable[..., Server]) -> None:
    """After SIGKILL a server starts again on its port and folder, with what it had acknowledged."""
    server = start_valkey()
    url = server.url
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    server.kill()
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()
    assert server.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == b"value"


def test_start_valkey_takes_directives(start_valkey: Callable[..., Server]) -> None:
    """Directives given to the factory reach the server."""
    with redis.Redis.from_url(start_valkey(maxmemory="10mb", appendfsync="always").url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(10 * 1024 * 1024)}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_databases_are_apart(postgres_server: PostgresServer) -> None:
    """A table of one test's database is not in another's."""
    with postgres_server.database() as first, postgres_server.database() as second:
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE entries (id int)")
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT to_regclass('entries')").fetchone() == (None,)


def test_killed_postgres_comes_back_with_its_data(start_postgres: Callable[[], PostgresServer]) -> None:
    """What was committed is there after an immediate shutdown and a new start."""
    server = start_postgres()
    with server.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE entries AS SELECT 7 AS id")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM entries").fetchone() == (7,)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda ending: ending.name)
def test_no_server_survives_the_run(tmp_path: Path, ending: signal.Signals) -> None:
    """However a test run ends, its servers end and their folders are removed."""
    (tmp_path / "test_hangs.py").write_text(
        textwrap.dedent("""
            import signal

            def test_hangs(valkey_server, postgres_server, start_valkey):
                servers = [valkey_server, postgres_server, start_valkey()]
                for server in servers:
                    print(f"is {server.pid}\\nis {server.folder}", flush=True)
                signal.pause()
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"]
    with subprocess.Popen([*command, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            told = (line.removeprefix("is ").strip() for line in run.stdout if line.startswith("is "))
            lines = list(itertools.islice(told, 6))
            processes = psutil.Process(run.pid).children(recursive=True)
            folders = [Path(line) for line in lines[1::2]]
            assert {int(line) for line in lines[0::2]} <= {process.pid for process in processes}
            assert all(folder.is_dir() for folder in folders)
            run.send_signal(ending)
            run.communicate(timeout=60)
        finally:
            run.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()
    assert not alive
    assert not [folder for folder in folders if folder.exists()]
