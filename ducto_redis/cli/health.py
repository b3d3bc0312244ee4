"""A worker's own HTTP endpoints: `/healthz`, `/readyz` and `/metrics`."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any

import msgspec
from redis.exceptions import RedisError

from ducto_redis.errors import ConfigError
from ducto_redis.journal import LedgerWorker, WorkerHealth

_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Serves a worker's health from a thread of its own, while it is entered as a context.

    Args:
        worker: whose health.
        host, port: where to listen; port 0 takes a free one.

    Raises:
        ConfigError: if nobody can listen there.
    """

    def __init__(self, worker: LedgerWorker, host: str, port: int) -> None:
        class Handler(_Handler):
            pass

        Handler.worker = worker
        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot serve health on {host}:{port}: {error.strerror}; choose another place with --health-host and"
                " --health-port"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def __enter__(self) -> "HealthServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks the name service for the host's name, which may take long
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    worker: LedgerWorker
    timeout = 10
    server_version = "ducto"
    sys_version = ""

    def do_GET(self) -> None:
        health = self.worker.health()
        if self.path == "/healthz":
            self._answer(200 if health.running else 503, _JSON, msgspec.json.encode({"running": health.running}))
        elif self.path == "/readyz":
            self._answer(200 if health.ready else 503, _JSON, msgspec.json.encode(readiness(health)))
        elif self.path == "/metrics":
            self._answer(200, _PROMETHEUS, "".join(metrics(health, _lag(self.worker))).encode())
        else:
            self._answer(404, _JSON, b'{"error":"there are /healthz, /readyz and /metrics"}')

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds: they are not logged."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def readiness(health: WorkerHealth) -> dict[str, Any]:
    """Return the body of `/readyz`."""
    problems = [problem for problem in (health.redis_error, health.database_error) if problem]
    if not health.running:
        problems.append("the worker does not run")
    warnings = []
    if health.dead_letters:
        warnings.append(f"{health.dead_letters} dead letters: entries that the ledger does not have")
    if health.entries_unreadable:
        warnings.append(f"{health.entries_unreadable} entries could not be read and are stored raw")
    if health.sweep_error:
        warnings.append(health.sweep_error)
    return {"ready": health.ready, "problems": problems, "warnings": warnings, **msgspec.structs.asdict(health)}


def metrics(health: WorkerHealth, lag: dict[int, int]) -> Iterator[str]:
    """Return the body of `/metrics`, in Prometheus' text format.

    Args:
        health: the worker's.
        lag: entries that the ledger does not have yet, by partition.
    """
    yield from _metric(
        "ducto_ledger_lag_entries",
        "gauge",
        "Journal entries that the ledger does not have yet, by partition.",
        {f'{{partition="{partition}"}}': entries for partition, entries in sorted(lag.items())},
    )
    for name, kind, what, value in (
        ("ducto_worker_ready", "gauge", "1 while it runs and Redis and the database answer.", int(health.ready)),
        ("ducto_worker_partitions", "gauge", "Partitions that this worker owns.", len(health.partitions)),
        ("ducto_ledger_dead_letters", "gauge", "Journal entries that were given up.", health.dead_letters),
        ("ducto_worker_entries_written_total", "counter", "Entries written to the ledger.", health.entries_written),
        ("ducto_worker_entries_unreadable_total", "counter", "Entries stored raw.", health.entries_unreadable),
        ("ducto_worker_leases_expired_total", "counter", "Leases expired by sweeps.", health.leases_expired),
        (
            "ducto_worker_last_entry_timestamp_seconds",
            "gauge",
            "When the last entry that was committed had been journalled.",
            None if health.last_commit_ms is None else health.last_commit_ms / 1000,
        ),
    ):
        if value is not None:
            yield from _metric(name, kind, what, {"": value})


def _metric(name: str, kind: str, what: str, values: dict[str, int | float]) -> Iterator[str]:
    yield f"# HELP {name} {what}\n# TYPE {name} {kind}\n"
    for labels, value in values.items():
        yield f"{name}{labels} {value}\n"


def _lag(worker: LedgerWorker) -> dict[int, int]:
    try:
        return worker.consumer.lag()
    except RedisError:
        return {}  # `ducto_worker_ready` is 0 then
