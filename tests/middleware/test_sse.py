"""Server-sent events are cut out of a stream wherever its bytes were split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.middleware.sse import ServerSentEvent, ServerSentEventParser, as_sent, looks_like_events


def parse(chunks: list[bytes], **options: int) -> list[ServerSentEvent]:
    parser = ServerSentEventParser(**options)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_ending(end: bytes) -> None:
    """LF, CRLF and CR end lines."""
    stream = end.join([b"event: add", b"data: 1", b"", b"data:2", b"data: 3", b"", b""])
    assert parse([stream]) == [(b"add", b"1"), (b"", b"2\n3")]


def test_comments_and_unknown_fields_are_left_out() -> None:
    """Comments, ids, retries and unknown fields make no event."""
    assert parse([b": ping\n\nid: 7\nretry: 10\nfoo: bar\n\ndata: x\n\n"]) == [(b"", b"x")]


def test_one_space_after_the_colon_is_dropped() -> None:
    """One space after the colon belongs to the syntax, a second one to the data."""
    assert parse([b"data:  two\n\ndata:none\n\ndata\n\n"]) == [(b"", b" two"), (b"", b"none"), (b"", b"")]


def test_a_last_event_without_empty_line_is_given_at_the_end() -> None:
    """Usage in a last event must not be lost because the provider left out the empty line."""
    assert parse([b'data: {"usage":1}']) == [(b"", b'{"usage":1}')]


def test_a_byte_order_mark_is_left_out() -> None:
    """A byte order mark before the first field is no part of it."""
    assert parse([b"\xef\xbb\xbfdata: x\n\n"]) == [(b"", b"x")]


@given(
    st.lists(st.sampled_from(["data: ä€😀", "data: x", "event: e", ": c", "", "", "id: 1"]), max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_cuts_change_nothing(lines: list[str], end: str, data: st.DataObject) -> None:
    """However the bytes are cut, inside of characters and line ends too, the events are the same."""
    stream = end.join([*lines, "", ""]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(chunks) == parse([stream])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_cut_of_one_stream(end: bytes) -> None:
    """Cut in two at any byte, between CR and LF and inside a character too, the events are the same."""
    stream = "event: e\ndata: ä\ndata: €\n\n: c\ndata: 😀\n\n".encode().replace(b"\n", end)
    for cut in range(len(stream)):
        assert parse([stream[:cut], stream[cut:]]) == [(b"e", "ä\n€".encode()), (b"", "😀".encode())]


def test_an_oversized_event_is_left_out_and_counted() -> None:
    """An event over the limit is skipped, in one line or many, in one chunk or many; the next one is read."""
    long = b"data: " + b"x" * 200
    for event in (long + b"\n\n", b"data: xxxxxxxx\n" * 30 + b"\n"):
        for step in (1, 7, 10_000):
            stream = event + b"data: next\n\n"
            parser = ServerSentEventParser(max_event_bytes=100)
            events = [e for i in range(0, len(stream), step) for e in parser.feed(stream[i : i + step])]
            assert events == [(b"", b"next")]
            assert 180 <= parser.skipped_bytes <= len(event)


def test_events_are_recognised_by_their_start() -> None:
    """A stream with a wrong content type is known by its first bytes; JSON is not taken for one."""
    assert looks_like_events(b"data: {}\n\n")
    assert looks_like_events(b"\n: hello\n\n")
    assert not looks_like_events(b'{"data": 1}')
    assert not looks_like_events(b"")


def test_the_first_bytes_may_say_too_little() -> None:
    """Cut to the byte, a stream is neither taken for a document nor a document for a stream before that is clear."""
    for stream in (b"data: {}", b"\xef\xbb\xbf\r\nretry: 5"):
        said = [looks_like_events(stream[:size]) for size in range(len(stream))]
        assert said == sorted(said, key=bool)
        assert False not in said
        assert looks_like_events(stream) is True
    assert looks_like_events(b"dat{") is False
    assert looks_like_events(b" {") is False


def test_as_sent_gives_the_same_event() -> None:
    """An event that is written anew is read as the same: its name, and its lines, whatever ended them."""
    for event in (ServerSentEvent(b"", b"x"), ServerSentEvent(b"e", b"a\nb\n\nc"), ServerSentEvent(b"e", b"\n")):
        assert parse([as_sent(event)]) == [event]
    assert parse([as_sent(ServerSentEvent(b"e", b"a\r\nb\rc"))]) == [(b"e", b"a\nb\nc")]
