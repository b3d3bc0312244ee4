"""What a request for a completion of the older kind may cost, and what its answer says it used."""

import json
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAICompletions


def read(estimates: Estimates | None = None, **body: Any) -> MeteredRequest:
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return OpenAICompletions().read_request(ApiRequest(body=encoded), estimates or Estimates())


def answer(document: Any, **body: Any) -> Charge | None:
    reader = OpenAICompletions().read_response(read(model="m", **body), Estimates())
    reader.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reader.charge(complete=True)


def stream(*chunks: Any, complete: bool = True, **body: Any) -> Charge | None:
    reader = OpenAICompletions().read_response(read(model="m", stream=True, **body), Estimates())
    for chunk in chunks:
        reader.event(ServerSentEvent(b"", chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()))
    return reader.charge(complete=complete)


def text(text: str, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": text, "finish_reason": None}]}


def test_paths() -> None:
    """The older API is told from that of chats, whatever stands before it."""
    matches = OpenAICompletions().matches
    assert matches("/v1/completions")
    assert matches("/openai/deployments/x/completions/")
    assert not matches("/v1/chat/completions")
    assert not matches("/v1/chat/completions/")
    assert not matches("/v1/completions/x")


@pytest.mark.parametrize(
    ("body", "output", "answers"),
    [
        ({"prompt": "hi"}, 16, 1),
        ({"prompt": "hi", "max_tokens": 100}, 100, 1),
        ({"prompt": "hi", "max_tokens": 0, "echo": True}, 0, 1),
        ({"prompt": "hi", "max_tokens": 100, "n": 3}, 300, 3),
        ({"prompt": "hi", "max_tokens": 100, "n": 2, "best_of": 5}, 500, 5),
        ({"prompt": ["a", "b"], "max_tokens": 100, "n": 2}, 400, 4),
        ({"prompt": [1, 2, 3], "max_tokens": 100}, 100, 1),
        ({"prompt": [[1, 2], [3]], "max_tokens": 100}, 200, 2),
        ({"prompt": [], "max_tokens": 100}, 100, 1),
        ({"max_tokens": 5000}, 1000, 1),
    ],
)
def test_the_worst_output(body: dict[str, Any], output: int, answers: int) -> None:
    """The limit, 16 where none is set, for every choice of every prompt that is made, shown or not."""
    request = read(Estimates(max_tokens_ceiling=1000), **body)
    assert (request.estimate.output_tokens, request.answers) == (output, answers)
    assert request.holds_worst_case is ("best_of" in body)


def test_the_prompt() -> None:
    """A text holds a token per byte of the body; tokens are what they are; a suffix is read with each prompt."""
    assert read(prompt="hello").estimate.input_tokens == len(b'{"prompt":"hello"}')
    assert read(prompt=["hello", "you"]).estimate.input_tokens == len(b'{"prompt":["hello","you"]}')
    tokens = read(prompt=[[1, 2, 3], [400_000]])
    assert (tokens.estimate.input_tokens, tokens.counted_input_tokens) == (4, 4)
    assert read(prompt=[[1], [2]], suffix="12345678").estimate.input_tokens == 2 + 2 * 10


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"best_of": 5000}, "best_of"),
        ({"model": ""}, "model"),
        ({"max_tokens": 2**53 - 1, "n": 2}, "max_tokens"),
    ],
)
def test_bad_requests(body: dict[str, Any], param: str) -> None:
    """Limits that are none are refused."""
    with pytest.raises(BadRequestError) as refused:
        read(**body)
    assert refused.value.param == param


def test_the_report_is_charged() -> None:
    """What an answer or the last chunk reports is charged, as for chats."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
    expected = Charge(
        UsageMetrics(model="m", input_tokens=5, output_tokens=7, cache_read_tokens=4, operation="completion")
    )
    assert answer({"object": "text_completion", **text("hello"), "usage": usage}) == expected
    assert stream(text("a"), text("b"), {"choices": [], "usage": usage}, b"[DONE]") == expected


def test_without_a_report_the_text_is_counted() -> None:
    """All choices' text is counted; a prompt that is echoed is no output."""
    both = {"choices": [{"index": 0, "text": "x" * 40}, {"index": 1, "text": "y" * 40}]}
    charge = answer(both, prompt="p" * 38)
    assert charge is not None
    assert (charge.usage.input_tokens, charge.usage.output_tokens, charge.flags) == (10, 20, ("usage_counted",))
    charge = answer(text("p" * 40 + "x" * 40), prompt="p" * 38, echo=True)
    assert charge is not None
    assert charge.usage.output_tokens == 10
    charge = stream(text("x" * 8), text("y" * 8), complete=False)
    assert charge is not None
    assert (charge.usage.output_tokens, charge.flags) == (4, ("interrupted", "usage_counted"))


def test_an_error_costs_nothing() -> None:
    """An error in place of an answer is not charged."""
    assert answer({"error": {"message": "overloaded"}}) is None
