"""The ledger's worker: copies the journal to SQL, and sweeps."""

import logging
import threading
from collections.abc import Collection, Sequence

from msgspec import Struct
from redis.exceptions import RedisError

from ducto_redis.engine.ids import entry_ms
from ducto_redis.errors import LedgerError, LedgerUnavailableError, RetryLaterError
from ducto_redis.journal.consumer import JournalConsumer
from ducto_redis.journal.group import LEDGER_GROUP
from ducto_redis.journal.sweeper import Sweeper, WorkerStore
from ducto_redis.ledger import Ledger

logger = logging.getLogger(__name__)


class WorkerHealth(Struct, frozen=True, kw_only=True):
    """The health of a worker.

    Attributes:
        worker_id: which one.
        running: whether it runs.
        partitions: those that it owns.
        lag: journal entries of all partitions that the ledger does not have yet; None where Redis cannot say.
        dead_letters: entries that were given up; None where Redis cannot say.
        entries_written: to the ledger, by this worker.
        entries_unreadable: stored raw, by this worker.
        leases_expired: by this worker's sweeps.
        last_commit_ms: the journal time of the last entry that it wrote, milliseconds; None where it wrote nothing.
        redis_error, database_error: what is wrong now, or None.
        sweep_error: why something that has fallen due cannot be applied now, or None.
    """

    worker_id: str
    running: bool
    partitions: tuple[int, ...]
    lag: int | None
    dead_letters: int | None
    entries_written: int
    entries_unreadable: int
    leases_expired: int
    last_commit_ms: int | None
    redis_error: str | None
    database_error: str | None
    sweep_error: str | None = None

    @property
    def ready(self) -> bool:
        """True where it does its work: it runs, and both Redis and the database answer."""
        return self.running and self.redis_error is None and self.database_error is None


class _LedgerConsumer(JournalConsumer):
    _own_groups = (LEDGER_GROUP,)


class LedgerWorker:
    """Writes a namespace's journal to the ledger, and expires what has fallen due, until it is stopped.

    Several may run, in as many processes: they divide the partitions. A database that is away is tried again for ever,
    and nothing is lost; an entry is acknowledged only after its commit.

    Args:
        store: whose journal it is.
        ledger: where it goes; it must have been migrated.
        worker_id, batch, claim_seconds, backoff_seconds: as for `JournalConsumer`.
        sweeps: whether it also expires what has fallen due, on the partitions that it owns.
    """

    def __init__(
        self,
        store: WorkerStore,
        ledger: Ledger,
        *,
        worker_id: str | None = None,
        batch: int = 1000,
        claim_seconds: float = 10.0,
        backoff_seconds: float = 0.1,
        sweeps: bool = True,
    ) -> None:
        self._ledger = ledger
        self._namespace = store.namespace.name
        self._sweeper = Sweeper(store)
        self.consumer: JournalConsumer = _LedgerConsumer(
            store,
            LEDGER_GROUP,
            worker_id=worker_id,
            batch=batch,
            claim_seconds=claim_seconds,
            backoff_seconds=backoff_seconds,
            batch_handler=self._write,
            housekeeping=self._sweep if sweeps else None,
        )
        self._thread: threading.Thread | None = None
        self._running = False
        self._database_error: str | None = None
        self._written = 0
        self._unreadable = 0
        self._last_commit_ms: int | None = None

    def run(self) -> None:
        """Work until `stop` is called; the batch that is being written is finished."""
        self._running = True
        try:
            self.consumer.run()
        finally:
            self._running = False
            self._sweeper.close()

    def run_until_idle(self) -> None:
        """Work until the ledger has all that the journal holds."""
        try:
            self.consumer.run_until_idle()
        finally:
            self._sweeper.close()

    def stop(self) -> None:
        """Let `run` return, from another thread; a signal handler starts one for it."""
        self.consumer.stop()

    def start_thread(self) -> None:
        """Run in a thread of this process, as `memory://` and `embedded://` do."""
        self._thread = threading.Thread(target=self._run_thread, name=f"ledger worker {self._namespace}", daemon=True)
        self._thread.start()

    def drain_and_stop(self, timeout_seconds: float = 10.0) -> bool:
        """Let the thread write what is in the journal now, for at most `timeout_seconds`, and end it.

        Returns:
            Whether all was written. What was not stays in the journal, for the next worker.
        """
        self.consumer.drain()
        drained = self.join(timeout_seconds)
        self.stop()
        self.join()
        return drained

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended, at most `timeout` seconds. Returns whether it has."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def health(self) -> WorkerHealth:
        """Return the worker's health. It asks Redis and the database; it may be called from any thread."""
        lag: int | None
        dead_letters: int | None
        redis_error = self.consumer.redis_error
        try:
            lag, dead_letters = sum(self.consumer.lag().values()), self.consumer.count_dead_letters()
        except RedisError as error:
            lag = dead_letters = None
            redis_error = redis_error or f"{type(error).__name__}: {error}"
        database_error = self._database_error
        try:
            self._ledger.is_empty(self._namespace)
        except LedgerError as error:
            database_error = str(error)
        return WorkerHealth(
            worker_id=self.consumer.worker_id,
            running=self._running,
            partitions=self.consumer.partitions,
            lag=lag,
            dead_letters=dead_letters,
            entries_written=self._written,
            entries_unreadable=self._unreadable,
            leases_expired=self._sweeper.leases_expired,
            last_commit_ms=self._last_commit_ms,
            redis_error=redis_error,
            database_error=database_error,
            sweep_error=self._sweeper.error,
        )

    def _run_thread(self) -> None:
        try:
            self.run()
        except Exception:
            logger.exception("the ledger worker of namespace %r ended", self._namespace)
            raise

    def _write(self, partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        try:
            report = self._ledger.write(self._namespace, partition, entries)
        except LedgerUnavailableError as error:
            self._database_error = str(error)
            raise RetryLaterError(str(error)) from error
        self._database_error = None
        self._written += report.written
        self._unreadable += report.unreadable
        self._last_commit_ms = entry_ms(entries[-1][0])
        if report.unreadable:
            logger.error("%d entries of partition %d cannot be read, stored raw", report.unreadable, partition)
        if report.marked:
            logger.error("accounts whose history is not whole, see `ducto ledger verify`: %s", ", ".join(report.marked))

    def _sweep(self, partitions: Collection[int]) -> None:
        self._sweeper.sweep(partitions)
