"""Streams of every format are cut into their events wherever the bytes were split, and lose no byte."""

import json
import struct
from binascii import crc32
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.middleware.framing import (
    AwsEventStreamFramer,
    Framer,
    JsonArrayFramer,
    JsonLinesFramer,
    Piece,
    SseFramer,
)

VALUES = [{"text": 'an odd " ] } {', "path": "a\\\\"}, {"deep": [[{}], {"€": "größer"}]}, {"usage": {"tokens": 3}}]
TEXTS = [json.dumps(value, ensure_ascii=False).encode() for value in VALUES]


def frame(payload: bytes, **headers: str) -> bytes:
    """A frame of AWS's event stream."""
    fields = b"\x03:on\x00" + b"\x02:n\x04" + struct.pack(">i", 7)  # headers that are no text
    for name, value in headers.items():
        key = f":{name.replace('_', '-')}".encode()
        fields += bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 12 + len(fields) + len(payload) + 4, len(fields))
    start = prelude + struct.pack(">I", crc32(prelude)) + fields + payload
    return start + struct.pack(">I", crc32(start))


STREAMS: dict[str, tuple[type[Framer], bytes, list[tuple[bytes, bytes]]]] = {
    "events": (
        SseFramer,
        ": ping\n\ndata: größer €\n\nevent: e\nid: 1\ndata: two\ndata: lines\n\n\ndata: x\n\n".encode(),
        [(b"", "größer €".encode()), (b"e", b"two\nlines"), (b"", b"x")],
    ),
    "events without a last empty line": (SseFramer, b"data: a\n\ndata: b", [(b"", b"a"), (b"", b"b")]),
    "events, CRLF": (
        SseFramer,
        b"data: a\r\ndata: b\r\n\r\n: c\r\n\r\ndata: d\r\n\r\n",
        [(b"", b"a\nb"), (b"", b"d")],
    ),
    "events, CR": (SseFramer, b"data: a\rdata: b\r\rdata: c\r\r", [(b"", b"a\nb"), (b"", b"c")]),
    "lines": (JsonLinesFramer, b"\n".join(TEXTS) + b"\n\r\n", [(b"", text) for text in TEXTS]),
    "lines, CRLF, no last end": (JsonLinesFramer, b"\r\n".join(TEXTS), [(b"", text) for text in TEXTS]),
    "array": (JsonArrayFramer, b"[" + b"\n,\r\n".join(TEXTS) + b"\n]\n", [(b"", text) for text in TEXTS]),
    "array, indented": (
        JsonArrayFramer,
        json.dumps(VALUES, indent=2).encode(),
        [(b"", json.dumps(value, indent=2).replace("\n", "\n  ").encode()) for value in VALUES],
    ),
    "array, cut off": (JsonArrayFramer, b"[" + TEXTS[0] + b',{"te', [(b"", TEXTS[0]), (b"", b'{"te')]),
    "array, empty": (JsonArrayFramer, b"[]", []),
    "frames": (
        AwsEventStreamFramer,
        frame(TEXTS[0], message_type="event", event_type="contentBlockDelta", content_type="application/json")
        + frame(b"{}", message_type="exception", exception_type="throttlingException"),
        [(b"contentBlockDelta", TEXTS[0]), (b"throttlingException", b"{}")],
    ),
}


def cut(kind: type[Framer], chunks: Sequence[bytes]) -> list[Piece]:
    pieces = kind()
    found = [piece for chunk in chunks for piece in pieces.feed(chunk)]
    return found + list(pieces.finish())


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut(name: str) -> None:
    """Byte by byte, in two at any place, and whole: the same events, and no byte is lost or moved."""
    kind, stream, events = STREAMS[name]
    cuts = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    cuts += [[stream[:at], stream[at:]] for at in range(1, len(stream))]
    for chunks in cuts:
        pieces = cut(kind, chunks)
        assert [piece.event for piece in pieces if piece.event is not None] == events
        assert b"".join(piece.sent for piece in pieces) == stream


