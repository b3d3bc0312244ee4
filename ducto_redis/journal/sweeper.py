"""Applies what has fallen due on accounts that nobody touches."""

from collections.abc import Collection
from typing import Protocol

from ducto_redis.driving import drive
from ducto_redis.journal.group import JournalStore
from ducto_redis.results import SweepResult


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

    def sweep(self, partitions: Collection[int]) -> None:
        """Visit the accounts of the partitions on which something has fallen due, a bounded number of each."""
        for partition in partitions:
            self.leases_expired += drive(self._store.sweep_partition(partition)).leases_expired

    def close(self) -> None:
        """Let go of its connection."""
        if self._is_ours:
            drive(self._store.close())
