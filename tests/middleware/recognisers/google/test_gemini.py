"""What a request to Gemini may cost, and what its answers say they used."""

import json
from typing import Any

import pytest
from google.genai import types

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, MeteredRequest
from ducto_redis.middleware.recognisers import Gemini, GeminiEmbeddings, GeminiTokenCounting, VertexPredict
from ducto_redis.middleware.recognisers.google.content_response import GeminiRequest
from tests.middleware.recognisers.reading import JSON, charge_of, cuts_of, data, reader_of, request_of, usage_of

API = Gemini()
PLAIN_PATH = "/v1beta/models/gemini-x:generateContent"
STREAM_PATH = "/v1beta/models/gemini-x:streamGenerateContent"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/"
CONTENTS = [{"role": "user", "parts": [{"text": "hello"}]}]
REQUEST = GeminiRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7)
ARRAY = GeminiRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7, array=True)
COUNTED = {"promptTokenCount": 10, "candidatesTokenCount": 20}
TOTALS = {"input_tokens": 10, "output_tokens": 20}


def answer(written: str = "", usage: Any = None, **more: Any) -> dict[str, Any]:
    parts = [{"text": written}] if written else []
    document = {"candidates": [{"content": {"role": "model", "parts": parts}, **more}]}
    return document if usage is None else {**document, "usageMetadata": usage}


def plain(document: Any) -> Charge | None:
    return charge_of(API, json.dumps(document).encode(), content_type=JSON, request=REQUEST)


def stream(*documents: Any, complete: bool = True) -> Charge | None:
    return charge_of(API, *map(data, documents), request=REQUEST, complete=complete)


def modality(kind: str, tokens: int) -> dict[str, Any]:
    return {"modality": kind, "tokenCount": tokens}


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (COUNTED, TOTALS),
        ({**COUNTED, "thoughtsTokenCount": 7}, {"input_tokens": 10, "output_tokens": 27, "reasoning_tokens": 7}),
        ({"thoughtsTokenCount": 7}, {"output_tokens": 7, "reasoning_tokens": 7}),
        (
            {**COUNTED, "toolUsePromptTokenCount": 30},
            {"input_tokens": 40, "output_tokens": 20, "tool_prompt_tokens": 30},
        ),
        ({**COUNTED, "cachedContentTokenCount": 6}, {**TOTALS, "cache_read_tokens": 6}),
        (
            {
                **COUNTED,
                "cachedContentTokenCount": 6,
                "promptTokensDetails": [modality("TEXT", 2), modality("AUDIO", 5), modality("IMAGE", 3)],
                "cacheTokensDetails": [modality("AUDIO", 4), modality("TEXT", 2)],
                "candidatesTokensDetails": [modality("AUDIO", 12), modality("IMAGE", 8)],
            },
            {
                **TOTALS,
                "cache_read_tokens": 6,
                "audio_input_tokens": 5,
                "image_input_tokens": 3,
                "cache_read_audio_tokens": 4,
                "audio_output_tokens": 12,
                "image_output_tokens": 8,
            },
        ),
        (
            {**COUNTED, "toolUsePromptTokenCount": 9, "toolUsePromptTokensDetails": [modality("IMAGE", 9)],
             "promptTokensDetails": [modality("IMAGE", 1)]},
            {"input_tokens": 19, "output_tokens": 20, "tool_prompt_tokens": 9, "image_input_tokens": 10},
        ),
        ({"promptTokenCount": 10}, {"input_tokens": 10}),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0}, {}),
    ],
)  # fmt: skip
def test_the_usage_of_an_answer(reported: dict[str, Any], expected: dict[str, int]) -> None:
    """Thoughts are output beside the candidates, results of tools input beside the prompt; the cache is inside it."""
    assert usage_of(plain(answer(usage=reported))) == expected


@pytest.mark.parametrize(
    "odd",
    [
        {"cachedContentTokenCount": 11},
        {"promptTokensDetails": [modality("AUDIO", 11)]},
        {"promptTokensDetails": {}},
        {"candidatesTokensDetails": [modality("AUDIO", -1)]},
    ],
)
def test_parts_that_make_no_sense_are_left_out(odd: dict[str, Any]) -> None:
    """A part above its total, or that is no count, is flagged and priced as the rest."""
    assert usage_of(plain(answer(usage={**COUNTED, **odd})), "usage_invalid") == TOTALS


@pytest.mark.parametrize("usage", [{"promptTokenCount": -1}, {"candidatesTokenCount": "x"}, "many", []])
def test_garbage_instead_of_usage_is_counted(usage: Any) -> None:
    """Without usable totals prompt and text are counted, a token for four bytes."""
    counted = {"input_tokens": 7, "output_tokens": 10}
    assert usage_of(plain(answer("x" * 40, usage)), "usage_invalid", "usage_counted") == counted


