"""Recorded answers of real providers, replayed: charged is what the provider reported."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Charge, Estimates, MeteredRequest
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.middleware.asgi import call, sending
from tests.middleware.conftest import Accounts

FOLDER = Path(__file__).parent / "recordings"
RECORDINGS = sorted(FOLDER.glob("*_openai_chat_*.json"), key=lambda path: int(path.name.split("_")[0]))
STREAMS = [path for path in RECORDINGS if "_stream_" in path.name]
EMBEDDINGS = sorted(FOLDER.glob("*_openai_embeddings_*.json"))

CHAT = OpenAIChat()
ESTIMATES = Estimates()


def read(path: Path) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads(path.read_text())
    return recording


def price(reported: dict[str, int]) -> Decimal:
    """What the model "digits" costs: each part has its own digits."""
    return (
        reported["input"] * Decimal("0.000001")
        + reported["output"] * Decimal("0.01")
        + reported["cache_read"] * 100
        + reported["reasoning"] * 1_000_000
    )


def for_client(recording: dict[str, Any]) -> bytes:
    """The recorded body without the event that reports the usage of a stream, where the request did not ask for it."""
    body: str = recording["body"]
    if not recording["stream"] or (recording["request"].get("stream_options") or {}).get("include_usage"):
        return body.encode()
    events = body.split("\n\n")
    return "\n\n".join(event for event in events if '"choices":[],' not in event).encode()


async def replay(
    wrap: Callable[..., ASGIApp],
    recording: dict[str, Any],
    pieces: list[bytes],
    seen: list[dict[str, Any]] | None = None,
) -> bytes:
    request = {**recording["request"], "model": "digits"}
    sends = sending(*pieces, status=recording["status"], content_type=recording["content_type"])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if seen is not None:
            seen.append(json.loads(message["body"]))

        async def again() -> Message:
            return message

        await sends(scope, again, send)

    app = wrap(application)
    answer = await call(app, request, path=recording["path"].partition("?")[0])
    assert answer.status == recording["status"]
    return answer.body


def test_the_recordings_are_there() -> None:
    """The replays below are not empty."""
    assert (len(RECORDINGS), len(STREAMS), len(EMBEDDINGS)) == (62, 11, 3)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_replayed(metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """The charge is what the provider reported, to the last digit; errors cost nothing; no other byte is changed."""
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    recording = read(path)
    body = recording["body"].encode()
    assert await replay(metered, recording, [body]) == for_client(recording)
    charged = before - (await manager.get_balance("u1")).balance
    if recording["status"] >= 400:
        assert charged == 0
    elif recording["reported"] is None:
        settle = Accounts(manager).journal()[-1]
        assert json.loads(settle.cause)["flags"] == ["usage_counted"]
        assert charged > 0
    else:
        assert charged == price(recording["reported"])
        assert not json.loads(Accounts(manager).journal()[-1].cause).get("flags")


@pytest.mark.parametrize("path", EMBEDDINGS, ids=lambda path: path.stem)
async def test_embeddings(metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """The same for embeddings."""
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    recording = read(path)
    body = recording["body"].encode()
    assert await replay(metered, recording, [body[:100], body[100:]]) == body
    charged = before - (await manager.get_balance("u1")).balance
    assert charged == (price(recording["reported"]) if recording["reported"] else 0)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_cut_everywhere(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path, line_end: str
) -> None:
    """In pieces of one byte, and in two, a stream is charged the same, and its client gets the same bytes."""
    recording = read(path)
    body, expected = (
        text.replace(b"\n", line_end.encode()) for text in (recording["body"].encode(), for_client(recording))
    )
    cuts = [[body[i : i + 1] for i in range(len(body))]]
    cuts += [[body[:cut], body[cut:]] for cut in range(1, len(body), 1 + len(body) // 8)]
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    for pieces in cuts:
        assert await replay(metered, recording, pieces) == expected
    assert before - (await manager.get_balance("u1")).balance == price(recording["reported"]) * len(cuts)


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
async def test_usage_is_asked_for(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path, asks: bool
) -> None:
    """The application is asked for the usage; a client that did not ask gets all but the event without choices."""
    recording = read(path)
    request = {name: value for name, value in recording["request"].items() if name != "stream_options"}
    recording["request"] = {**request, "stream_options": {"include_usage": True}} if asks else request
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    seen: list[dict[str, Any]] = []
    body = recording["body"].encode()
    assert await replay(metered, recording, [body], seen) == for_client(recording)
    assert (for_client(recording) == body) is (asks or '"choices":[],' not in recording["body"])
    assert [request["stream_options"] for request in seen] == [{"include_usage": True}]
    assert before - (await manager.get_balance("u1")).balance == price(recording["reported"])


def read_cut(request: MeteredRequest, body: bytes, cut: int) -> tuple[bytes, Charge | None]:
    reader = CHAT.read_response(request, ESTIMATES)
    reading = BodyReading(reader, b"text/event-stream", b"", whole_events=reader.hides_events)
    given = reading.feed(body[:cut]) + reading.feed(body[cut:]) + reading.finish()
    return given, reader.charge(complete=True)


def check_cuts(path: Path, line_end: bytes, every: int) -> None:
    recording = read(path)
    request = CHAT.read_request(ApiRequest(body=json.dumps(recording["request"]).encode()), ESTIMATES)
    body, expected = (text.replace(b"\n", line_end) for text in (recording["body"].encode(), for_client(recording)))
    charge = read_cut(request, body, 0)[1]
    assert charge is not None
    assert charge.flags == ()
    for cut in range(1, len(body), every):
        assert read_cut(request, body, cut) == (expected, charge)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_cut_in_two(path: Path, line_end: bytes) -> None:
    """Wherever a stream is cut in two, what is read of it and what passes are the same."""
    check_cuts(path, line_end, every=29)


@pytest.mark.long
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_cut_in_two_at_every_byte(path: Path, line_end: bytes) -> None:
    """The same at every single byte."""
    check_cuts(path, line_end, every=1)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_stopped_anywhere(path: Path) -> None:
    """A stream that is ended after any of its events has an ending that closes it, with the ids of its chunks."""
    recording = read(path)
    request = CHAT.read_request(ApiRequest(body=json.dumps(recording["request"]).encode()), ESTIMATES)
    events = [event + "\n\n" for event in recording["body"].split("\n\n") if event.startswith("data: {")]
    for most in range(1, len(events)):
        reader = CHAT.read_response(request, ESTIMATES)
        reading = BodyReading(reader, b"text/event-stream", b"", whole_events=True)
        reading.feed("".join(events[:most]).encode())
        ending = reader.ending()
        assert ending is not None
        *last, done = ending.decode().split("\n\n")[:-1]
        assert done == "data: [DONE]"
        sent = [json.loads(event[6:]) for event in events[:most]]
        finished = any(choice.get("finish_reason") for chunk in sent for choice in chunk["choices"])
        assert bool(last) is not finished
        for event in last:
            chunk = json.loads(event.removeprefix("data: "))
            assert {name: chunk[name] for name in ("id", "model", "created", "object")} == {
                name: sent[-1][name] for name in ("id", "model", "created", "object")
            }
            assert [choice["finish_reason"] for choice in chunk["choices"]] == ["length"]
