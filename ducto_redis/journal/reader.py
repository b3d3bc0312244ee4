"""One owned partition, as its worker reads it."""

import random
import time
from collections import deque

from ducto_redis.journal.group import FIRST, NEW, Read

_LONGEST_BACKOFF_SECONDS = 10.0
_SURE_FOR_SECONDS = 5.0


class PartitionReader:
    """The entries of a partition that were read and are not done yet, and the place to read on from.

    Attributes:
        entries: read, in order, and not done yet.
        attempts: how often the first of them failed.
        one_by_one: how many of them are handed over one at a time, because their batch failed.
    """

    def __init__(self, partition: int, token: str, backoff_seconds: float) -> None:
        self.partition = partition
        self.token = token
        self.entries: deque[tuple[str, bytes]] = deque()
        self.attempts = 0
        self.one_by_one = 0
        self._backoff_seconds = backoff_seconds
        self._delays = 0
        self._not_before = 0.0
        # What an owner before has left comes first: pending entries, from the first id on.
        self.position = FIRST
        self._idle_id: str | None = None
        self._sure_until = 0.0

    def begin_again(self) -> None:
        """Read the pending entries again: the fate of the last command is unknown."""
        self.entries.clear()
        self.one_by_one = self.attempts = 0
        self.position, self._idle_id = FIRST, None

    @property
    def idle_id(self) -> str | None:
        """The journal's last id when there was nothing more to read; None where reading is the way to know."""
        # Not believed for long: a server that was rolled back counts on from a lower id.
        return self._idle_id if time.monotonic() < self._sure_until else None

    def take(self, read: Read) -> None:
        """Take in what was read."""
        if read.status == "recreated":
            self.begin_again()
            self.position = NEW
        elif read.status == "idle":
            if self.position == NEW:
                self._idle_id, self._sure_until = read.last_id, time.monotonic() + _SURE_FOR_SECONDS
            self.position = NEW
        else:
            self.entries.extend(read.entries)
            self._idle_id = None
            if self.position != NEW:
                self.position = read.entries[-1][0]

    def succeeded(self, count: int) -> None:
        """Note that the first entries are done."""
        for _ in range(count):
            self.entries.popleft()
        self.one_by_one = max(0, self.one_by_one - count)
        self.attempts = self._delays = 0

    def hand_over_one_by_one(self) -> None:
        """Hand what was read over again, one entry at a time: the batch failed, and one of them is at fault."""
        self.attempts, self.one_by_one = 0, len(self.entries)

    def postpone(self) -> float:
        """Try the first entries again later. Returns in how many seconds."""
        longest = min(self._backoff_seconds * 2.0**self._delays, _LONGEST_BACKOFF_SECONDS)
        self._delays = min(self._delays + 1, 30)
        delay = longest * random.uniform(0.5, 1.0)  # so that workers do not come back all at once
        self._not_before = time.monotonic() + delay
        return delay

    @property
    def ready_in_seconds(self) -> float:
        """The time at which the first entries may be handed over."""
        return max(0.0, self._not_before - time.monotonic())
