"""What a request for speech may cost, and what its answer says it used."""

import json
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAISpeech


def speech(*events: Any, document: bytes | None = None, complete: bool = True) -> Charge | None:
    body = json.dumps({"model": "m", "input": "0123456789", "voice": "alloy"}).encode()
    reader = OpenAISpeech().read_response(OpenAISpeech().read_request(ApiRequest(body=body), Estimates()), Estimates())
    if document is not None:
        reader.document(document)
    for event in events:
        reader.event(ServerSentEvent(b"", json.dumps(event).encode()))
    return reader.charge(complete=complete)


def test_the_worst_case() -> None:
    """Characters as they are, a token per byte of text, four tokens of sound for a character."""
    body = {"model": "m", "input": "Grüße", "instructions": "calm", "stream_format": "sse"}
    request = OpenAISpeech().read_request(ApiRequest(body=json.dumps(body).encode()), Estimates())
    assert request.estimate == UsageMetrics(
        model="m",
        input_tokens=7 + 1 + 4,
        output_tokens=20,
        audio_output_tokens=20,
        input_characters=5,
        operation="speech",
    )
    assert request.streams
    assert request.holds_worst_case
    assert request.answers == 0


@pytest.mark.parametrize("body", [b"{}", b'{"input": ""}', b'{"input": 3}', b'{"input": "x", "model": ""}'])
def test_bad_requests(body: bytes) -> None:
    """There must be a text, and a model that can be one."""
    with pytest.raises(BadRequestError):
        OpenAISpeech().read_request(ApiRequest(body=body), Estimates())


def test_sound_is_charged_by_its_text() -> None:
    """Sound reports nothing: its characters are exact, its tokens counted, be it whole or cut."""
    counted = UsageMetrics(
        model="m",
        input_tokens=3,
        output_tokens=14,
        audio_output_tokens=14,
        input_characters=10,
        operation="speech",
    )
    assert speech(document=b"\xff\xfb\x90\x00") == Charge(counted, ("usage_counted",))
    assert speech(document=b"\xff", complete=False) == Charge(counted, ("interrupted", "usage_counted"))


def test_a_stream_reports() -> None:
    """Its last event has the tokens."""
    usage = {"input_tokens": 4, "output_tokens": 101, "total_tokens": 105}
    reported = UsageMetrics(
        model="m",
        input_tokens=4,
        output_tokens=101,
        audio_output_tokens=101,
        input_characters=10,
        operation="speech",
    )
    done = {"type": "speech.audio.done", "usage": usage}
    assert speech({"type": "speech.audio.delta", "audio": "AAAA"}, done) == Charge(reported)
    assert speech(done, complete=False) == Charge(reported)


def test_an_error_costs_nothing() -> None:
    """An error in place of sound is not charged."""
    assert speech(document=b'{"error": {"message": "overloaded"}}') is None
    assert speech({"error": {"message": "overloaded"}}) is None
