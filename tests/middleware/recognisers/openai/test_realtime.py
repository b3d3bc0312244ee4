"""What a Realtime session says about its usage."""

import json
from typing import Any

import pytest

from ducto_redis import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, Refusal, SessionReader
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.recognisers import OpenAIRealtime
from tests.middleware.sockets import created, done, handshake, transcribed

API = OpenAIRealtime(hold_input_tokens=100, hold_output_tokens=10)


def reader(query: bytes = b"model=voice", estimates: Estimates | None = None) -> SessionReader:
    return API.read_session(api_request(handshake(query=query)), Estimates() if estimates is None else estimates)


def sent(session: SessionReader, *events: dict[str, Any]) -> list[Charge]:
    charges = [session.sent(json.dumps(event)) for event in events]
    return [charge for charge in charges if charge is not None]


def usage(input_tokens: int, output_tokens: int, **parts: int) -> UsageMetrics:
    return UsageMetrics("voice", input_tokens, output_tokens, operation="realtime", **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "model"),
    [(b"model=voice&x=1", "voice"), (b"api-version=1&deployment=mine", "mine"), (b"model=a%2Fb", "a/b"), (b"", None)],
)
def test_model(query: bytes, model: str | None) -> None:
    """The query names the model, Azure's its deployment."""
    assert reader(query).next_estimate().model == model


def test_no_model() -> None:
    """A name that none can have is refused."""
    with pytest.raises(BadRequestError):
        reader(b"model=" + b"x" * 200)


def test_worst_case() -> None:
    """All tokens of the next response may be sound, and its input is at least what was said so far."""
    session = reader()
    assert session.next_estimate() == usage(100, 10, audio_input_tokens=100, audio_output_tokens=10)
    sent(session, done((150, 30)))
    assert session.next_estimate() == usage(180, 10, audio_input_tokens=180, audio_output_tokens=10)


def test_parts() -> None:
    """Text, sound, pictures, and what of them was cached."""
    details = {
        "text_tokens": 119, "audio_tokens": 13, "image_tokens": 5, "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
    }  # fmt: skip
    output = {"text_tokens": 30, "audio_tokens": 91}
    event = done((137, 121), input_token_details=details, output_token_details=output)
    parts = {
        "cache_read_tokens": 64, "audio_input_tokens": 13, "image_input_tokens": 5, "audio_output_tokens": 91,
        "cache_read_audio_tokens": 4,
    }  # fmt: skip
    assert sent(reader(), created(), event) == [Charge(usage(137, 121, **parts))]


def test_parts_that_make_no_sense() -> None:
    """A part above its total is left out and flagged."""
    event = done((10, 20), input_token_details={"audio_tokens": 11})
    assert sent(reader(), event) == [Charge(usage(10, 20), ("usage_invalid",))]


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
def test_what_broke_off(status: str) -> None:
    """A response that broke off is charged what it reports, zero included."""
    assert sent(reader(), done((10, 5), status=status)) == [Charge(usage(10, 5))]
    assert sent(reader(), done((0, 0), status=status)) == [Charge(usage(0, 0))]


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_what_failed_without_usage(status: str) -> None:
    """One that failed and reports none costs nothing, and the session is between responses."""
    session = reader()
    assert sent(session, created(), done(None, status=status)) == []
    assert session.between_work
    assert session.unfinished() is None


@pytest.mark.parametrize(
    ("report", "flags"), [(None, ()), ("free", ("usage_invalid",)), ({"input_tokens": 1}, ("usage_invalid",))]
)
def test_completed_without_usage(report: Any, flags: tuple[str, ...]) -> None:
    """One that completed and reports none, or garbage, is counted."""
    event = done(None)
    event["response"]["usage"] = report
    text = {"type": "response.output_text.delta", "delta": "x" * 40}
    assert sent(reader(), created(), text, event) == [Charge(usage(0, 10), ("usage_counted", *flags))]


