"""Usage is asked for where the client did not ask, and the event that brings it is kept from the client."""

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis.middleware import MeteredRequest
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import (
    CHAT_REQUEST,
    DONE,
    Answer,
    call,
    chunk,
    completion,
    event,
    scope,
    sending,
    streaming,
    usage_chunk,
)
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]

STREAM_REQUEST = {**CHAT_REQUEST, "stream": True}
EVENTS = [b": ping\n\n", chunk("größer €"), usage_chunk(10, 20), DONE]
SHOWN = [b": ping\n\n", chunk("größer €"), DONE]


def watching(app: ASGIApp, seen: list[Scope]) -> ASGIApp:
    """Remembers the scopes, and at "body" the bodies, that an application got."""

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> Message:
            message = await receive()
            seen[-1].setdefault("body", message.get("body"))
            return message

        seen.append(scope)
        await app(scope, watch, send)

    return watched


async def test_the_application_is_asked_for_usage(metered: Metered) -> None:
    """The application gets a body that asks for usage, of the length that its headers say; the caller's scope stays."""
    seen: list[Scope] = []
    body = json.dumps(STREAM_REQUEST).encode()
    headers = {"content-length": str(len(body)), "accept-encoding": "gzip", "x-other": "1"}
    app = metered(watching(streaming(*EVENTS), seen))

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        before = list(scope["headers"])
        await app(scope, receive, send)
        assert scope["headers"] == before

    await call(outermost, body, headers=headers)
    given = json.loads(seen[0]["body"])
    assert given.pop("stream_options") == {"include_usage": True}
    assert given == STREAM_REQUEST
    fields = dict(seen[0]["headers"])
    assert fields == {
        b"content-length": str(len(seen[0]["body"])).encode(),
        b"accept-encoding": b"identity",
        b"x-other": b"1",
    }


async def test_what_an_application_leaves_in_the_scope_is_seen_outside(metered: Metered) -> None:
    """Frameworks note the route in the scope: instrumentation around the metering finds it, whatever body was given."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = "chat"
        await streaming(*EVENTS)(scope, receive, send)

    outer = scope()

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(STREAM_REQUEST).encode()}

    async def send(message: Message) -> None:
        return

    await metered(app)(outer, receive, send)
    assert outer["route"] == "chat"


@pytest.mark.parametrize("asked", [{"stream": False}, {"stream_options": {"include_usage": True}}])
async def test_what_the_client_asked_for_is_left_alone(metered: Metered, asked: dict[str, Any]) -> None:
    """Where no stream is asked for, or the usage is, the application gets the very body and headers of the client."""
    seen: list[Scope] = []
    request = {**STREAM_REQUEST, **asked}
    answer = await call(metered(watching(streaming(*EVENTS), seen)), request, headers={"accept-encoding": "gzip"})
    assert seen[0]["body"] == json.dumps(request).encode()
    assert seen[0]["headers"] == [(b"accept-encoding", b"gzip")]
    assert answer.body == b"".join(EVENTS)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("step", [1, 2, 7, 64, 10_000])
async def test_the_extra_event_is_kept_from_the_client(
    metered: Metered, accounts: Accounts, line_end: bytes, step: int
) -> None:
    """However the stream is cut, the client gets every byte but those of the usage, which is charged."""
    body = b"".join(EVENTS).replace(b"\n", line_end)
    app = streaming(*[body[at : at + step] for at in range(0, len(body), step)])
    answer = await call(metered(app), STREAM_REQUEST)
    assert answer.body == b"".join(SHOWN).replace(b"\n", line_end)
    assert await accounts.spent() == Decimal("0.21")


async def test_an_event_of_several_lines(metered: Metered, accounts: Accounts) -> None:
    """Usage in an event of several lines of data is kept from the client too, with a comment in front of it."""
    usage = b': here\ndata: {"choices": [],\ndata: "usage": {"prompt_tokens": 10, "completion_tokens": 20}}\n\n'
    answer = await call(metered(streaming(chunk("a"), usage, DONE)), STREAM_REQUEST)
    assert answer.body == chunk("a") + DONE
    assert await accounts.spent() == Decimal("0.21")


async def test_whole_events_pass_untouched_and_at_once(metered: Metered) -> None:
    """Messages that are whole events pass as they are, each at once; of others, what is whole passes at once."""
    first, second = chunk("a"), chunk("b")
    pieces = [first, second[:20], second[20:] + first[:30], first[30:], usage_chunk(), DONE]
    answer, seen = Answer(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            await send(message)
            seen.append(len(answer.body))

        await streaming(*pieces)(scope, receive, watched)

    await call(metered(app), STREAM_REQUEST, answer=answer)
    one, two, three = len(first), len(first + second), len(first + second + first)
    assert seen == [0, one, one, two, three, three, three + len(DONE), three + len(DONE)]
    assert all(message["body"] for message in answer.messages[1:-1])


@pytest.mark.parametrize("rest", [b'data: {"choices"', chunk("b").strip(), b": the end"])
async def test_a_last_event_without_its_end(metered: Metered, rest: bytes) -> None:
    """What no empty line completes goes out with the end of the stream."""
    answer = await call(metered(streaming(chunk("a"), rest)), STREAM_REQUEST)
    assert answer.body == chunk("a") + rest


@pytest.mark.parametrize("in_last_message", [True, False])
async def test_usage_in_a_last_event_without_its_end(
    metered: Metered, accounts: Accounts, in_last_message: bool
) -> None:
    """It is read and kept from the client, in the last message too."""
    usage = usage_chunk(10, 20).strip()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": chunk("a"), "more_body": True})
        if not in_last_message:
            await send({"type": "http.response.body", "body": usage, "more_body": True})
        await send({"type": "http.response.body", "body": usage if in_last_message else b""})

    answer = await call(metered(app), STREAM_REQUEST)
    assert answer.body == chunk("a")
    assert answer.messages[-1].get("more_body", False) is False
    assert await accounts.spent() == Decimal("0.21")


async def test_a_stream_that_announces_its_length(metered: Metered) -> None:
    """A stream's content-length counts what is kept from the client, so it does not go out."""
    body = b"".join(EVENTS)
    app = streaming(body, headers=[(b"content-length", b"%d" % len(body))])
    answer = await call(metered(app), STREAM_REQUEST)
    assert answer.body == b"".join(SHOWN)
    assert "content-length" not in answer.headers


