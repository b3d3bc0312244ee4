"""The streams that event workers read: each partition's journal and its signals.

Journals have the numbers of their partitions, the signals follow. So one consumer reads both, with the same claims,
takeovers and dead letters.
"""

from collections.abc import Iterator
from typing import Any

from ducto_redis.engine.entry import UnreadableEntryError, decode_entry
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.scripts import Scripts, run_script
from ducto_redis.errors import ConfigError
from ducto_redis.events.from_entry import entry_events
from ducto_redis.events.types import CreditEvent
from ducto_redis.journal.group import JournalStore


class EventStreams(Namespace):
    """A namespace with its signals as further partitions, for consumers only: accounts do not live here."""

    def __init__(self, namespace: Namespace) -> None:
        self.journals = namespace.partitions
        super().__init__(namespace.name, namespace.partitions)
        self.partitions = 2 * namespace.partitions

    def key(self, partition: int, rest: bytes) -> bytes:
        """Return the key of a name in the partition of a stream."""
        return super().key(partition % self.journals, rest)

    def journal(self, partition: int) -> bytes:
        """Return the key of a stream by its number."""
        return super().signals(partition) if self.is_signals(partition) else super().journal(partition)

    def claim(self, partition: int, group: str) -> bytes:
        """Return the key of a consumer group's claim on a stream."""
        return self.signal_claim(partition, group) if self.is_signals(partition) else super().claim(partition, group)

    def dead_letters(self, partition: int, group: str) -> bytes:
        """Return the key of a consumer group's dead letters of a stream."""
        if self.is_signals(partition):
            return self.signal_letters(partition, group)
        return super().dead_letters(partition, group)

    def is_signals(self, partition: int) -> bool:
        """Return True for a stream of signals."""
        return partition >= self.journals

    def read(self, partition: int, entry_id: str, text: bytes) -> Iterator[CreditEvent]:
        """Yield the events of an entry of a stream. Raises UnreadableEntryError."""
        if not self.is_signals(partition):
            yield from entry_events(decode_entry(partition, entry_id, text))
        elif text:  # empty if the signal was trimmed before it was read
            try:
                yield CreditEvent.from_json(text)
            except ConfigError as error:
                raise UnreadableEntryError(f"a signal cannot be read: {error}") from None


class EventStore:
    """The part of a store that a consumer of events needs."""

    def __init__(self, store: JournalStore) -> None:
        self.streams = EventStreams(store.namespace)
        self.namespace: Namespace = self.streams
        self._store = store

    @property
    def scripts(self) -> Scripts:
        """The store's scripts."""
        return self._store.scripts

    def redis(self) -> Any:
        """Return the store's client."""
        return self._store.redis()


def listen(store: JournalStore, seconds: float) -> None:
    """Make every manager send refusals for some seconds."""
    client, script = store.redis(), store.scripts["listen"]
    for partition in range(store.namespace.partitions):
        run_script(client, script, (store.namespace.listening(partition),), (int(seconds * 1000),))
