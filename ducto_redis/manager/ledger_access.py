"""A manager's access to the SQL ledger: its URL, the worker that fills it in this process, and waits for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ducto_redis.engine.ids import TransactionId, split_entry_id
from ducto_redis.errors import ConfigError, LedgerError, StoreUnavailableError
from ducto_redis.store.contract import CreditStore, journalled

if TYPE_CHECKING:
    from ducto_redis.journal import LedgerWorker
    from ducto_redis.ledger import Ledger

LEDGER_GROUP = "ledger"
_POLL_SECONDS = 0.01
_DRAIN_SECONDS = 5.0
# A process that was killed must not lock the next one out for long.
_LOCAL_CLAIM_SECONDS = 2.0


class LedgerAccess:
    """The ledger of a manager's store. Blocking.

    Args:
        store: the store of the journal. A store that is local to this process gets a worker here, in a thread.
        ledger: the ledger, or None.

    Raises:
        ConfigError: if there is a ledger, and the store has no journal to fill it from.
    """

    def __init__(self, store: CreditStore, ledger: "Ledger | None") -> None:
        self._store = store
        self._ledger = ledger
        self._journal = None if ledger is None else journalled(store, "the ledger")
        self._worker: LedgerWorker | None = None
        self._prepared = False
        self._stopped = False
        self._lock = Lock()  # the first use opens a manager, and there may be several at once

    def prepare(self) -> None:
        """Create the tables of a local store's ledger; others are migrated by `ducto ledger migrate`."""
        if self._ledger is None or not self._store.local:
            return
        with self._lock:
            if not self._prepared:
                self._ledger.migrate()
                self._prepared = True

    def start(self) -> None:
        """Start the worker of a local store; others have theirs elsewhere."""
        if self._ledger is None or not self._store.local:
            return
        from ducto_redis.journal import LedgerWorker

        with self._lock:
            if self._worker is None and not self._stopped and self._journal is not None:
                self._worker = LedgerWorker(self._journal, self._ledger, claim_seconds=_LOCAL_CLAIM_SECONDS)
                self._worker.start_thread()

    def stop(self) -> None:
        """Stop the worker once it has written the journal to the ledger, and close the ledger.

        Entries that it could not write in time stay in the journal, if that outlives the process.
        """
        with self._lock:
            self._stopped = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.drain_and_stop(_DRAIN_SECONDS)
        if self._ledger is not None:
            self._ledger.close()

    @property
    def exists(self) -> bool:
        """True if there is a ledger."""
        return self._ledger is not None

    def has_worker(self) -> bool:
        """Return True if some worker, here or elsewhere, writes the journal to the ledger now."""
        with _engine_errors():
            return self._journal is not None and self._journal.live_workers(LEDGER_GROUP) > 0

    def wait_for_transaction(self, transaction_id: str, timeout_seconds: float) -> None:
        """Wait until the ledger holds a transaction. Raises LedgerError if it takes longer."""
        place = TransactionId.read(transaction_id)
        self._wait_until(place.partition, (place.entry_ms, place.entry_seq), time.monotonic() + timeout_seconds)

    def wait(self, timeout_seconds: float) -> None:
        """Wait until the ledger holds everything that is in the journal now.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer.
        """
        if self._journal is None:
            raise ConfigError("there is no ledger: give the manager a ledger_url")
        deadline = time.monotonic() + timeout_seconds
        with _engine_errors():
            ends = self._journal.journal_ends()
        for partition, end in ends.items():
            self._wait_until(partition, end, deadline)

    def _wait_until(self, partition: int, end: tuple[int, int], deadline: float) -> None:
        ledger, namespace = self._ledger, self._store.namespace.name
        assert ledger is not None
        while (position := ledger.position(namespace, partition)) is None or split_entry_id(position.entry_id) < end:
            if time.monotonic() > deadline:
                raise LedgerError(
                    f"the ledger has not read partition {partition} up to {end[0]}-{end[1]} in time: is `ducto worker`"
                    " running?"
                )
            time.sleep(_POLL_SECONDS)


@contextmanager
def _engine_errors() -> Iterator[None]:
    # The store's synchronous client raises its own errors.
    try:
        yield
    except RedisError as error:
        raise StoreUnavailableError(f"the engine could not be asked: {error}") from error


def ledger_for(redis_url: str, ledger_url: str | None) -> "Ledger | None":
    """Return the ledger at `ledger_url`; without one, a local store's own, in memory or in its folder.

    Raises:
        ConfigError: if the URL is not valid, or one was given and the extra `ledger` is not installed.
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
