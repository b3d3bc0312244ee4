"""AWS's event stream (`application/vnd.amazon.eventstream`), as Bedrock sends it: binary frames with checksums.

A frame: its length, the length of its headers, a CRC of these two; the headers; the payload; a CRC of all before it.
Lengths and CRCs have four bytes, big-endian.
"""

from binascii import crc32

from ducto_redis.middleware.framing import Pieces
from ducto_redis.middleware.sse import ServerSentEvent

_PRELUDE = 12
_CRC = 4
# Bytes of a header's value by its type. 6 and 7, bytes and text, say their own length.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_TEXT = 7
_NAMES = (b":event-type", b":exception-type", b":error-code")


class EventStreamFrames(Pieces):
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
