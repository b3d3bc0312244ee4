"""A manager's way to the SQL ledger: which one it is, the worker that fills it in this process, and waiting for it."""

import time
from typing import TYPE_CHECKING

from ducto_redis.errors import ConfigError, LedgerError
from ducto_redis.store.contract import CreditStore

if TYPE_CHECKING:
    from ducto_redis.journal import LedgerWorker
    from ducto_redis.ledger import Ledger

_POLL_SECONDS = 0.01


class LedgerAccess:
    """The ledger of a manager's store. Blocking.

    Args:
        store: whose journal it holds. A store that is local to this process gets a worker here, in a thread.
        ledger: the ledger, or None.
    """

    def __init__(self, store: CreditStore, ledger: "Ledger | None") -> None:
        self._store = store
        self._ledger = ledger
        self._worker: LedgerWorker | None = None

    def start(self) -> None:
        """Start the worker of a local store; others have theirs elsewhere."""
        if self._ledger is None or self._worker is not None or not self._store.local:
            return
        from ducto_redis.journal import LedgerWorker

        self._ledger.migrate()
        self._worker = LedgerWorker(self._store.blocking_twin(), self._ledger)
        self._worker.start_thread()

    def stop(self) -> None:
        """Stop the worker once it has written what was journalled, and close the ledger."""
        if self._worker is not None:
            self._worker.drain_and_stop()
            self._worker = None
        if self._ledger is not None:
            self._ledger.close()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until the ledger holds everything that is in the journal now.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer.
        """
        ledger = self._ledger
        if ledger is None:
            raise ConfigError("there is no ledger: give the manager a ledger_url")
        deadline = time.monotonic() + timeout_seconds
        namespace = self._store.namespace.name
        ends = self._store.journal_ends()
        for partition, end in ends.items():
            while (position := ledger.position(namespace, partition)) is None or _order(position.entry_id) < end:
                if time.monotonic() > deadline:
                    raise LedgerError(
                        f"the ledger has not read partition {partition} up to {end[0]}-{end[1]} within"
                        f" {timeout_seconds} seconds: is `ducto worker` running?"
                    )
                time.sleep(_POLL_SECONDS)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


def ledger_for(redis_url: str, ledger_url: str | None) -> "Ledger | None":
    """The ledger at `ledger_url`; without one, a local store's own, in memory or in its folder.

    Raises:
        ConfigError: if the URL is none, or one was given and the extra `ledger` is not installed.
    """
    scheme, _, path = redis_url.partition("://")
    local = {"memory": "sqlite://", "embedded": f"sqlite:///{path}/ledger.db"}
    url = ledger_url or local.get(scheme)
    if url is None:
        return None
    try:
        from ducto_redis.ledger import Ledger
    except ImportError:
        if ledger_url is None:
            return None
        raise ConfigError("a ledger needs SQLAlchemy and Alembic: pip install 'ducto-redis[ledger]'") from None
    return Ledger.from_url(url)
