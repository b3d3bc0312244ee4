"""APIs whose usage genai-prices reads."""

import json
import sys
from typing import Any

import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, MeteredRequest
from ducto_redis.middleware.recognisers import GenaiPrices
from tests.middleware.recognisers.reading import JSON, charge_of, data, request_of, usage_of
from tests.middleware.test_recordings import FOLDER, read

REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7)
PERPLEXITY = GenaiPrices("perplexity")
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "num_search_queries": 2}
TOTALS = {"input_tokens": 10, "output_tokens": 20, "web_search_calls": 2}


def plain(api: GenaiPrices, document: Any, request: MeteredRequest = REQUEST) -> Any:
    return charge_of(api, json.dumps(document).encode(), content_type=JSON, request=request)


def test_documents() -> None:
    """Totals, parts and calls get our names."""
    assert usage_of(plain(PERPLEXITY, {"model": "sonar", "usage": USAGE})) == TOTALS
    details = {"cached_tokens": 4, "audio_tokens": 3}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    assert usage_of(plain(GenaiPrices("groq"), {"usage": usage})) == {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_tokens": 4,
        "audio_input_tokens": 3,
        "reasoning_tokens": 8,
    }


def test_streams() -> None:
    """The last event that reports a usage counts; without one the text is counted."""
    text = {"choices": [{"delta": {"content": "x" * 20}}]}
    events = [data({**text, "usage": {**USAGE, "completion_tokens": 1}}), data(text), data({**text, "usage": USAGE})]
    assert usage_of(charge_of(PERPLEXITY, *events, b"data: [DONE]\n\n", request=REQUEST)) == TOTALS
    cut = charge_of(PERPLEXITY, data(text), data(text), request=REQUEST, complete=False)
    assert usage_of(cut, "interrupted", "usage_counted") == {"input_tokens": 7, "output_tokens": 10}
    assert charge_of(PERPLEXITY, data({"error": {"message": "no"}}), request=REQUEST) is None


@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("04_anthropic_200", GenaiPrices("anthropic")),
        ("08_anthropic_stream_200", GenaiPrices("anthropic")),
        ("23_gemini_200", GenaiPrices("google")),
        ("29_gemini_stream_200", GenaiPrices("google")),
        ("39_openai_chat_200", GenaiPrices("openai", "chat")),
    ],
)
def test_recordings(name: str, api: GenaiPrices) -> None:
    """What providers reported is charged, whatever API it is."""
    recording = read(FOLDER / f"{name}.json")
    kind = recording["content_type"].partition(";")[0].lower().encode()
    charge = charge_of(api, recording["body"].encode(), content_type=kind, request=REQUEST)
    assert charge is not None
    reported = recording["reported"]
    assert (charge.usage.input_tokens, charge.usage.output_tokens, charge.usage.cache_read_tokens) == (
        reported["input"],
        reported["output"],
        reported["cache_read"],
    )


def test_own_measures() -> None:
    """A unit that usage has no field for becomes a measure of the pricing document's."""
    api = GenaiPrices("mistral", "ocr", path_end="/v1/ocr", operation_type="ocr", measures={"input_document_pages": 50})
    assert api.matches("/v1/ocr")
    request = request_of(api, {"model": "mistral-ocr-latest", "document": {"type": "document_url"}})
    assert request.estimate.measures == {"input_document_pages": 50}
    assert (request.estimate.output_tokens, request.estimate.operation) == (0, "ocr")
    document = {"pages": [], "usage_info": {"pages_processed": 3, "doc_size_bytes": 9}}
    assert usage_of(plain(api, document, request)) == {"measures": {"input_document_pages": 3}}
    counted = usage_of(plain(api, {"pages": []}, request), "usage_counted")
    assert counted["measures"] == {"input_document_pages": 50}


def test_what_is_held() -> None:
    """All of the body as input, and the largest limit that it names, under any of the usual names."""
    body = {"model": "sonar", "max_tokens": 200, "max_output_tokens": 300, "stream": True}
    request = request_of(PERPLEXITY, body)
    assert request.estimate == UsageMetrics(
        model="sonar", input_tokens=len(json.dumps(body)), output_tokens=300, operation="default"
    )
    assert (request.streams, request.output_limit) == (True, 300)
    assert request_of(GenaiPrices("perplexity", model="mine"), {}).estimate.model == "mine"
    assert request_of(GenaiPrices("perplexity", "embeddings"), {}).estimate.output_tokens == 0
    with pytest.raises(BadRequestError, match="max_tokens"):
        request_of(PERPLEXITY, {"max_tokens": 0})


def test_settings_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown provider or API, a unit that would be lost, and a package that is missing are told at once."""
    with pytest.raises(ConfigError, match="no provider 'nobody'"):
        GenaiPrices("nobody")
    with pytest.raises(ConfigError, match="no API 'x' of groq; it reads 'default'"):
        GenaiPrices("groq", "x")
    with pytest.raises(ConfigError, match="input_document_pages"):
        GenaiPrices("mistral", "ocr")
    with pytest.raises(ConfigError, match="whole number"):
        GenaiPrices("mistral", "ocr", measures={"input_document_pages": -1})
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(ConfigError, match=r"ducto-redis\[prices\]"):
        GenaiPrices("groq")
