"""What a request for embeddings may cost, and what its answer says it used."""

import json
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAIEmbeddings

VECTORS = [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}]


def read(estimates: Estimates | None = None, **body: Any) -> MeteredRequest:
    encoded = json.dumps({"model": "m", **body}, separators=(",", ":")).encode()
    return OpenAIEmbeddings().read_request(ApiRequest(body=encoded), estimates or Estimates())


def answer(document: Any, *, complete: bool = True) -> Charge | None:
    reader = OpenAIEmbeddings().read_response(read(input="x" * 38), Estimates())
    reader.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reader.charge(complete=complete)


def test_paths() -> None:
    """The end of the path decides."""
    assert OpenAIEmbeddings().matches("/v1/embeddings")
    assert not OpenAIEmbeddings().matches("/v1/embeddings/x")


@pytest.mark.parametrize(
    ("given", "held", "counted"),
    [
        ("hello", len(b'{"model":"m","input":"hello"}'), 2),
        (["hello", "you"], len(b'{"model":"m","input":["hello","you"]}'), 4),
        ([1, 2, 300_000], 3, 3),
        ([[1, 2], [3, 4, 5]], 5, 5),
        ([{"text": "hello"}], len(b'{"model":"m","input":[{"text":"hello"}]}'), 5),
        ([1, "two"], len(b'{"model":"m","input":[1,"two"]}'), 3),
        ([True], len(b'{"model":"m","input":[true]}'), 2),
    ],
)
def test_the_input(given: Any, held: int, counted: int) -> None:
    """Texts hold a token per byte; tokens are counted; there is no output."""
    request = read(input=given)
    assert request.estimate == UsageMetrics(model="m", input_tokens=held, operation="embedding")
    assert request.counted_input_tokens == counted


def test_bad_requests() -> None:
    """A body that is no JSON object is refused, and so is a model that can't be one."""
    for body, param in ((b"[]", None), (b'{"model": 3}', "model"), (b'{"model": "\\u0000"}', "model")):
        with pytest.raises(BadRequestError) as refused:
            OpenAIEmbeddings().read_request(ApiRequest(body=body), Estimates())
        assert refused.value.param == param


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 4, "total_tokens": 4},
        {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
        {"total_tokens": 4},
        {"input_tokens": 4, "total_tokens": 5},
        {"prompt_tokens": None, "total_tokens": 4.0},
    ],
)
def test_the_report_is_charged(usage: dict[str, Any]) -> None:
    """Providers call the input's tokens differently."""
    expected = Charge(UsageMetrics(model="m", input_tokens=4, operation="embedding"))
    assert answer({"object": "list", "data": VECTORS, "usage": usage}) == expected
    odd = b'{"data": [{"embedding": [NaN]}], "usage": %b}' % json.dumps(usage).encode()
    assert answer(odd) == expected


def test_zero_stays_zero() -> None:
    """An explicit zero is a report."""
    assert answer({"data": VECTORS, "usage": {"prompt_tokens": 0, "total_tokens": 0}}) == Charge(
        UsageMetrics(model="m", operation="embedding")
    )


def test_without_a_report_the_input_is_counted() -> None:
    """An answer that reports nothing, or no count, or was cut, costs the input at four bytes a token."""
    counted = UsageMetrics(model="m", input_tokens=10, operation="embedding")
    assert answer({"data": VECTORS}) == Charge(counted, ("usage_counted",))
    assert answer({"data": VECTORS, "usage": {"prompt_tokens": "4"}}) == Charge(
        counted, ("usage_invalid", "usage_counted")
    )
    assert answer({"data": VECTORS, "usage": 4}) == Charge(counted, ("usage_invalid", "usage_counted"))
    cut = answer(b'{"data": [{"embedding": [0.1, ', complete=False)
    assert cut == Charge(counted, ("interrupted", "usage_counted"))


def test_an_error_costs_nothing() -> None:
    """An error in place of an answer is not charged."""
    assert answer({"error": {"message": "overloaded"}}) is None