def test_no_usage_is_counted() -> None:
    """What reports nothing is counted: text, calls of functions and code, whatever shape it has."""
    assert usage_of(plain(answer("x" * 40)), "usage_counted") == {"input_tokens": 7, "output_tokens": 10}
    parts = [{"functionCall": {"name": "f", "args": {}}}, {"executableCode": {"code": "x" * 20}}]
    document = {"candidates": [{"content": {"parts": parts}}]}
    assert usage_of(plain(document), "usage_counted") == {"input_tokens": 7, "output_tokens": 11}
    assert usage_of(plain({"mine": "x" * 28}), "usage_counted") == {"input_tokens": 7, "output_tokens": 10}


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({"serviceTier": "standard"}, "standard"),
        ({"serviceTier": "PRIORITY"}, "priority"),
        ({"trafficType": "ON_DEMAND"}, "standard"),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned_throughput"),
        ({}, None),
    ],
)
def test_the_tier(usage: dict[str, Any], tier: str | None) -> None:
    """Both of Google's APIs name the same tier alike."""
    charge = plain(answer(usage={**COUNTED, **usage}))
    assert charge is not None
    assert charge.usage.service_tier == tier


def test_a_stream_repeats_its_usage() -> None:
    """Every event reports the totals so far; those that carry only the kind of traffic report nothing."""
    events = [
        answer("Hel", {"trafficType": "ON_DEMAND"}),
        answer("lo", {"promptTokenCount": 12, "totalTokenCount": 12}),
        answer(" you", {**COUNTED, "thoughtsTokenCount": 5}, finishReason="STOP"),
    ]
    charge = stream(*events)
    assert usage_of(charge) == {"input_tokens": 10, "output_tokens": 25, "reasoning_tokens": 5}
    assert charge is not None
    assert charge.usage.service_tier == "standard"


def test_a_cut_stream_is_charged_what_came() -> None:
    """The first events report the prompt only: their text is counted."""
    silent = [answer("x" * 40, {"trafficType": "ON_DEMAND"})]
    nothing = {"input_tokens": 7, "output_tokens": 10}
    assert usage_of(stream(*silent, complete=False), "interrupted", "usage_counted") == nothing
    events = [answer("x" * 20, {"promptTokenCount": 10}), answer("x" * 20, {"promptTokenCount": 10})]
    counted = {"input_tokens": 10, "output_tokens": 10}
    assert usage_of(stream(*events, complete=False), "interrupted", "usage_counted") == counted
    reader = reader_of(API, *map(data, events), request=REQUEST, finish=False)
    assert not reader.knows_usage
    later = [*events, answer("x" * 20, COUNTED)]
    assert usage_of(stream(*later, complete=False), "interrupted") == TOTALS
    assert reader_of(API, *map(data, later), request=REQUEST, finish=False).knows_usage


def test_an_empty_event_covers_what_was_reported_before() -> None:
    """A last event that reports the prompt only takes nothing back, and has nothing to be counted."""
    events = [answer("x" * 400, COUNTED), answer("", {"promptTokenCount": 10}, finishReason="STOP")]
    assert usage_of(stream(*events)) == TOTALS


def test_an_array_is_a_stream() -> None:
    """Without `alt=sse` the events are the elements of an array, wherever it is cut."""
    events = [answer("Hel]{", {"promptTokenCount": 10}), answer("lo\\", COUNTED, finishReason="STOP")]
    body = json.dumps(events, indent=2).encode()
    for pieces in cuts_of(body):
        assert usage_of(charge_of(API, *pieces, content_type=JSON, request=ARRAY)) == TOTALS


def test_an_error_inside_a_stream() -> None:
    """An error in place of an answer costs nothing; after one began, what came is charged."""
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    assert stream(error) is None
    assert plain(error) is None
    counted = {"input_tokens": 7, "output_tokens": 10}
    assert usage_of(stream(answer("x" * 40), error), "usage_counted") == counted


def test_web_searches() -> None:
    """A grounded answer is one web search, and a query for each that differs and is not empty."""
    grounded = {"webSearchQueries": ["a", "b", "", "a"], "imageSearchQueries": ["c"]}
    events = [
        answer("x", COUNTED, groundingMetadata={"webSearchQueries": ["a"]}),
        answer("y", COUNTED, groundingMetadata=grounded),
    ]
    assert usage_of(stream(*events)) == {**TOTALS, "web_search_calls": 1, "search_queries": 3}
    file_search = {"groundingChunks": [{"retrievedContext": {"text": "x"}}]}
    assert usage_of(plain(answer("x", COUNTED, groundingMetadata=file_search))) == TOTALS


