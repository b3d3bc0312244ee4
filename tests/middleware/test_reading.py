"""How the bytes of an answer reach its reader: what reports nothing is not parsed, and is charged all the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import OpenAIChat
from ducto_redis.middleware.recognisers.openai.chat_response import ChatResponseReader
from ducto_redis.middleware.sse import ServerSentEventParser
from tests.middleware.asgi import DONE, chunk, event, usage_chunk

REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100, operation="chat"), counted_input_tokens=7)
RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*_openai_chat_stream_*.json"))

REPORTS_WITH_TEXT = chunk("ab", usage={"prompt_tokens": 5, "completion_tokens": 1})
NULL_REPORTS = [chunk("x" * 20, usage=None), event({"choices": [], "usage": None, "error": None})]
STREAMS: dict[str, list[bytes]] = {
    "reported": [chunk("a"), chunk("b"), usage_chunk(10, 20), DONE],
    "null until the end": [*NULL_REPORTS, usage_chunk(10, 20), DONE],
    "never reported": [chunk("x" * 20), *NULL_REPORTS, DONE],
    "reported with text, then more": [chunk("x" * 9), REPORTS_WITH_TEXT, chunk("y" * 40), chunk("z"), DONE],
    "reported twice": [REPORTS_WITH_TEXT, chunk("y"), usage_chunk(10, 20), DONE],
    "tier in the first chunk": [chunk("a", service_tier="flex"), chunk("b"), usage_chunk(10, 20), DONE],
    "tier in the first chunk, of much text": [chunk("x" * 200, service_tier="flex"), usage_chunk(10, 1), DONE],
    "tier changed": [
        chunk("a", service_tier="flex"),
        usage_chunk(1, 1)[:-3] + b',"service_tier":"priority"}\n\n',
        DONE,
    ],
    "an error": [event({"error": {"message": "overloaded"}})],
    "an error later": [chunk("0123"), event({"error": {"message": "overloaded"}})],
    "another shape": [event({"text": "hello"}), event({"text": "usage"})],
    "the word in the text": [chunk('say "usage": 3'), chunk("b"), DONE],
    "long": [*[chunk(f"{number:09}") for number in range(1000)], DONE],
    "long and reported": [*[chunk(f"{number:09}") for number in range(1000)], usage_chunk(10, 20), DONE],
    "a comment": [b": ping\n\n", chunk("abc"), b": ping\n\n", usage_chunk(10, 20), DONE],
    **{path.stem: [json.loads(path.read_text())["body"].encode()] for path in RECORDINGS},
}


class Watched(ChatResponseReader):
    """Remembers what was parsed."""

    def __init__(self) -> None:
        super().__init__(REQUEST, Estimates())
        self.parsed: list[bytes] = []

    def event(self, event: ServerSentEvent) -> None:
        self.parsed.append(event.data)
        super().event(event)


def read_in_pieces(pieces: list[bytes], *, complete: bool, reader: ChatResponseReader | None = None) -> Charge | None:
    reader = ChatResponseReader(REQUEST, Estimates()) if reader is None else reader
    reading = BodyReading(reader, b"text/event-stream", b"")
    for piece in pieces:
        reading.feed(piece)
    reading.finish()
    return reader.charge(complete=complete)


def read_event_by_event(body: bytes, *, complete: bool) -> Charge | None:
    reader = OpenAIChat().read_response(REQUEST, Estimates())
    parser = ServerSentEventParser()
    for found in (*parser.feed(body), *parser.finish()):
        reader.event(found)
    return reader.charge(complete=complete)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("complete", [True, False])
def test_skipping_changes_no_charge(name: str, complete: bool) -> None:
    """However a stream is cut, wherever it ends, it is charged as if every event had been parsed as it came."""
    pieces = STREAMS[name]
    body = b"".join(pieces)
    ends = range(1, len(pieces) + 1) if len(pieces) < 10 else [len(pieces) - 2, len(pieces) - 1, len(pieces)]
    for end in ends:
        expected = read_event_by_event(b"".join(pieces[:end]), complete=complete)
        assert read_in_pieces(pieces[:end], complete=complete) == expected
    for size in (7, 100, 4096, len(body)):
        cut = [body[start : start + size] for start in range(0, len(body), size)]
        assert read_in_pieces(cut, complete=complete) == expected


def test_only_what_reports_is_parsed() -> None:
    """Of a stream that ends with its report nothing else is parsed: null reports are none."""
    for pieces in (STREAMS["reported"], STREAMS["null until the end"]):
        reader = Watched()
        read_in_pieces([b": start\n\n", *pieces], complete=True, reader=reader)
        assert [json.loads(data)["usage"]["prompt_tokens"] for data in reader.parsed] == [10]


def test_what_is_kept_is_bounded() -> None:
    """A long stream is counted piece by piece: what waits to be counted stays small."""
    reader = ChatResponseReader(REQUEST, Estimates())
    for _ in range(5000):
        reader.skipped(chunk("x" * 50))
        assert sum(map(len, reader._skipped)) < 64 * 2**10
    charge: Any = reader.charge(complete=False)
    assert charge.usage.output_tokens == 5000 * 50 / 4
