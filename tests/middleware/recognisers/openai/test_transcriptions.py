"""What a request for a transcript may cost, and what its answer says it used."""

import json
import struct
from typing import Any

import httpx
import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.recognisers import OpenAITranscriptions

TOKENS = {
    "type": "tokens",
    "input_tokens": 20,
    "input_token_details": {"text_tokens": 6, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 65,
}


def wav(seconds: float, rate: int = 32_000) -> bytes:
    """A file whose second takes `rate` bytes."""
    data = b"\0" * int(seconds * rate)
    form = (16, 1, 1, rate // 2, rate, 2, 16)
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", *form, b"data", len(data)) + data


def read(sound: bytes = b"\xff\xfb" * 8_000, **fields: str) -> MeteredRequest:
    request = httpx.Request("POST", "http://app", data={"model": "m", **fields}, files={"file": ("f.mp3", sound)})
    headers = Headers([(b"content-type", request.headers["content-type"].encode())])
    return OpenAITranscriptions().read_request(ApiRequest(headers=headers, body=request.read()), Estimates())


def transcript(document: Any, *, complete: bool = True, sound: bytes = b"\xff\xfb" * 8_000) -> Charge | None:
    reader = OpenAITranscriptions().read_response(read(sound), Estimates())
    reader.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reader.charge(complete=complete)


def streamed(*events: dict[str, Any], complete: bool = True) -> Charge | None:
    reader = OpenAITranscriptions().read_response(read(stream="true"), Estimates())
    for event in events:
        reader.event(ServerSentEvent(b"", json.dumps(event).encode()))
    return reader.charge(complete=complete)


def heard(**more: Any) -> UsageMetrics:
    return UsageMetrics(**{"model": "m", "operation": "transcription"} | more)


def test_paths() -> None:
    """Both belong to it."""
    matches = OpenAITranscriptions().matches
    assert matches("/v1/audio/transcriptions")
    assert matches("/v1/audio/translations/")
    assert not matches("/v1/audio/speech")


def test_the_worst_case() -> None:
    """A second for every thousand bytes, ten tokens a second, and the prompt."""
    request = read(prompt="names")
    assert request.estimate == heard(audio_seconds=16, input_tokens=160 + 5, audio_input_tokens=160, output_tokens=160)
    assert not request.streams
    assert read(stream="true").streams
    long = read(b"\0" * 5_000_000).estimate
    assert (long.audio_seconds, long.output_tokens) == (5000, 4096)


def test_a_wav_file_says_how_long_it_is() -> None:
    """Its header decides, not its size."""
    assert read(wav(2.5)).estimate.audio_seconds == 3
    assert read(wav(2.5, rate=8_000)).estimate.audio_seconds == 3
    assert read(b"RIFF....WAVEfmt " + b"\0" * 20).estimate.audio_seconds == 1


def test_json() -> None:
    """A request of another provider gives the sound as base64, or its address."""
    request = OpenAITranscriptions().read_request(
        ApiRequest(body=b'{"model": "m", "file": "%b"}' % (b"A" * 5000)), Estimates()
    )
    assert request.estimate.audio_seconds == 6


@pytest.mark.parametrize("model", ["", "x" * 200])
def test_bad_models(model: str) -> None:
    """A name that no model can have is refused; none at all is the default's."""
    if model:
        with pytest.raises(BadRequestError):
            read(model=model)
    else:
        assert read(model=model).estimate.model is None


def test_the_report_is_charged() -> None:
    """Tokens or seconds, as the model is billed."""
    tokens = heard(input_tokens=20, audio_input_tokens=14, output_tokens=45)
    assert transcript({"text": "hello", "usage": TOKENS}) == Charge(tokens)
    for seconds in (9, 9.0, 8.2):
        usage = {"type": "duration", "seconds": seconds}
        assert transcript({"text": "hello", "duration": 8.1, "usage": usage}) == Charge(heard(audio_seconds=9))
    zero = {"type": "duration", "seconds": 0}
    assert transcript({"text": "", "usage": zero}) == Charge(heard())


def test_a_stream() -> None:
    """Its last event reports."""
    delta = {"type": "transcript.text.delta", "delta": "hello"}
    done = {"type": "transcript.text.done", "text": "hello", "usage": TOKENS}
    tokens = heard(input_tokens=20, audio_input_tokens=14, output_tokens=45)
    assert streamed(delta, delta, done) == Charge(tokens)
    assert streamed(delta, done, complete=False) == Charge(tokens)
    cut = streamed(delta, delta, complete=False)
    assert cut == Charge(
        heard(input_tokens=10, audio_input_tokens=10, output_tokens=3, audio_seconds=1),
        ("interrupted", "usage_counted"),
    )


@pytest.mark.parametrize(
    ("document", "seconds", "output"),
    [
        ({"text": "x" * 40}, 1, 10),
        ({"text": "x" * 40, "duration": 8.4}, 9, 10),
        ({"text": "x" * 40, "duration": "8.4"}, 9, 10),
        ({"text": "x" * 40, "duration": "long", "usage": {"seconds": -1}}, 1, 10),
        (b"x" * 40, 1, 10),
        (b"1\n00:00:00,000 --> 00:00:03,200\nhi\n\n2\n00:01:03,000 --> 00:01:05,000\nyou\n", 65, 18),
        (b"WEBVTT\n\n00:00.000 --> 00:03.200\nhi\n\n01:00:00.000 --> 01:00:01.500\nyou\n", 3602, 18),
    ],
)
def test_without_a_report(document: Any, seconds: int, output: int) -> None:
    """The length that the answer names decides, or its last subtitle; else the file's size, at 128 kbit/s."""
    charge = transcript(document)
    assert charge is not None
    assert charge.flags[-1] == "usage_counted"
    usage = charge.usage
    assert (usage.audio_seconds, usage.input_tokens, usage.audio_input_tokens) == (
        seconds,
        10 * seconds,
        10 * seconds,
    )
    assert usage.output_tokens == output


def test_an_error_costs_nothing() -> None:
    """An error in place of a transcript is not charged."""
    assert transcript({"error": {"message": "overloaded"}}) is None
    assert streamed({"error": {"message": "overloaded"}}) is None
