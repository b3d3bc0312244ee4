"""What a request to Ollama may cost, and what its answers say they used."""

import json
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, MeteredRequest, Refusal
from ducto_redis.middleware.recognisers import Ollama, OllamaEmbed
from tests.middleware.recognisers.reading import JSON, charge_of, cuts_of, reader_of, request_of, usage_of

API = Ollama()
LINES = b"application/x-ndjson"
REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7)
HEAD = {"model": "llama", "created_at": "2026-01-01T00:00:00Z"}
END = {**HEAD, "message": {"role": "assistant", "content": ""}, "done": True, "prompt_eval_count": 10, "eval_count": 20}
TOTALS = {"input_tokens": 10, "output_tokens": 20}
COUNTED = {"input_tokens": 7, "output_tokens": 10}


def line(**fields: Any) -> bytes:
    return json.dumps({**HEAD, **fields}).encode() + b"\n"


def chat(written: str, **more: Any) -> bytes:
    return line(message={"role": "assistant", "content": written, **more}, done=False)


def stream(*lines: bytes, complete: bool = True) -> Charge | None:
    return charge_of(API, *lines, content_type=LINES, request=REQUEST, complete=complete)


def test_the_usage_of_an_answer() -> None:
    """A plain answer reports its counts beside the message; a prompt that was cached may not be counted."""
    assert usage_of(charge_of(API, json.dumps(END).encode(), content_type=JSON, request=REQUEST)) == TOTALS
    cached = {name: value for name, value in END.items() if name != "prompt_eval_count"}
    charge = charge_of(API, json.dumps(cached).encode(), content_type=JSON, request=REQUEST)
    assert usage_of(charge, "usage_counted") == {"input_tokens": 7, "output_tokens": 20}
    invalid = {**END, "eval_count": -1, "response": "x" * 40}
    charge = charge_of(API, json.dumps(invalid).encode(), content_type=JSON, request=REQUEST)
    assert usage_of(charge, "usage_invalid", "usage_counted") == COUNTED


def test_a_stream_of_lines() -> None:
    """The last line reports the usage, wherever the stream is cut."""
    for pieces in cuts_of(b"".join([chat("hello"), chat(" you"), json.dumps(END).encode() + b"\n"])):
        assert usage_of(stream(*pieces)) == TOTALS


def test_a_cut_stream_is_counted() -> None:
    """Text, thinking and calls of tools are counted."""
    lines = [line(response="x" * 8, done=False), chat("x" * 10, thinking="x" * 10), chat("", tool_calls=["x" * 8])]
    assert usage_of(stream(*lines, complete=False), "interrupted", "usage_counted") == COUNTED


def test_an_error_inside_a_stream() -> None:
    """An error in place of an answer costs nothing; after one began, what came is charged."""
    assert stream(b'{"error": "no"}\n') is None
    assert usage_of(stream(chat("x" * 40), b'{"error": "no"}\n'), "usage_counted") == COUNTED


@pytest.mark.parametrize("first", [chat("x" * 40), line(response="x" * 40, done=False)])
def test_the_ending(first: bytes) -> None:
    """A stream that is ended in the middle ends with a line as the model's own."""
    ending = reader_of(API, first, content_type=LINES, request=REQUEST, finish=False).ending()
    assert ending is not None
    last = json.loads(ending)
    assert last.keys() - {"done_reason", "eval_count", "prompt_eval_count"} == json.loads(first).keys()
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert usage_of(stream(first, ending)) == COUNTED
    whole = json.dumps(END).encode() + b"\n"
    assert reader_of(API, first, whole, content_type=LINES, request=REQUEST, finish=False).ending() is None


def test_what_is_held() -> None:
    """All of the body as input, and `num_predict`, where it is a limit; answers are streams unless told otherwise."""
    body: dict[str, Any] = {"model": "llama", "prompt": "hello", "options": {"num_predict": 300}}
    request = request_of(API, body)
    assert request.estimate == UsageMetrics(
        model="llama", input_tokens=len(json.dumps(body)), output_tokens=300, operation="chat"
    )
    assert (request.output_limit, request.streams) == (300, True)
    assert not request_of(API, {"stream": False}).streams
    assert request_of(API, {"options": {"num_predict": -1}}).output_limit is None
    assert json.loads(API.application_body(json.dumps(body).encode(), request, 70))["options"] == {"num_predict": 70}
    body = {"messages": [{"role": "user", "content": "hello", "images": ["x" * 900, "x" * 900]}]}
    held = request_of(Ollama(image_tokens=500), body).estimate.input_tokens
    assert held == len(json.dumps(body)) - 2 * 900 + 2 * 500
    with pytest.raises(BadRequestError, match="num_predict"):
        request_of(API, {"options": {"num_predict": 2**60}})
    assert API.error_body(Refusal(402, "insufficient_credits", "no"))["error"] == "no"


def test_embeddings() -> None:
    """Embeddings have no output."""
    api = OllamaEmbed()
    request = request_of(api, {"model": "e", "input": ["hello"]})
    assert (request.estimate.output_tokens, request.estimate.operation) == (0, "embeddings")
    answer = {"model": "e", "embeddings": [[1]], "prompt_eval_count": 4}
    assert usage_of(charge_of(api, json.dumps(answer).encode(), content_type=JSON, request=request)) == {
        "input_tokens": 4
    }


def test_routes() -> None:
    """Chat, generation and embeddings are recognised."""
    for path in ("/api/chat", "/ollama/api/generate"):
        assert API.matches(path)
        assert not OllamaEmbed().matches(path)
    assert OllamaEmbed().matches("/api/embed")
    assert not API.matches("/api/show")
