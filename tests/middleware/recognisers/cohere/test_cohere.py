"""What a request to Cohere may cost, and what its answers say they used."""

import json
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, MeteredRequest, Refusal
from ducto_redis.middleware.recognisers import CohereChat, CohereEmbed, CohereRerank
from tests.middleware.recognisers.reading import JSON, charge_of, cuts_of, event, reader_of, request_of, usage_of

API = CohereChat()
MESSAGES = [{"role": "user", "content": "hello"}]
REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7)
BILLED = {
    "billed_units": {"input_tokens": 10, "output_tokens": 20},
    "tokens": {"input_tokens": 90, "output_tokens": 22},
}
TOTALS = {"input_tokens": 10, "output_tokens": 20}
COUNTED = {"input_tokens": 7, "output_tokens": 10}

START = event("message-start", id="1", delta={"message": {"role": "assistant", "content": []}})
OPEN = event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
CLOSE = event("content-end", index=0)


def text(written: str) -> bytes:
    return event("content-delta", index=0, delta={"message": {"content": {"text": written}}})


def end(**delta: Any) -> bytes:
    return event("message-end", delta={"finish_reason": "COMPLETE", **delta})


def plain(usage: Any, api: Any = API, **more: Any) -> Charge | None:
    document = {"message": {"role": "assistant", "content": [{"type": "text", "text": "x" * 40}]}, **more}
    if usage is not None:
        document["usage"] = usage
    return charge_of(api, json.dumps(document).encode(), content_type=JSON, request=REQUEST)


def stream(*events: bytes, complete: bool = True) -> Charge | None:
    return charge_of(API, *events, request=REQUEST, complete=complete)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # What Cohere adds to the prompt, and so what it cached of that, is not billed.
        ({**BILLED, "cached_tokens": 64}, TOTALS),
        ({"billed_units": {"input_tokens": 10.0, "output_tokens": 20.0}}, TOTALS),
        ({"billed_units": {"input_tokens": 10, "search_units": 2}}, {"input_tokens": 10, "search_queries": 2}),
        (
            {"tokens": {"input_tokens": 90, "output_tokens": 22}, "cached_tokens": 64},
            {"input_tokens": 90, "output_tokens": 22, "cache_read_tokens": 64},
        ),
        ({"billed_units": {"input_tokens": 0, "output_tokens": 0}}, {}),
    ],
)
def test_the_usage_of_an_answer(usage: dict[str, Any], expected: dict[str, int]) -> None:
    """Billed units count; all tokens only where those are missing."""
    assert usage_of(plain(usage)) == expected


def test_the_usage_of_version_1() -> None:
    """Version 1 reports the same under another name."""
    document = {"text": "x" * 40, "meta": {"api_version": {"version": "1"}, **BILLED}}
    assert usage_of(charge_of(API, json.dumps(document).encode(), content_type=JSON, request=REQUEST)) == TOTALS
    lines = [
        {"event_type": "stream-start", "is_finished": False},
        {"event_type": "text-generation", "text": "x" * 40, "is_finished": False},
        {"event_type": "stream-end", "is_finished": True, "response": {"text": "x" * 40, "meta": BILLED}},
    ]
    sent = [json.dumps(line).encode() + b"\n" for line in lines]
    assert usage_of(charge_of(API, *sent, content_type=b"application/stream+json", request=REQUEST)) == TOTALS
    cut = charge_of(API, *sent[:2], content_type=b"application/stream+json", request=REQUEST, complete=False)
    assert usage_of(cut, "interrupted", "usage_counted") == COUNTED


@pytest.mark.parametrize(
    "usage", [{"billed_units": {"input_tokens": -1}}, {"billed_units": {"input_tokens": 0.5}}, [], {}]
)
def test_garbage_instead_of_usage_is_counted(usage: Any) -> None:
    """Without usable totals prompt and text are counted, a token for four bytes."""
    assert usage_of(plain(usage), "usage_invalid", "usage_counted") == COUNTED


def test_a_stream_reports_at_its_end() -> None:
    """The last event reports the usage, wherever the stream is cut."""
    body = b"".join([START, OPEN, text("hello"), CLOSE, end(usage=BILLED), b"data: [DONE]\n\n"])
    for pieces in cuts_of(body):
        assert usage_of(stream(*pieces)) == TOTALS


def test_a_cut_stream_is_counted() -> None:
    """Text, thinking, plans and calls of tools are counted; citations are not."""
    plan = event("tool-plan-delta", delta={"message": {"tool_plan": "x" * 10}})
    tool = event("tool-call-start", index=0, delta={"message": {"tool_calls": {"function": {"name": "x" * 10}}}})
    arguments = event(
        "tool-call-delta", index=0, delta={"message": {"tool_calls": {"function": {"arguments": "x" * 10}}}}
    )
    thinking = event("content-delta", index=0, delta={"message": {"content": {"thinking": "x" * 10}}})
    citation = event("citation-start", index=0, delta={"message": {"citations": {"text": "x" * 90}}})
    charge = stream(START, plan, tool, arguments, thinking, citation, complete=False)
    assert usage_of(charge, "interrupted", "usage_counted") == COUNTED