async def test_a_stream_that_says_it_is_json(metered: Metered, accounts: Accounts) -> None:
    """Under the wrong content type, and cut to the byte, the same is kept from the client."""
    body = b"".join(EVENTS)
    for content_type in ("application/json", "text/plain"):
        app = sending(*[body[at : at + 1] for at in range(len(body))], content_type=content_type)
        answer = await call(metered(app), STREAM_REQUEST)
        assert answer.body == b"".join(SHOWN)
    assert await accounts.spent() == Decimal("0.42")


async def test_a_stream_that_says_it_is_json_and_comes_whole(metered: Metered, accounts: Accounts) -> None:
    """It is charged before it goes out, and its length is not the one that the application counted."""
    body = b"".join(EVENTS)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    answer = await call(metered(app), STREAM_REQUEST)
    assert answer.body == b"".join(SHOWN)
    assert "content-length" not in answer.headers
    assert answer.headers["x-credits-charged"] == "0.21"


async def test_a_plain_answer_to_a_request_for_a_stream(metered: Metered, accounts: Accounts) -> None:
    """An application that answers a request for a stream with one document is charged, and its document stays whole."""
    body = json.dumps(completion(10, 20)).encode()
    answer = await call(metered(sending(body[:1], body[1:])), STREAM_REQUEST)
    assert answer.body == body
    assert answer.credits["x-credits-charged"] == "0.21"


async def test_a_compressed_stream_passes_as_it_is(metered: Metered, accounts: Accounts) -> None:
    """Where an application compresses all the same, the event is read, and goes to the client."""
    body = gzip.compress(b"".join(EVENTS))
    answer = await call(metered(streaming(body, headers=[(b"content-encoding", b"gzip")])), STREAM_REQUEST)
    assert answer.body == body
    assert await accounts.spent() == Decimal("0.21")


async def test_compression_inside_of_the_metering_is_asked_not_to(metered: Metered, accounts: Accounts) -> None:
    """Starlette's compression, inside of the metering, compresses no stream of which an event is to be kept back."""
    # Streams under their own content type Starlette leaves alone anyway.
    app = metered(GZipMiddleware(sending(*EVENTS, content_type="text/plain"), minimum_size=1))
    answer = await call(app, STREAM_REQUEST, headers={"accept-encoding": "gzip"})
    assert answer.body == b"".join(SHOWN)
    assert "content-encoding" not in answer.headers
    answer = await call(app, CHAT_REQUEST, headers={"accept-encoding": "gzip"})
    assert gzip.decompress(answer.body) == b"".join(EVENTS)
    assert await accounts.spent() == Decimal("0.42")


async def test_an_interrupted_stream_ends_with_a_whole_event(metered: Metered, accounts: Accounts) -> None:
    """What an application left half-sent when it failed does not go out: half an event might be the hidden one."""
    answer = Answer()
    with pytest.raises(ZeroDivisionError):
        app = streaming(chunk("x" * 20), usage_chunk(10, 20)[:-5], error=ZeroDivisionError())
        await call(metered(app), STREAM_REQUEST, answer=answer)
    assert answer.body == chunk("x" * 20)
    assert await accounts.spent() > 0


async def test_a_recogniser_that_fails_keeps_nothing_back(metered: Metered, accounts: Accounts) -> None:
    """Where the recogniser fails, the rest of the stream passes as it comes."""

    class Broken(OpenAIChat):
        def read_response(self, request: MeteredRequest, estimates: Any) -> Any:
            reader: Any = super().read_response(request, estimates)

            def hidden(event: object) -> bool:
                raise AssertionError

            reader.hidden = hidden
            return reader

    pieces = [chunk("a"), event({"choices": [], "error": None, "usage": {"prompt_tokens": 1}}), chunk("b"), DONE]
    answer = await call(metered(streaming(*pieces), recognisers=[Broken()]), STREAM_REQUEST)
    assert answer.body == b"".join(pieces)
    flags = json.loads(accounts.journal()[-1].cause)["flags"]
    assert flags == ["answer_unread"]
