"""An answer's bytes, on their way to the reader that understands them."""

from ducto_redis.middleware.decoding import UndecodableError, decoder_for
from ducto_redis.middleware.recognisers.base import AnswerReader
from ducto_redis.middleware.sse import ServerSentEventParser, looks_like_events

_LARGEST_DOCUMENT = 32 * 2**20


class BodyReading:
    """Undoes the content encoding, then cuts the body into events, or gathers it to one document.

    It only reads; what it cannot read it counts.
    """

    def __init__(self, reader: AnswerReader, content_type: str, content_encoding: str) -> None:
        self._reader = reader
        self._decoder = decoder_for(content_encoding)
        self._is_stream: bool | None = True if content_type == "text/event-stream" else None
        self._events = ServerSentEventParser()
        self._document = bytearray()

    @property
    def is_stream(self) -> bool:
        """Whether the body has turned out to be a stream of events, whatever its content type."""
        return bool(self._is_stream)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            text = self._decoder.decode(chunk)
        except UndecodableError:
            self._reader.unread_bytes += len(chunk)
            return
        if self._is_stream is None and text:
            self._is_stream = looks_like_events(text)
        if self._is_stream:
            for event in self._events.feed(text):
                self._reader.event(event)
        elif len(self._document) + len(text) > _LARGEST_DOCUMENT:
            self._reader.unread_bytes += len(text)
        else:
            self._document += text

    def finish(self) -> None:
        """The body is over, or was cut."""
        if self._is_stream:
            for event in self._events.finish():
                self._reader.event(event)
            self._reader.unread_bytes += self._events.skipped_bytes
        elif self._document:
            self._reader.document(bytes(self._document))