def test_an_error_inside_a_stream() -> None:
    """A stream that ends with an error and nothing before costs nothing."""
    assert stream(START, end(finish_reason="ERROR", error="no")) is None
    assert usage_of(stream(START, OPEN, text("x" * 40), end(error="no")), "usage_counted") == COUNTED


@pytest.mark.parametrize("events", [[START], [START, OPEN, text("x" * 40)], [START, OPEN, text("x" * 40), CLOSE]])
def test_the_ending(events: list[bytes]) -> None:
    """A stream that is ended in the middle closes what is open, and reports what it used."""
    ending = reader_of(API, *events, request=REQUEST, finish=False).ending()
    assert ending is not None
    kinds = [line for line in ending.decode().split("\n") if line.startswith("event")]
    assert kinds == ["event: content-end"] * (len(events) == 3) + ["event: message-end"]
    assert ending.endswith(b"\n\ndata: [DONE]\n\n")
    expected = COUNTED if len(events) > 1 else {"input_tokens": 7}
    assert usage_of(stream(*events, ending)) == expected
    assert reader_of(API, START, end(usage=BILLED), request=REQUEST, finish=False).ending() is None


def test_what_is_held() -> None:
    """All of the body as input, and `max_tokens`."""
    body = {"model": "command-a", "messages": MESSAGES, "max_tokens": 300, "stream": True}
    request = request_of(API, body)
    assert request.estimate == UsageMetrics(
        model="command-a", input_tokens=len(json.dumps(body)), output_tokens=300, operation="chat"
    )
    assert (request.output_limit, request.streams, request.may_reason_hidden) == (300, True, False)
    assert request_of(API, {"model": "command-a-reasoning-08-2025"}).may_reason_hidden
    assert json.loads(API.application_body(json.dumps(body).encode(), request, 70))["max_tokens"] == 70
    with pytest.raises(BadRequestError, match="max_tokens"):
        request_of(API, {"max_tokens": 0})
    assert API.error_body(Refusal(402, "insufficient_credits", "no"))["message"] == "no"
    part = {"type": "image_url", "image_url": {"url": "x" * 9000}}
    body = {"messages": [{"role": "user", "content": [part]}]}
    assert request_of(CohereChat(image_tokens=500), body).estimate.input_tokens == len(json.dumps(body)) - 9000 + 500


def test_embeddings() -> None:
    """Embeddings are charged their billed tokens and images."""
    api = CohereEmbed(image_tokens=500)
    request = request_of(api, {"model": "embed", "images": ["x" * 9000, "x" * 9000], "input_type": "image"})
    assert 1000 < request.estimate.input_tokens < 1100
    assert request.estimate.output_tokens == 0
    answer = {"embeddings": {"float": [[1]]}, "meta": {"billed_units": {"images": 2}}}
    assert usage_of(charge_of(api, json.dumps(answer).encode(), content_type=JSON, request=request)) == {"images": 2}
    request = request_of(api, {"model": "embed", "texts": ["hello"]})
    found = charge_of(api, b'{"embeddings": [[1.5]]}', content_type=JSON, request=request)
    assert usage_of(found, "usage_counted") == {"input_tokens": 3}


def test_rankings() -> None:
    """A ranking costs a search unit for every hundred documents, or what it reports."""
    api = CohereRerank()
    request = request_of(api, {"model": "rerank", "query": "q", "documents": ["d"] * 101})
    assert request.estimate.search_queries == 2
    answer: dict[str, Any] = {"results": [], "meta": {"billed_units": {"search_units": 1}}}
    assert usage_of(charge_of(api, json.dumps(answer).encode(), content_type=JSON, request=request)) == {
        "search_queries": 1
    }
    other = {"results": [], "usage": {"total_tokens": 815}}
    assert usage_of(charge_of(api, json.dumps(other).encode(), content_type=JSON, request=request)) == {
        "input_tokens": 815
    }
    silent = charge_of(api, b'{"results": []}', content_type=JSON, request=request)
    assert usage_of(silent, "usage_counted")["search_queries"] == 2


def test_routes() -> None:
    """Chat of version 2, embeddings and rankings are recognised."""
    assert API.matches("/cohere/v2/chat")
    assert not API.matches("/v1/chat")
    for version in "12":
        assert CohereEmbed().matches(f"/v{version}/embed")
        assert CohereRerank().matches(f"/v{version}/rerank")
    assert not CohereEmbed().matches("/embed")
