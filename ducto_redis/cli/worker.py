"""`ducto worker`: copies the journal to the SQL ledger."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

import typer

from ducto_redis.cli.environment import namespace, open_ledger, open_manager, open_store
from ducto_redis.cli.output import example

logger = logging.getLogger("ducto_redis.worker")


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="worker", epilog=example("ducto worker --migrate --health-host 0.0.0.0"))(_worker)


def _worker(
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the ledger to the newest schema first.")] = False,
    health_host: Annotated[str, typer.Option(help="Where /healthz, /readyz and /metrics are served.")] = "127.0.0.1",
    health_port: Annotated[int, typer.Option(min=0, max=65535, help="Their port; 0 takes a free one.")] = 8787,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Entries per SQL transaction, at the most.")] = 1000,
    claim_seconds: Annotated[
        float, typer.Option(min=0.1, help="Within which the partitions of a worker that died are taken over.")
    ] = 10.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log warnings and errors only.")] = False,
) -> None:
    """Copy the journal to the SQL ledger, until SIGTERM or Ctrl-C.

    It also expires leases whose time is over.

    Start as many as you like: they divide the partitions, and take over what a dead one left. Redis and the database
    must answer when it starts; later it waits for them, and loses nothing.
    """
    from ducto_redis.cli.health import HealthServer
    from ducto_redis.journal import LedgerWorker

    with open_ledger() as ledger:
        if migrate:
            ledger.migrate()
        ledger.is_empty(namespace())  # says so where it was not migrated, or is away
        with open_manager(create=True):
            pass  # the namespace exists now, and Redis has not lost it
        log_to_stderr(logging.WARNING if quiet else logging.INFO)
        with open_store() as store:
            worker = LedgerWorker(store, ledger, batch=batch, claim_seconds=claim_seconds)
            with HealthServer(worker, health_host, health_port) as health, stopped_by_signals(worker):
                logger.info("worker %s of namespace %r: %s/readyz", worker.consumer.worker_id, namespace(), health.url)
                if letters := worker.consumer.count_dead_letters():
                    logger.error("there are %d dead letters: entries that the ledger does not have", letters)
                worker.run()
    logger.info("stopped")


class Stoppable(Protocol):
    """A worker that can be told to stop."""

    def stop(self) -> None: ...


@contextmanager
def stopped_by_signals(worker: Stoppable) -> Iterator[None]:
    """Let the worker finish its batch at the first SIGTERM or SIGINT; the second ends the process."""

    def stop(number: int, _: object) -> None:
        for name in before:
            signal.signal(name, signal.SIG_DFL)
        # In a thread, because the one that was interrupted may hold the lock that `stop` takes.
        threading.Thread(target=worker.stop, name="stop").start()

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def log_to_stderr(level: int) -> None:
    """Write what is logged to standard error, from that level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger("ducto_redis")
    root.addHandler(handler)
    root.setLevel(level)
