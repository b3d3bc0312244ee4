"""Server-sent events with their bytes, for streams of which not every event goes on."""

import re

from ducto_redis.middleware.framing import Pieces
from ducto_redis.middleware.sse import ServerSentEvent, ServerSentEventParser

# An end of a line, then that of an empty one. A CRLF is never taken for two ends.
_EMPTY_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class EventPieces(Pieces):
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
