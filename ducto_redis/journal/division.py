"""The division of partitions: the live workers of a group share them, each through a fenced claim."""

import logging
import time
from zlib import crc32

from ducto_redis.journal.group import Group

logger = logging.getLogger(__name__)

# Of claim_seconds: a claim lasts so long, and is renewed so often, that a dead worker's partitions are taken over
# within claim_seconds, and a renewal may come late without losing one.
_LASTS = 0.75
_RENEWED = 0.2
_RENEWED_AT_LEAST_SECONDS = 1.0


class Division:
    """A worker's share of the partitions.

    Args:
        group: whose partitions they are.
        worker_id: another one for every worker.
        claim_seconds: within which the partitions of a worker that died are taken over.

    Attributes:
        owned: the claims' tokens by partition.
    """

    def __init__(self, group: Group, worker_id: str, claim_seconds: float) -> None:
        self._group = group
        self._worker_id = worker_id
        self._claim_ms = max(1, int(claim_seconds * _LASTS * 1000))
        self._every_seconds = min(claim_seconds * _RENEWED, _RENEWED_AT_LEAST_SECONDS)
        self._next = 0.0
        self.owned: dict[int, str] = {}

    @property
    def due_in_seconds(self) -> float:
        """The time at which the claims must be renewed."""
        return max(0.0, self._next - time.monotonic())

    def renew(self) -> None:
        """Renew the claims, give back what others are to have, and claim what is free and ours to have."""
        before = set(self.owned)
        workers = self._group.join(self._worker_id, self._claim_ms)
        share = share_of(workers.index(self._worker_id), len(workers), len(self._group.partitions))
        self.owned = self._group.claim(self._worker_id, self.owned, self._claim_ms)
        surplus = sorted(self.owned)[share:]
        if surplus:
            self._group.release({partition: self.owned[partition] for partition in surplus})
            self.owned = {partition: token for partition, token in self.owned.items() if partition not in surplus}
        self._claim_free(share - len(self.owned))
        if set(self.owned) != before:
            logger.info("worker %s owns partitions %s", self._worker_id, sorted(self.owned))
        self._next = time.monotonic() + self._every_seconds

    def expire(self) -> None:
        """Renew the claims at the next occasion, whenever that would have been due."""
        self._next = 0.0

    def lose(self, partition: int) -> None:
        """Another worker owns the partition now."""
        if self.owned.pop(partition, None):
            logger.warning("worker %s lost partition %d to another worker", self._worker_id, partition)

    def leave(self) -> None:
        """Give everything back, so that others take it over at once."""
        owned, self.owned, self._next = self.owned, {}, 0.0
        self._group.release(owned)
        self._group.join(self._worker_id, 0)

    def _claim_free(self, wanted: int) -> None:
        others = [partition for partition in self._group.partitions if partition not in self.owned]
        # Workers that start together begin at different places, and so rarely want the same partition.
        start = crc32(self._worker_id.encode()) % len(others) if others else 0
        others = others[start:] + others[:start]
        while wanted > 0 and others:
            some, others = others[:wanted], others[wanted:]
            claimed = self._group.claim(self._worker_id, dict.fromkeys(some, ""), self._claim_ms)
            wanted -= len(claimed)
            self.owned |= claimed


def share_of(rank: int, workers: int, partitions: int) -> int:
    """Return the number of partitions for the worker of that rank, from 0: the shares differ by one at the most.

    >>> [share_of(rank, 5, 16) for rank in range(5)]
    [4, 3, 3, 3, 3]
    """
    return partitions // workers + (rank < partitions % workers)
