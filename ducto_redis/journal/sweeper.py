"""Applies what has fallen due on accounts that nobody touches."""

import logging
from collections.abc import Collection
from typing import Protocol

from ducto_redis.errors import StoreUnavailableError
from ducto_redis.journal.group import JournalStore
from ducto_redis.results import SweepResult
from ducto_redis.run_sync import run_sync

logger = logging.getLogger(__name__)


class WorkerStore(JournalStore, Protocol):
    """The part of a store that the ledger's worker needs."""

    def blocking_twin(self) -> "WorkerStore": ...
    async def sweep_partition(self, partition: int, *, limit: int = 100) -> SweepResult: ...
    async def close(self) -> None: ...


class Sweeper:
    """Sweeps partitions.

    Attributes:
        leases_expired: how many it has expired.
    """

    def __init__(self, store: WorkerStore) -> None:
        self._store = store.blocking_twin()
        self._is_ours = self._store is not store
        self.leases_expired = 0
        self._errors: dict[int, str] = {}

    @property
    def error(self) -> str | None:
        """Why something that has fallen due could not be applied at the last sweep, or None."""
        return next(iter(self._errors.values()), None)

    def sweep(self, partitions: Collection[int]) -> None:
        """Visit the accounts of the partitions on which something has fallen due, a bounded number of each.

        A partition that cannot be swept is logged, and keeps neither the others nor the ledger waiting.

        Raises:
            StoreUnavailableError: if the engine cannot be reached.
        """
        errors = {}
        for partition in partitions:
            try:
                self.leases_expired += run_sync(self._store.sweep_partition(partition)).leases_expired
            except StoreUnavailableError:
                raise
            except Exception as error:
                errors[partition] = f"partition {partition} cannot be swept: {type(error).__name__}: {error}"
                if errors[partition] != self._errors.get(partition):
                    logger.exception("what has fallen due in partition %d cannot be applied", partition)
        self._errors = errors

    def close(self) -> None:
        """Let go of its connection."""
        if self._is_ours:
            run_sync(self._store.close())