@pytest.mark.parametrize("usage", [None, COUNTED])
def test_the_ending_is_one_that_the_client_understands(usage: Any) -> None:
    """A stream that is ended in the middle ends as one that reached its limit, as events or as an array."""
    first = answer("x" * 40, usage)
    ending = reader_of(API, data(first), request=REQUEST, finish=False).ending()
    assert ending is not None
    assert ending.startswith(b"data: ")
    assert ending.endswith(b"\n\n")
    parsed = types.GenerateContentResponse.model_validate_json(ending[6:])
    assert parsed.candidates is not None
    assert parsed.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    started = b"[" + json.dumps(first).encode()
    ending = reader_of(API, started, content_type=JSON, request=ARRAY, finish=False).ending()
    assert ending is not None
    assert [item["candidates"][0].get("finishReason") for item in json.loads(started + ending)] == [None, "MAX_TOKENS"]


def read(body: dict[str, Any], path: str = PLAIN_PATH, query: bytes = b"", **options: Any) -> MeteredRequest:
    return request_of(Gemini(**options), body, path, query)


def test_what_is_held() -> None:
    """All of the body as input, and the limit, for every candidate; the model is in the path."""
    config = {"maxOutputTokens": 300, "candidateCount": 2}
    body = {"contents": CONTENTS, "generationConfig": config, "serviceTier": "FLEX"}
    request = read(body)
    assert request.estimate == UsageMetrics(
        model="gemini-x",
        input_tokens=len(json.dumps(body)),
        output_tokens=600,
        operation="chat",
        service_tier="flex",
    )
    assert (request.output_limit, request.answers, request.streams) == (300, 2, False)
    assert read({"contents": CONTENTS}).estimate.output_tokens == 50
    assert read({"contents": CONTENTS}, "/mine", default_model="m").estimate.model == "m"


def test_both_spellings_of_a_field() -> None:
    """Google takes `max_output_tokens` too, so it must not escape."""
    body = {"contents": CONTENTS, "generation_config": {"max_output_tokens": 3000, "candidate_count": 2}}
    request = read(body)
    assert request.estimate.output_tokens == 6000
    sent = json.dumps(body).encode()
    assert json.loads(API.application_body(sent, request, 70)) == {
        "contents": CONTENTS,
        "generation_config": {"max_output_tokens": 70, "candidate_count": 2},
    }


def test_a_lowered_limit() -> None:
    """The application gets a lower limit, also where the request set none."""
    sent = json.dumps({"contents": CONTENTS}).encode()
    lowered = json.loads(API.application_body(sent, request_of(API, sent, PLAIN_PATH), 70))
    assert lowered == {"contents": CONTENTS, "generationConfig": {"maxOutputTokens": 70}}
    assert API.application_body(sent, request_of(API, sent, PLAIN_PATH), None) is sent


@pytest.mark.parametrize(
    ("path", "query", "streams", "array"),
    [
        (PLAIN_PATH, b"", False, False),
        (STREAM_PATH, b"alt=sse", True, False),
        (STREAM_PATH, b"key=k&alt=sse", True, False),
        (STREAM_PATH, b"", True, True),
    ],
)
def test_the_format_of_a_stream(path: str, query: bytes, streams: bool, array: bool) -> None:
    """The path says whether an answer is a stream, and the query in which format."""
    request = read({"contents": CONTENTS}, path, query)
    assert isinstance(request, GeminiRequest)
    assert (request.streams, request.array) == (streams, array)


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "x" * 9600}}, 500),
        ({"inline_data": {"mime_type": "image/png", "data": "x" * 9600}}, 500),
        ({"inlineData": {"mimeType": "audio/mp3", "data": "x" * 9600}}, 300),
        ({"inlineData": {"mimeType": "application/pdf", "data": "x" * 9600}}, 9600),
        ({"fileData": {"mimeType": "video/mp4", "fileUri": "http://film"}}, 700),
    ],
)
def test_media(part: dict[str, Any], tokens: int) -> None:
    """Images count as such, sound by its bytes, files by their bytes or a setting."""
    body = json.dumps({"contents": [{"parts": [part]}]})
    estimate = request_of(Gemini(image_tokens=500, file_tokens=700), body.encode(), PLAIN_PATH).estimate
    assert 0 <= len(body) - 9600 * ("xxx" in body) + tokens - estimate.input_tokens < 20


def test_what_is_held_for_tools_and_cached_content() -> None:
    """What tools bring in, searches, and content that the request only names are held too."""
    options = {"server_tool_uses": 2, "server_tool_tokens": 1000, "file_tokens": 700}
    body: dict[str, Any] = {"contents": CONTENTS, "tools": [{"googleSearch": {}}], "cachedContent": "c/1"}
    estimate = read(body, **options).estimate
    assert estimate.input_tokens == len(json.dumps(body)) + 2 * 1000 + 700
    assert (estimate.web_search_calls, estimate.search_queries) == (1, 2)
    body = {"contents": CONTENTS, "tools": [{"functionDeclarations": []}]}
    assert read(body, **options).estimate.input_tokens == len(json.dumps(body))


