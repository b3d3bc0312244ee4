"""Streams, cut into their events wherever the bytes were split, with each event's bytes as they were sent.

An AWS event stream (`application/vnd.amazon.eventstream`), as Bedrock sends it, consists of binary frames: the length
of the frame, the length of its headers, and a CRC of these two; the headers; the payload; a CRC of all before it.
Lengths and CRCs have four bytes, big-endian.
"""

import re
from abc import ABC, abstractmethod
from binascii import crc32
from collections.abc import Iterator
from typing import NamedTuple

from ducto_redis.middleware.sse import ServerSentEvent, ServerSentEventParser

# The end of a line, then that of an empty one. A CRLF is never taken for two ends.
_EMPTY_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_OUTSIDE_STRINGS = re.compile(rb'["\[\]{}]')
_INSIDE_STRINGS = re.compile(rb'["\\]')

_PRELUDE = 12
_CRC = 4
# Sizes of the values of AWS headers by type. Types 6 and 7, bytes and text, are preceded by their length.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_TEXT = 7
_NAMES = (b":event-type", b":exception-type", b":error-code")


class Piece(NamedTuple):
    """A whole event as it was sent, and what is in it: None where that is nothing, or could not be read."""

    sent: bytes
    event: ServerSentEvent | None


class Framer(ABC):
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
        """True where all that came so far were whole events."""
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
        """End the stream: give the rest that nothing completed, if there is any."""
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


class SseFramer(Framer):
    """Cuts server-sent events. The empty line after an event, and comments before it, belong to its piece."""

    _context = 3

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        super().__init__(max_event_bytes)
        self._parser = ServerSentEventParser(max_event_bytes)

    def _end_of_event(self) -> int:
        found = _EMPTY_LINE.search(self._buffer, self._searched)
        if found is None:
            self._searched = max(0, len(self._buffer) - self._context)
            return 0
        end = found.end()
        if end == len(self._buffer) and found[0].endswith(b"\r"):
            return 0  # the next byte may be the LF of this end of a line
        self._searched = end
        return end

    def _read(self, sent: bytes) -> ServerSentEvent | None:
        events = self._parser.feed(sent) or self._parser.finish()
        return events[0] if events else None


class JsonLinesFramer(Framer):
    """Newline-delimited JSON, as Ollama streams: each line is an event."""

    def _end_of_event(self) -> int:
        end = self._buffer.find(b"\n", self._searched) + 1
        self._searched = end or len(self._buffer)
        return end

    def _read(self, sent: bytes) -> ServerSentEvent | None:
        line = sent.strip()
        return ServerSentEvent(b"", line) if line else None


class JsonArrayFramer(Framer):
    """A JSON array of objects, as Gemini streams without `alt=sse`: each of its elements is an event.

    The separators before an element belong to its piece.
    """

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        super().__init__(max_event_bytes)
        self._depth = 0
        self._in_string = False

    def _end_of_event(self) -> int:
        while True:
            found = (_INSIDE_STRINGS if self._in_string else _OUTSIDE_STRINGS).search(self._buffer, self._searched)
            if found is None:
                self._searched = max(self._searched, len(self._buffer))
                return 0
            mark = found[0]
            # What follows a backslash ends no string; it may not have come yet.
            self._searched = found.end() + (mark == b"\\")
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark in b"[{":
                self._depth += 1
            elif mark in b"]}":
                self._depth -= 1
                if self._depth <= 1:
                    return found.end()

    def _read(self, sent: bytes) -> ServerSentEvent | None:
        start = sent.find(b"{")
        return ServerSentEvent(b"", sent[start:].rstrip()) if start >= 0 else None


class AwsEventStreamFramer(Framer):
    """Cuts the frames out of an event stream. An event's name is its `:event-type`, or that of its exception."""

    def __init__(self, max_event_bytes: int = 24 * 2**20) -> None:
        super().__init__(max_event_bytes)
        self._lost = False

    def _end_of_event(self) -> int:
        buffer = self._buffer
        if self._lost:
            return len(buffer)
        if len(buffer) < _PRELUDE:
            return 0
        size = _number(buffer, 0)
        # Without a valid length nobody knows where the next frame begins: the rest is passed on, and not read.
        self._lost = (
            crc32(buffer[:8]) != _number(buffer, 8)
            or not _PRELUDE + _number(buffer, 4) + _CRC <= size <= self._max_event_bytes
        )
        if self._lost:
            return len(buffer)
        return size if len(buffer) >= size else 0

    def _read(self, sent: bytes) -> ServerSentEvent | None:
        is_frame = not self._lost and len(sent) >= _PRELUDE + _CRC and len(sent) == _number(sent, 0)
        if not is_frame or crc32(sent[:-_CRC]) != _number(sent, len(sent) - _CRC):
            self.skipped_bytes += len(sent)
            return None
        payload = _PRELUDE + _number(sent, 4)
        headers = _texts(sent[_PRELUDE:payload])
        name = next((headers[name] for name in _NAMES if name in headers), b"")
        return ServerSentEvent(name, sent[payload:-_CRC])


def _number(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _texts(headers: bytes) -> dict[bytes, bytes]:
    """Return the headers whose values are text, as far as they can be read."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(headers):
        value = at + 1 + headers[at]
        name, kind = headers[at + 1 : value], headers[value : value + 1]
        at = value + 1
        if kind in (b"\x06", b"\x07"):
            size, at = int.from_bytes(headers[at : at + 2], "big"), at + 2
            if kind[0] == _TEXT:
                found[name] = headers[at : at + size]
        elif not kind or (size := _SIZES.get(kind[0], -1)) < 0:
            break
        at += size
    return found
