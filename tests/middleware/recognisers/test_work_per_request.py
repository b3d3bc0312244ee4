"""Reading a request and its answer is on every request's way, and takes few calls."""

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ducto_redis
from ducto_redis.middleware import Estimates, Recogniser
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import AnthropicMessages, OpenAIChat

PACKAGE = str(Path(ducto_redis.__file__).parent)

CHAT_ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
}
MESSAGE = {
    "type": "message",
    "content": [{"type": "text", "text": "hello"}],
    "usage": {"input_tokens": 9, "cache_read_input_tokens": 0, "output_tokens": 3, "service_tier": "standard"},
}


@pytest.mark.parametrize(
    ("recogniser", "answer"), [(OpenAIChat(), CHAT_ANSWER), (AnthropicMessages(), MESSAGE)], ids=["openai", "anthropic"]
)
def test_calls(recogniser: Recogniser, answer: Any) -> None:
    """A JSON request and its JSON answer are read in 20 calls of ours, without those that make the reader."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            calls.append(frame.f_code.co_qualname)

    messages = [{"role": "user", "content": "hi"}]
    asked = ApiRequest(body=json.dumps({"model": "m", "max_tokens": 7, "messages": messages}).encode())
    body, estimates = json.dumps(answer).encode(), Estimates()
    recogniser.read_request(asked, estimates)  # names are checked once
    sys.setprofile(note)
    try:
        request = recogniser.read_request(asked, estimates)
    finally:
        sys.setprofile(None)
    reader = recogniser.read_response(request, estimates)
    sys.setprofile(note)
    try:
        reader.document(body)
        charge = reader.charge(complete=True)
    finally:
        sys.setprofile(None)
    assert charge is not None
    assert charge.usage.input_tokens == 9
    assert 2 < len(calls) <= 20, calls
