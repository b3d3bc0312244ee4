"""Streams of JSON: one value a line, or an array that arrives element by element."""

import re

from ducto_redis.middleware.framing import Pieces
from ducto_redis.middleware.sse import ServerSentEvent

_OUTSIDE_STRINGS = re.compile(rb'["\[\]{}]')
_INSIDE_STRINGS = re.compile(rb'["\\]')


class JsonLines(Pieces):
    """Newline-delimited JSON, as Ollama streams: each line is an event."""

    def _end_of_event(self) -> int:
        end = self._buffer.find(b"\n", self._searched) + 1
        self._searched = end or len(self._buffer)
        return end

    def _read(self, sent: bytes) -> ServerSentEvent | None:
        line = sent.strip()
        return ServerSentEvent(b"", line) if line else None


class JsonArray(Pieces):
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