@pytest.mark.parametrize(
    ("model", "config", "expected"),
    [
        ("gemini-2.5-flash", {}, True),
        ("gemini-3-pro-preview", {}, True),
        ("gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}, False),
        ("gemini-2.0-flash", {}, False),
        ("gemini-1.5-pro", {}, False),
        ("mine", {}, False),
    ],
)
def test_hidden_reasoning(model: str, config: dict[str, Any], expected: bool) -> None:
    """Newer models think unless they are told not to."""
    body = {"contents": CONTENTS, "generationConfig": config}
    assert read(body, f"{VERTEX}{model}:generateContent").may_reason_hidden is expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"generationConfig": {"maxOutputTokens": 0}}, "maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": "9"}}, "maxOutputTokens"),
        ({"generationConfig": {"candidateCount": 5000}}, "candidateCount"),
        ({"generationConfig": []}, "generationConfig"),
    ],
)
def test_bad_requests(body: dict[str, Any], param: str) -> None:
    """What makes no sense is named."""
    with pytest.raises(BadRequestError) as refused:
        read(body)
    assert refused.value.param == param


def test_routes() -> None:
    """The API is recognised at both of Google's hosts; counting tokens is free."""
    counting, embeddings, predict = GeminiTokenCounting(), GeminiEmbeddings(), VertexPredict()
    assert counting.free
    known: dict[str, Any] = {
        PLAIN_PATH: API,
        STREAM_PATH: API,
        f"{VERTEX}gemini-x:streamGenerateContent": API,
        "/v1beta/tunedModels/t:generateContent": API,
        "/v1beta/models/gemini-x:countTokens": counting,
        f"{VERTEX}gemini-x:computeTokens": counting,
        "/v1beta/models/e:embedContent": embeddings,
        "/v1beta/models/e:batchEmbedContents": embeddings,
        f"{VERTEX}imagen:predict": predict,
    }
    for path, expected in known.items():
        assert [api for api in (API, counting, embeddings, predict) if api.matches(path)] == [expected]
    for path in ("/v1beta/models/veo:predictLongRunning", "/v1/publishers/anthropic/models/c:rawPredict"):
        assert not any(api.matches(path) for api in (API, counting, embeddings, predict))


def predicted(api: Any, path: str, request: dict[str, Any], document: Any) -> tuple[MeteredRequest, Charge | None]:
    asked = request_of(api, request, path)
    return asked, charge_of(api, json.dumps(document).encode(), content_type=JSON, request=asked)


def test_embeddings() -> None:
    """Embeddings are charged the tokens that they report, else the input as counted; never any output."""
    path, body = "/v1beta/models/e:embedContent", {"content": {"parts": [{"text": "hello"}]}}
    asked, charge = predicted(GeminiEmbeddings(), path, body, {"embedding": {"values": [1]}})
    assert asked.estimate == UsageMetrics(model="e", input_tokens=len(json.dumps(body)), operation="embeddings")
    assert usage_of(charge, "usage_counted") == {"input_tokens": -(-len(json.dumps(body)) // 4)}
    reported = {"embeddings": [{"values": [1]}], "usageMetadata": {"promptTokenCount": 3}}
    assert usage_of(predicted(GeminiEmbeddings(), path, body, reported)[1]) == {"input_tokens": 3}


def test_predictions() -> None:
    """Images are charged by their number, embeddings of Vertex AI by the tokens and characters that they report."""
    path, api = f"{VERTEX}imagen:predict", VertexPredict()
    body = {"instances": [{"prompt": "a cat"}], "parameters": {"sampleCount": 3}}
    image = {"mimeType": "image/png", "bytesBase64Encoded": "x"}
    asked, charge = predicted(api, path, body, {"predictions": [image, image, {"raiFilteredReason": "no"}]})
    assert (asked.estimate.model, asked.estimate.images) == ("imagen", 3)
    assert usage_of(charge) == {"images": 2}
    body = {"instances": [{"content": "a"}, {"content": "b"}]}
    found = [{"embeddings": {"statistics": {"token_count": tokens, "truncated": False}}} for tokens in (4, 5.0)]
    document = {"predictions": found, "metadata": {"billableCharacterCount": 11}}
    asked, charge = predicted(api, path, body, document)
    assert asked.estimate.images == 0
    assert usage_of(charge) == {"input_tokens": 9, "input_characters": 11}