@pytest.mark.parametrize("name", STREAMS)
def test_an_event_passes_as_soon_as_it_is_whole(name: str) -> None:
    """Nothing waits for the next event: whatever is whole has been given when the bytes after it come.

    Only a CR may be the half of an end of a line, and waits for the next byte.
    """
    kind, stream, events = STREAMS[name]
    if name in ("events, CR", "events without a last empty line", "lines, CRLF, no last end", "array, cut off"):
        events = events[:-1]
    pieces = kind()
    assert [piece.event for piece in pieces.feed(stream) if piece.event is not None] == events


@pytest.mark.parametrize("name", ["events", "events, CRLF", "lines", "array", "frames"])
def test_between_events(name: str) -> None:
    """It knows whether all that came were whole events."""
    kind, stream, _ = STREAMS[name]
    first = cut(kind, [stream])[0].sent
    pieces = kind()
    assert pieces.between_events
    list(pieces.feed(first[:-1]))
    assert not pieces.between_events
    list(pieces.feed(first[-1:]))
    assert pieces.between_events


@given(
    st.lists(st.sampled_from(["data: ä€😀", "data: x", "event: e", ": c", "", "", "id: 1"]), max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_are_those_of_the_parser(lines: list[str], end: str, data: st.DataObject) -> None:
    """However server-sent events are cut, they are the same, each with its own bytes."""
    stream = end.join([*lines, "", ""]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    pieces = cut(SseFramer, chunks)
    whole = cut(SseFramer, [stream])
    assert [piece.event for piece in pieces if piece.event] == [piece.event for piece in whole if piece.event]
    assert b"".join(piece.sent for piece in pieces) == stream
    for piece in pieces:
        assert len(cut(SseFramer, [piece.sent])) == 1


@pytest.mark.parametrize(
    ("kind", "long", "end", "after"),
    [
        (SseFramer, b"data: " + b"x" * 300, b"\n\n", b"data: next\n\n"),
        (SseFramer, b"data: x\n" * 40, b"\n", b"data: next\n\n"),
        (JsonLinesFramer, b'"' + b"x" * 300 + b'"', b"\n", b'"next"\n'),
        (JsonArrayFramer, b'[{"a": "' + b"x" * 300, b'"}', b',{"next": 1}'),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_oversized_event_is_passed_and_not_read(
    kind: type[Framer], long: bytes, end: bytes, after: bytes, step: int
) -> None:
    """An event over the limit passes in parts, is not read but counted, and fills no memory; the next one is read."""
    stream = long + end + after
    pieces = kind(max_event_bytes=100)
    found: list[Piece] = []
    for at in range(0, len(stream), step):
        found += pieces.feed(stream[at : at + step])
        assert len(pieces._buffer) <= 100
    assert b"".join(piece.sent for piece in found) == stream
    read = [piece.event.data for piece in found if piece.event is not None]
    assert len(read) == 1
    assert b"next" in read[0]
    assert 250 <= pieces.skipped_bytes <= len(long + end)


@pytest.mark.parametrize("at", [0, 5, 9, 40, -1])
def test_a_frame_with_a_wrong_checksum(at: int) -> None:
    """A frame whose checksum is wrong is passed and counted, not read; with a wrong length the rest is, too."""
    good = frame(b'{"a": 1}', event_type="e")
    bad = bytearray(good)
    bad[at] ^= 1
    pieces = AwsEventStreamFramer()
    stream = good + bytes(bad) + good
    found = [piece for i in range(len(stream)) for piece in pieces.feed(stream[i : i + 1])]
    assert b"".join(piece.sent for piece in found) == stream
    read = [piece for piece in found if piece.event is not None]
    is_length = at in (0, 5, 9)
    assert len(read) == (1 if is_length else 2)
    assert pieces.skipped_bytes == len(good) * (2 if is_length else 1)


def test_a_frame_that_is_too_large() -> None:
    """A frame that announces more than may be kept is not waited for."""
    large = frame(b"x" * 500)
    pieces = AwsEventStreamFramer(max_event_bytes=100)
    assert b"".join(piece.sent for piece in pieces.feed(large[:50])) == large[:50]
    assert b"".join(piece.sent for piece in pieces.feed(large[50:])) == large[50:]
    assert pieces.skipped_bytes == len(large)
