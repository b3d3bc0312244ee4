"""Streams, cut into their events wherever the bytes were split, with each event's bytes as they were sent."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from ducto_redis.middleware.sse import ServerSentEvent


class Piece(NamedTuple):
    """A whole event as it was sent, and what is in it: None where that is nothing, or could not be read."""

    sent: bytes
    event: ServerSentEvent | None


class Pieces(ABC):
    """Cuts a stream into pieces. All pieces together are the stream, byte by byte.

    Args:
        max_event_bytes: the size from which an event is passed on in parts and not read, so that a stream without
            ends can't fill the memory. `skipped_bytes` counts what was not read.
    """

    _context = 0
    """Bytes at the end of what has been searched that the search for an event's end must see again."""

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.skipped_bytes = 0
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False

    @property
    def between_events(self) -> bool:
        """Whether all that came so far were whole events."""
        return not self._buffer and not self._skipping

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Take the next bytes; give the pieces that they complete."""
        self._buffer += chunk
        while self._buffer and (end := self._end_of_event()):
            yield self._cut(end)
        if len(self._buffer) > self._max_event_bytes:
            self._skipping = True
            yield self._skip(len(self._buffer) - self._context)

    def finish(self) -> Iterator[Piece]:
        """The stream is over: give what nothing completed, if there is any."""
        if self._buffer:
            yield self._cut(len(self._buffer))

    @abstractmethod
    def _end_of_event(self) -> int:
        """Return where the first event of the buffer ends, 0 where its end has not come."""

    @abstractmethod
    def _read(self, sent: bytes) -> ServerSentEvent | None:
        """Return what is in the bytes of one event."""

    def _cut(self, end: int) -> Piece:
        if self._skipping or end > self._max_event_bytes:
            self._skipping = False
            return self._skip(end)
        sent = self._take(end)
        return Piece(sent, self._read(sent))

    def _skip(self, size: int) -> Piece:
        self.skipped_bytes += size
        return Piece(self._take(size), None)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = max(0, self._searched - size)
        return taken
