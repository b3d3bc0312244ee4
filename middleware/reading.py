"""An answer's bytes, on their way to the reader that understands them."""

import logging
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal

import msgspec

from ducto_redis.middleware.api_request import Headers
from ducto_redis.middleware.decoding import UndecodableError, decoder_for, is_identity
from ducto_redis.middleware.framing import (
    AwsEventStreamFramer,
    Framer,
    JsonArrayFramer,
    JsonLinesFramer,
    Piece,
    SseFramer,
)
from ducto_redis.middleware.recognisers.base import ResponseReader
from ducto_redis.middleware.sse import as_sent, looks_like_events

logger = logging.getLogger("ducto_redis.middleware")

_LARGEST_DOCUMENT = 32 * 2**20
_LONGEST_FIRST_LINE = 2**20

_STREAMS: dict[bytes, type[Framer]] = {
    b"text/event-stream": SseFramer,
    b"application/x-ndjson": JsonLinesFramer,
    b"application/ndjson": JsonLinesFramer,
    b"application/jsonl": JsonLinesFramer,
    b"application/vnd.amazon.eventstream": AwsEventStreamFramer,
}


class BodyReading:
    """Undoes the content encoding, then cuts the body into events, or gathers it to one document.

    It only reads; what it cannot read it counts.

    Args:
        reader: what understands the answer.
        content_type: of the answer, without parameters, in lower case.
        content_encoding: of the answer; empty for none.
        whole_events: whether the client gets a stream event by event, so that one can be kept from it, or be the last.
    """

    def __init__(
        self, reader: ResponseReader, content_type: bytes, content_encoding: bytes, *, whole_events: bool = False
    ) -> None:
        self._reader = reader
        self._is_plain = not content_encoding or is_identity(content_encoding)
        self._decoder = None if self._is_plain else decoder_for(content_encoding)
        self.passes_whole_events = whole_events and self._is_plain
        """Whether events can be kept from the client: not where they are compressed."""
        self.failed = False
        """Whether the reader raised an exception, and reads nothing any more."""
        stream = _STREAMS.get(content_type)
        self._pieces: Framer | None = None if stream is None else stream()
        self._undecided = stream is None
        self._may_be_document = self._is_plain and not reader.lines_are_stream
        self._between_events = False
        self._skip = reader.skipped
        self._document: list[bytes] = []
        self._document_bytes = 0
        self._search = _search_for(reader.report_fields)
        self._finished = False

    @property
    def is_stream(self) -> bool:
        """True where the body is a stream, or has turned out to be one, whatever its content type."""
        return self._pieces is not None

    def begin(self, status: int, headers: Headers) -> None:
        """Give the reader the status and headers of the answer, before any of its body."""
        if getattr(self._reader.begin, "__func__", None) is ResponseReader.begin:
            return
        try:
            self._reader.begin(status, headers)
        except Exception:
            self.fail()

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body. Returns those that go to the client: the same object where all do."""
        if self._undecided and chunk[:1] == b"{" and self._may_be_document and len(chunk) <= _LARGEST_DOCUMENT:
            # Most bodies that are no stream, and the quick way to the same as below.
            self._undecided = self._may_be_document = False
            self._document.append(chunk)
            self._document_bytes = len(chunk)
            return chunk
        if self._between_events and chunk.endswith(b"\n\n"):
            found = self._search(chunk)
            if found is None or not self._reports(chunk, found):
                # Whole events, as most applications send them: nothing is cut or parsed.
                try:
                    self._skip(chunk)
                except Exception:
                    self.fail()
                return chunk
        if self.passes_whole_events:
            passing = list(self.feed_each(chunk))
            return passing[0] if len(passing) == 1 else b"".join(passing)
        for _ in self.feed_each(chunk):
            pass
        return chunk

    def feed_each(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes event by event: each has been read when it is given, and those after it have not."""
        try:
            text = chunk if self._decoder is None else self._decoder.decode(chunk)
        except UndecodableError:
            self._reader.unread_bytes += len(chunk)
            yield chunk
            return
        if self._undecided and text:
            self._may_be_document = False
            text = self._decide(text)
        if self._pieces is not None:
            for piece in self._pieces.feed(text):
                if self._take(piece) and self.passes_whole_events:
                    yield piece.sent
            self._between_events = (
                self._is_plain and self._pieces.between_events and isinstance(self._pieces, SseFramer)
            )
        elif not self._undecided:
            self._gather(text)
            if self.passes_whole_events:
                yield text
        if not self.passes_whole_events:
            yield chunk

    def finish(self) -> bytes:
        """End the body, whole or cut. Returns the bytes that the client did not get yet."""
        if self._finished:
            return b""
        self._finished = True
        rest: list[bytes] = []
        if self._pieces is not None:
            rest += [piece.sent for piece in self._pieces.finish() if self._take(piece)]
            self._reader.unread_bytes += self._pieces.skipped_bytes
        elif self._document:
            document = b"".join(self._document)
            if self._undecided:
                rest.append(document)
            try:
                self._reader.document(document)
            except Exception:
                self.fail()
        return b"".join(rest) if self.passes_whole_events else b""

    def fail(self) -> None:
        """Read nothing any more, for the reader raised an exception: it must not spoil the answer that it reads."""
        logger.exception("the recogniser failed at an answer, which is charged its worst case")
        self.failed = True
        self._skip = _ignore

    def _take(self, piece: Piece) -> bool:
        """Give a piece to the reader. Returns whether it goes to the client."""
        event, reader = piece.event, self._reader
        if event is None or self.failed:
            return True
        try:
            if not self._reports(event.data, self._search(event.data)):
                reader.skipped(as_sent(event))
                return True
            reader.event(event)
            return not (reader.hides_events and reader.hidden(event))
        except Exception:
            self.fail()
            return True

    def _decide(self, text: bytes) -> bytes:
        """Tell what the body is by how it begins. Returns what is to be read: all that came until that was clear."""
        self._document.append(text)
        start = b"".join(self._document)
        stream = _stream_that_begins(start, self._reader)
        if stream is None and len(start) < _LONGEST_FIRST_LINE:
            return b""
        self._undecided = False
        self._document = []
        self._pieces = stream() if stream else None
        return start

    def _gather(self, text: bytes) -> None:
        if self._document_bytes + len(text) > _LARGEST_DOCUMENT:
            self._reader.unread_bytes += len(text)
        else:
            self._document.append(text)
            self._document_bytes += len(text)

    def _reports(self, text: bytes, found: re.Match[bytes] | None) -> bool:
        """Tell by a search of its bytes whether any of the reader's fields may have a value in it."""
        while found is not None:
            if not text.startswith((b":null", b": null"), found.end()):
                return True
            found = self._search(text, found.end())
        return False


def _ignore(events: bytes) -> None:
    pass


def _stream_that_begins(start: bytes, reader: ResponseReader) -> "type[Framer] | Literal[False] | None":
    """Return how a body that begins so is cut; False for a document, None where it is too early to tell."""
    if (events := looks_like_events(start)) is not False:
        return SseFramer if events else None
    value = start.lstrip()
    if reader.array_is_stream and value.startswith(b"["):
        return JsonArrayFramer
    if reader.lines_are_stream and value.startswith(b"{"):
        first, _, rest = value.partition(b"\n")
        if not rest.strip():
            return None  # one line alone is a document
        return JsonLinesFramer if _is_json(first) else False
    return False


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


@cache
def _search_for(fields: tuple[bytes, ...]) -> Callable[..., re.Match[bytes] | None]:
    """Return what finds one of these fields; without any, something is found in every text."""
    return re.compile(b'"(?:%b)"' % b"|".join(map(re.escape, fields)) if fields else b"").search
