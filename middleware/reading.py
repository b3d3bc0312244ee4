"""An answer's bytes, on their way to the reader that understands them."""

import re
from functools import cache

from ducto_redis.middleware.decoding import UndecodableError, decoder_for, is_identity
from ducto_redis.middleware.recognisers.base import AnswerReader
from ducto_redis.middleware.sse import ServerSentEvent, ServerSentEventParser, as_sent, looks_like_events

_LARGEST_DOCUMENT = 32 * 2**20


class BodyReading:
    """Undoes the content encoding, then cuts the body into events, or gathers it to one document.

    It only reads; what it cannot read it counts.
    """

    def __init__(self, reader: AnswerReader, content_type: bytes, content_encoding: bytes) -> None:
        self._reader = reader
        self._decoder = decoder_for(content_encoding)
        self._is_stream: bool | None = True if content_type == b"text/event-stream" else None
        self._is_plain = is_identity(content_encoding)
        self._between_events = False
        self._skip = reader.skipped
        self._events = ServerSentEventParser()
        self._document: list[bytes] = []
        self._document_bytes = 0
        self._fields = _pattern(reader.report_fields)

    @property
    def is_stream(self) -> bool:
        """Whether the body has turned out to be a stream of events, whatever its content type."""
        return bool(self._is_stream)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        if self._between_events and chunk.endswith(b"\n\n") and not self._reports(chunk):
            self._skip(chunk)  # whole events, as most applications send them: nothing is cut or parsed
            return
        try:
            text = self._decoder.decode(chunk)
        except UndecodableError:
            self._reader.unread_bytes += len(chunk)
            return
        if self._is_stream is None and text:
            self._is_stream = looks_like_events(text)
        if self._is_stream:
            for event in self._events.feed(text):
                self._take(event)
            self._between_events = self._is_plain and self._events.between_events
        elif self._document_bytes + len(text) > _LARGEST_DOCUMENT:
            self._reader.unread_bytes += len(text)
        else:
            self._document.append(text)
            self._document_bytes += len(text)

    def finish(self) -> None:
        """The body is over, or was cut."""
        if self._is_stream:
            for event in self._events.finish():
                self._take(event)
            self._reader.unread_bytes += self._events.skipped_bytes
        elif self._document:
            self._reader.document(b"".join(self._document))

    def _take(self, event: ServerSentEvent) -> None:
        if self._reports(event.data):
            self._reader.event(event)
        else:
            self._reader.skipped(as_sent(event))

    def _reports(self, text: bytes) -> bool:
        """Tell by a search of its bytes whether any of the reader's fields may have a value in it."""
        if self._fields is None:
            return True
        found = self._fields.search(text)
        while found is not None:
            if not text.startswith((b":null", b": null"), found.end()):
                return True
            found = self._fields.search(text, found.end())
        return False


@cache
def _pattern(fields: tuple[bytes, ...]) -> re.Pattern[bytes] | None:
    return re.compile(b'"(?:%b)"' % b"|".join(map(re.escape, fields))) if fields else None
