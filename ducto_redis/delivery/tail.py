"""The tail of events, read live without a consumer group that would keep entries in the journal."""

from collections.abc import Iterator
from datetime import datetime

from ducto_redis.delivery.streams import EventStreams, listen
from ducto_redis.engine.entry import UnreadableEntryError
from ducto_redis.engine.ids import entry_ms
from ducto_redis.events.types import CreditEvent
from ducto_redis.store.contract import CreditStore, journalled

_LISTENS_SECONDS = 60.0
_AT_A_TIME = 500
_LAST_NUMBER = 2**64 - 1


class EventTail:
    """A reader of events as they come.

    It reads the entries that are still in the journal; the ledger alone has those that all consumers are done with.

    Args:
        store: the store of the events.
        since: the first time to read; by default, now.

    Attributes:
        unreadable: the number of entries that could not be read.
    """

    def __init__(self, store: CreditStore, *, since: datetime | None = None) -> None:
        self._store = journalled(store, "the tail of events")
        self._streams = EventStreams(self._store.namespace)
        self._client = self._store.redis()
        self.unreadable = 0
        self._positions = dict.fromkeys(range(self._streams.partitions), self._first_id(since))

    def read_all(self) -> Iterator[CreditEvent]:
        """Yield the events since the last call, those of a partition in order. Raises redis-py's errors.

        Events that come meanwhile may wait for the next call.
        """
        until = self._now_ms()
        reading = list(self._positions)
        while reading:
            events, reading = self._read_pages(reading, until)
            events.sort(key=lambda event: event.time)  # entries of one stream stay in their order
            yield from events

    def _read_pages(self, numbers: list[int], until_ms: int) -> tuple[list[CreditEvent], list[int]]:
        """Return the events of a page of each stream, and the streams that may have more before `until_ms`."""
        pipeline = self._client.pipeline(transaction=False)
        for number in numbers:
            pipeline.xread({self._streams.journal(number): self._positions[number]}, count=_AT_A_TIME)
        events: list[CreditEvent] = []
        unfinished = []
        for number, reply in zip(numbers, pipeline.execute(), strict=True):
            entries = reply[0][1] if reply else ()
            for entry_id, fields in entries:
                self._positions[number] = entry_id.decode()
                try:
                    events.extend(self._streams.read(number, entry_id.decode(), next(iter(fields.values()))))
                except UnreadableEntryError:
                    self.unreadable += 1
            if len(entries) == _AT_A_TIME and entry_ms(self._positions[number]) < until_ms:
                unfinished.append(number)
        return events, unfinished

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def listen(self) -> float:
        """Make managers send refusals, and return the seconds until this must be called again."""
        listen(self._store, _LISTENS_SECONDS)
        return _LISTENS_SECONDS / 3

    def _first_id(self, since: datetime | None) -> str:
        milliseconds = self._now_ms() if since is None else int(since.timestamp() * 1000)
        return f"{max(0, milliseconds - 1)}-{_LAST_NUMBER}"