def roomy() -> SessionReader:
    return OpenAIRealtime().read_session(api_request(handshake()), Estimates())


def test_no_more_than_was_held() -> None:
    """What is counted costs no more than was held for it."""
    session = reader()
    session.received("x" * 10_000)
    sent(session, created(), {"type": "response.output_text.delta", "delta": "x" * 10_000})
    charge = session.unfinished()
    assert charge is not None
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == (100, 10)


@pytest.mark.parametrize("type_last", [False, True])
def test_counted_sound(type_last: bool) -> None:
    """Sound is counted by its time: ten tokens a second of what is heard, twenty of what is said."""
    session = roomy()
    second = "A" * 64_000
    heard: dict[str, Any] = {"type": "input_audio_buffer.append", "audio": second}
    spoken: dict[str, Any] = {"type": "response.output_audio.delta", "delta": second}
    if type_last:
        heard, spoken = dict(reversed(heard.items())), dict(reversed(spoken.items()))
    session.received(json.dumps(heard))
    sent(session, created(), spoken)
    charge = session.unfinished()
    assert charge is not None
    assert (charge.usage.audio_input_tokens, charge.usage.audio_output_tokens) == (11, 21)  # and what is around it
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == (11, 21)
    assert charge.flags == ("interrupted", "usage_counted")


def test_counted_anew() -> None:
    """What came of one response is not counted again with the next."""
    session = reader()
    text = {"type": "response.output_text.delta", "delta": "x" * 40}
    session.received(json.dumps({"type": "response.create"}))
    sent(session, created(), text, done((10, 20)), created("resp_2"))
    charge = session.unfinished()
    assert charge is not None
    assert charge.usage == usage(30, 0)


@pytest.mark.parametrize("name", ["audio.input.transcription", "input_audio_transcription"])
def test_transcription(name: str) -> None:
    """A transcription is charged by the model that the session names, in tokens or seconds, once."""
    session = reader()
    settings: dict[str, Any] = {"model": "ears"}
    for part in reversed(name.split(".")):
        settings = {part: settings}
    tokens = {
        "type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 13},
    }  # fmt: skip
    seconds = {"type": "duration", "seconds": 3.2}
    events = [transcribed(tokens), transcribed(tokens), transcribed(seconds, "item_2")]
    charges = sent(session, {"type": "session.updated", "session": settings}, *events)
    assert charges == [
        Charge(UsageMetrics("ears", 13, 9, operation="realtime", audio_input_tokens=13)),
        Charge(UsageMetrics("ears", operation="realtime", audio_seconds=4)),
    ]


def test_transcription_of_no_named_model() -> None:
    """Without a name it is the model that is set."""
    assert sent(reader(), transcribed({"seconds": 1}))[0].usage.model == "whisper-1"


def test_garbage_transcription() -> None:
    """A transcription whose usage is garbage is counted by what was heard."""
    session = reader()
    session.received(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 6_000}))
    assert sent(session, transcribed({"type": "tokens"}))[0] == Charge(
        UsageMetrics("whisper-1", 1, operation="realtime", audio_input_tokens=1), ("usage_counted", "usage_invalid")
    )


@pytest.mark.parametrize("message", ["", "no json", "[]", "1", b"\xff", '{"type": 5}', '{"type": "response.done"}'])
def test_other_messages(message: str | bytes) -> None:
    """What is no event of the API costs nothing."""
    session = reader()
    session.received(message)
    assert session.sent(message) is None
    assert session.unfinished() is None


def test_error_event() -> None:
    """A refusal is an error event, with all that a program can act on."""
    event = json.loads(API.error_event(Refusal(402, "insufficient_credits", "no", details={"available": "0"})))
    assert event["type"] == "error"
    assert event["event_id"].startswith("event_")
    assert event["error"] == {
        "type": "billing_error", "code": "insufficient_credits", "message": "no", "param": None, "event_id": None,
        "available": "0",
    }  # fmt: skip
