"""Streams that are no server-sent events pass as they come, and are charged what they report."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import Charge, Estimates, MeteredRequest, ResponseReader, ServerSentEvent
from ducto_redis.middleware.api_request import Headers
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import Answer, call, sending
from tests.middleware.conftest import Accounts
from tests.middleware.test_framing import frame

Metered = Callable[..., ASGIApp]

TEXT: dict[str, Any] = {"text": 'größer ] } "€"'}
USAGE: dict[str, Any] = {"usage": [10, 20]}


class Reader(ResponseReader):
    """Reads `usage` of events, and remembers what it got."""

    lines_are_stream = True
    array_is_stream = True

    def __init__(self) -> None:
        self.events: list[ServerSentEvent] = []
        self.documents: list[bytes] = []
        self.reported: list[int] = [0, 0]
        self.began: list[tuple[int, bytes]] = []

    def begin(self, status: int, headers: Headers) -> None:
        assert [*self.events, *self.documents] == []
        self.began.append((status, headers.get(b"x-cost")))

    def document(self, body: bytes) -> None:
        self.documents.append(body)
        self._take(body)

    def event(self, event: ServerSentEvent) -> None:
        self.events.append(event)
        self._take(event.data)

    def _take(self, data: bytes) -> None:
        value = json.loads(data)
        self.reported = (value.get("usage") if isinstance(value, dict) else None) or self.reported

    def charge(self, *, complete: bool) -> Charge | None:
        input_tokens, output_tokens = self.reported
        return Charge(UsageMetrics(model="m", input_tokens=input_tokens, output_tokens=output_tokens))


class Api(OpenAIChat):
    """Gives each request the reader that the test made."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        return self.reader


def as_lines(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def as_array(*values: dict[str, Any]) -> bytes:
    return b"[" + b"\n,\r\n".join(json.dumps(value, indent=2).encode() for value in values) + b"\n]\n"


def as_frames(*values: dict[str, Any]) -> bytes:
    return b"".join(frame(json.dumps(value).encode(), event_type="metadata") for value in values)


FORMATS = {
    "lines": (as_lines, "application/x-ndjson"),
    "lines as JSON": (as_lines, "application/json; charset=utf-8"),
    "array": (as_array, "application/json"),
    "frames": (as_frames, "application/vnd.amazon.eventstream"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("step", [1, 5, 10_000])
async def test_a_stream_is_charged_what_it_reports(metered: Metered, accounts: Accounts, name: str, step: int) -> None:
    """However it is cut, each part is an event of its own, no byte is changed, and the last report is charged."""
    encode, content_type = FORMATS[name]
    body = encode(TEXT, {"usage": [1, 1]}, USAGE)
    reader = Reader()
    app = sending(*[body[at : at + step] for at in range(0, len(body), step)], content_type=content_type)
    answer = await call(metered(app, recognisers=[Api(reader)]))
    assert answer.body == body
    assert [json.loads(event.data) for event in reader.events] == [TEXT, {"usage": [1, 1]}, USAGE]
    assert {event.name for event in reader.events} == {b"metadata" if name == "frames" else b""}
    assert reader.documents == []
    assert "x-credits-reserved" in answer.headers
    assert await accounts.spent() == Decimal("0.21")


@pytest.mark.parametrize(("status", "began"), [(200, [(200, b"0.5")]), (201, [(201, b"0.5")]), (400, [])])
async def test_headers_come_before_the_body(metered: Metered, status: int, began: list[tuple[int, bytes]]) -> None:
    """The reader of an answer that is no error gets its status and headers first, once."""
    reader = Reader()
    app = sending(as_lines(USAGE), status=status, headers=[(b"X-Cost", b"0.5")])
    await call(metered(app, recognisers=[Api(reader)]))
    assert reader.began == began


async def test_a_reader_that_fails_at_headers(metered: Metered, accounts: Accounts) -> None:
    """Its failure spoils no answer, which is charged its worst case."""

    class Failing(Reader):
        def begin(self, status: int, headers: Headers) -> None:
            raise KeyError("x-cost")

    answer = await call(metered(sending(as_lines(USAGE)), recognisers=[Api(Failing())]))
    assert answer.body == as_lines(USAGE)
    assert json.loads(accounts.journal()[-1].cause)["flags"] == ["answer_unread"]


@pytest.mark.parametrize("name", FORMATS)
async def test_it_is_not_held_back(metered: Metered, name: str) -> None:
    """A stream that calls itself JSON passes event by event: clients need not wait for its end.

    Lines are one when there are two of them; one line alone is a document.
    """
    encode, content_type = FORMATS[name]
    whole = encode(TEXT, USAGE)
    first = encode(TEXT).rstrip(b"\n]") if name == "array" else encode(TEXT)
    answer, seen = Answer(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            await send(message)
            seen.append(len(answer.body))

        await sending(first, whole[len(first) :], content_type=content_type)(scope, receive, watched)

    await call(metered(app, recognisers=[Api(Reader())]), answer=answer)
    assert seen == [0, 0 if name == "lines as JSON" else len(first), len(whole), len(whole)]


@pytest.mark.parametrize(
    ("body", "is_document"),
    [
        (json.dumps({**TEXT, **USAGE}).encode(), True),
        (json.dumps({**TEXT, **USAGE}, indent=2).encode(), True),
        (b"\n " + json.dumps(USAGE).encode() + b"\n", True),
        (as_lines(USAGE, USAGE), False),
        (b'"text"', True),
    ],
)
async def test_a_document_stays_one(metered: Metered, body: bytes, is_document: bool) -> None:
    """A single JSON document is read as one where its first line is not a whole value, and held back then."""
    reader = Reader()
    pieces = [body[:3], body[3:]]
    answer = await call(metered(sending(*pieces), recognisers=[Api(reader)]))
    assert answer.body == body
    assert bool(reader.documents) is is_document
    assert bool(reader.events) is not is_document
    assert ("x-credits-charged" in answer.headers) is is_document


@pytest.mark.parametrize("body", [as_lines(TEXT, USAGE), as_array(USAGE)])
async def test_only_readers_that_say_so_get_streams_of_json(metered: Metered, body: bytes) -> None:
    """For other APIs an answer that calls itself JSON is one document, an array too."""

    class PlainReader(Reader):
        lines_are_stream = False
        array_is_stream = False

        def _take(self, data: bytes) -> None:
            """A document of any kind."""

    reader = PlainReader()
    await call(metered(sending(body), recognisers=[Api(reader)]))
    assert reader.documents == [body]
    assert reader.events == []


async def test_a_stream_of_json_that_was_cut(metered: Metered, accounts: Accounts) -> None:
    """An array whose application fails in the middle is charged by what it reported until then."""
    body = as_array(USAGE, TEXT)
    with pytest.raises(ZeroDivisionError):
        app = sending(body[:-30], content_type="application/json", error=ZeroDivisionError())
        reader = Reader()
        reader._take = lambda data: None if b"text" in data else Reader._take(reader, data)  # type: ignore[method-assign]
        await call(metered(app, recognisers=[Api(reader)]))
    assert await accounts.spent() == Decimal("0.21")
