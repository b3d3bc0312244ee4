"""What a message of Anthropic's may cost, and what its answers say they used."""

import json
from typing import Any

import anthropic
import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest
from ducto_redis.middleware.recognisers import AnthropicMessages, AnthropicTokenCounting
from tests.middleware.asgi import streaming
from tests.middleware.recognisers.reading import JSON, charge_of, event, reader_of, request_of, usage_of
from tests.middleware.serving import serve

API = AnthropicMessages()
MESSAGES = [{"role": "user", "content": "hello"}]
REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7, streams=True)
PLAIN = {"input_tokens": 10, "output_tokens": 20}
START = event("message_start", message={"type": "message", "content": [], "usage": {**PLAIN, "output_tokens": 1}})
OPEN = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
CLOSE = event("content_block_stop", index=0)
STOP = event("message_stop")


def text(written: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": written})


def end(**usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)


def answer(usage: Any, **more: Any) -> Charge | None:
    document = {"type": "message", "content": [{"type": "text", "text": "x" * 40}], "usage": usage, **more}
    return charge_of(API, json.dumps(document).encode(), content_type=JSON, request=REQUEST)


def stream(*events: bytes, complete: bool = True) -> Charge | None:
    return charge_of(API, *events, request=REQUEST, complete=complete)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (PLAIN, PLAIN),
        # The cache lies beside the input.
        (
            {**PLAIN, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 50},
            {"input_tokens": 360, "output_tokens": 20, "cache_read_tokens": 300, "cache_write_tokens": 50},
        ),
        (
            {
                **PLAIN,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            },
            {"input_tokens": 60, "output_tokens": 20, "cache_write_tokens": 50, "cache_write_1h_tokens": 30},
        ),
        ({**PLAIN, "output_tokens_details": {"thinking_tokens": 15}}, {**PLAIN, "reasoning_tokens": 15}),
        (
            {**PLAIN, "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}},
            {**PLAIN, "web_search_calls": 3},
        ),
        ({**PLAIN, "server_tool_use": {"code_execution_requests": 2}}, {**PLAIN, "code_exec_calls": 2}),
        (
            {**PLAIN, "cache_creation": None, "cache_read_input_tokens": None, "server_tool_use": None},
            PLAIN,
        ),
        ({"input_tokens": 0, "output_tokens": 0}, {}),
    ],
)
def test_the_usage_of_a_message(reported: dict[str, Any], expected: dict[str, int]) -> None:
    """Totals, and parts inside them; an explicit zero stays zero."""
    assert usage_of(answer(reported)) == expected


def test_a_compaction_is_charged_beside_the_totals() -> None:
    """What a compaction used stands in `iterations` only, and is billed."""
    iterations = [
        {"type": "compaction", "input_tokens": 180, "output_tokens": 35, "cache_read_input_tokens": 5,
         "cache_creation_input_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 2}},
        {"type": "message", "input_tokens": 10, "output_tokens": 20},
    ]  # fmt: skip
    assert usage_of(answer({**PLAIN, "iterations": iterations})) == {
        "input_tokens": 197,
        "output_tokens": 55,
        "cache_read_tokens": 5,
        "cache_write_tokens": 2,
        "cache_write_1h_tokens": 2,
    }


def test_an_advisor_is_flagged() -> None:
    """What another model was asked is no part of the totals, and not passed over in silence."""
    iterations = [{"type": "advisor_message", "model": "other", "input_tokens": 900, "output_tokens": 90}]
    assert usage_of(answer({**PLAIN, "iterations": iterations}), "advisor_not_charged") == PLAIN


@pytest.mark.parametrize("details", [{"thinking_tokens": 21}, {"thinking_tokens": -1}, {"thinking_tokens": "5"}, []])
def test_parts_that_make_no_sense_are_left_out(details: Any) -> None:
    """A part above its total, or that is no count, is flagged and priced as the rest."""
    assert usage_of(answer({**PLAIN, "output_tokens_details": details}), "usage_invalid") == PLAIN


@pytest.mark.parametrize("usage", [{"input_tokens": 10}, {"input_tokens": 1.5, "output_tokens": 2}, [], "many"])
def test_garbage_instead_of_usage_is_counted(usage: Any) -> None:
    """Without usable totals prompt and text are counted, a token for four bytes."""
    charge = answer(usage)
    assert charge is not None
    assert "usage_counted" in charge.flags
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == (7, 10)


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({**PLAIN, "service_tier": "priority"}, "priority"),
        ({**PLAIN, "service_tier": "standard", "speed": "fast"}, "fast"),
        ({**PLAIN, "service_tier": "standard", "speed": "standard"}, "standard"),
        (PLAIN, None),
    ],
)
def test_the_tier(usage: dict[str, Any], tier: str | None) -> None:
    """The tier is the one that served the request; fast mode is one of its own, with its own price."""
    charge = answer(usage)
    assert charge is not None
    assert charge.usage.service_tier == tier


def test_a_stream_repeats_its_usage() -> None:
    """Totals of a stream are cumulative: the last of each counts, nothing is summed."""
    start = {**PLAIN, "output_tokens": 1, "cache_read_input_tokens": 5, "service_tier": "standard"}
    first = event("message_start", message={"content": [], "usage": start})
    assert usage_of(stream(first, OPEN, text("hello"), CLOSE, end(output_tokens=20), STOP)) == {
        "input_tokens": 15,
        "output_tokens": 20,
        "cache_read_tokens": 5,
    }
    unknown = end(input_tokens=None, cache_read_input_tokens=None, output_tokens=20)
    assert usage_of(stream(first, OPEN, text("hello"), CLOSE, unknown, STOP))["cache_read_tokens"] == 5
    last = end(input_tokens=30, cache_read_input_tokens=8, output_tokens=20, server_tool_use={"web_search_requests": 2})
    assert usage_of(stream(first, OPEN, text("hello"), CLOSE, last, STOP)) == {
        "input_tokens": 38,
        "output_tokens": 20,
        "cache_read_tokens": 8,
        "web_search_calls": 2,
    }


def test_a_cut_stream_is_charged_what_came() -> None:
    """The first event reports the input; the text since is counted, of whatever kind it is."""
    events = [START, OPEN, event("ping"), text("x" * 40)]
    assert usage_of(stream(*events, complete=False), "interrupted", "usage_counted") == PLAIN | {"output_tokens": 10}
    thinking = event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "x" * 20})
    arguments = event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "x" * 20})
    assert usage_of(stream(START, thinking, arguments, complete=False), "interrupted", "usage_counted") == {
        "input_tokens": 10,
        "output_tokens": 10,
    }


def test_results_of_tools_are_no_output() -> None:
    """What a search found is delivered, but was not written by the model."""
    found = event(
        "content_block_start",
        index=0,
        content_block={"type": "web_search_tool_result", "content": [{"title": "x" * 400}]},
    )
    assert usage_of(stream(START, found, complete=False), "interrupted") == {"input_tokens": 10, "output_tokens": 1}


def test_an_error_inside_a_stream() -> None:
    """An error in place of an answer costs nothing; after one began, what came is charged."""
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    assert stream(error) is None
    assert usage_of(stream(START, OPEN, text("x" * 40), error), "usage_counted") == {
        "input_tokens": 10,
        "output_tokens": 10,
    }
    assert (
        charge_of(API, b'{"type": "error", "error": {"type": "api_error"}}', content_type=JSON, request=REQUEST) is None
    )


@pytest.mark.parametrize("events", [[START], [START, OPEN, text("x")]])
def test_the_usage_is_known_at_the_end_only(events: list[bytes]) -> None:
    """Before the final totals a model may have reasoned unseen."""
    assert not reader_of(API, *events, request=REQUEST, finish=False).knows_usage
    assert reader_of(API, *events, end(output_tokens=9), request=REQUEST, finish=False).knows_usage


@pytest.mark.parametrize(
    "events",
    [
        [START],
        [START, OPEN],
        [START, OPEN, text("x" * 40)],
        [START, OPEN, text("x" * 40), CLOSE],
        [START, OPEN, CLOSE, event("content_block_start", index=1, content_block={
            "type": "tool_use", "id": "t", "name": "f", "input": {}}), event(
            "content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a": "b'})],
    ],
)  # fmt: skip
async def test_the_ending_is_one_that_the_client_understands(events: list[bytes]) -> None:
    """A stream that is ended in the middle is a whole message for the real client."""
    head = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    begin = event("message_start", message={**head, "stop_sequence": None, "usage": {**PLAIN, "output_tokens": 1}})
    events = [begin, *events[1:]]
    ending = reader_of(API, *events, request=REQUEST, finish=False).ending()
    assert ending is not None
    async with serve(streaming(*events, ending)) as port:
        client = anthropic.AsyncAnthropic(api_key="k", base_url=f"http://127.0.0.1:{port}")
        prompt: Any = MESSAGES
        async with client, client.messages.stream(model="m", max_tokens=5, messages=prompt) as stream:
            kinds = [part.type async for part in stream]
            message = await stream.get_final_message()
    assert kinds.count("content_block_start") == kinds.count("content_block_stop")
    assert kinds[-1] == "message_stop"
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == (10 if text("x" * 40) in events else message.usage.output_tokens)
    assert message.usage.input_tokens == 10


def test_nothing_ends_a_stream_that_has_not_begun_or_is_over() -> None:
    """There is no ending before the first event, nor after the last."""
    assert reader_of(API, request=REQUEST, finish=False).ending() is None
    assert reader_of(API, START, end(output_tokens=1), STOP, request=REQUEST, finish=False).ending() is None


def read(body: dict[str, Any], path: str = "/v1/messages", **options: Any) -> MeteredRequest:
    return request_of(AnthropicMessages(**options), body, path)


def test_what_is_held() -> None:
    """All of the body as input, at a token a byte, and `max_tokens`."""
    body = {"model": "m", "max_tokens": 300, "messages": MESSAGES}
    request = read(body)
    assert request.estimate == UsageMetrics(
        model="m", input_tokens=len(json.dumps(body)), output_tokens=300, operation="chat"
    )
    assert (request.output_limit, request.streams, request.may_reason_hidden) == (300, False, False)
    assert read({"model": "m", "messages": MESSAGES}).estimate.output_tokens == 50
    assert read({"model": "m", "max_tokens": 0, "messages": MESSAGES}).estimate.output_tokens == 0


def test_what_is_held_for_the_cache() -> None:
    """A request that writes to the cache may write all of its input, which costs more; a token a byte covers that."""
    counting = Estimates(count_tokens=lambda model, text: len(text) // 4)
    cached = [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}]
    assert read({"model": "m", "messages": cached}).estimate.cache_write_tokens == 0
    estimate = request_of(API, {"model": "m", "messages": cached}, estimates=counting).estimate
    assert estimate.cache_write_tokens == estimate.input_tokens > 0
    assert estimate.cache_write_1h_tokens == 0
    cached[0]["content"][0]["cache_control"]["ttl"] = "1h"  # type: ignore[index]
    estimate = request_of(API, {"model": "m", "messages": cached}, estimates=counting).estimate
    assert estimate.cache_write_1h_tokens == estimate.input_tokens


def test_what_is_held_for_tools() -> None:
    """Each use of the provider's own tools may bring in tokens, and searches are charged by the call."""
    tools = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "web_fetch_20250910", "name": "web_fetch"},
        {"name": "mine", "input_schema": {}},
    ]
    body = {"model": "m", "messages": MESSAGES, "tools": tools}
    estimate = read(body, server_tool_uses=2, server_tool_tokens=1000).estimate
    assert estimate.input_tokens == len(json.dumps(body)) + 5 * 1000
    assert estimate.web_search_calls == 3


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 9000}}, 500),
        ({"type": "image", "source": {"type": "url", "url": "http://image"}}, 500),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, 500),
        ({"type": "document", "source": {"type": "base64", "data": "x" * 9000}}, 9000),
        ({"type": "document", "source": {"type": "url", "url": "http://file"}}, 700),
    ],
)
def test_media(block: dict[str, Any], tokens: int) -> None:
    """Images count as such, wherever they stand; documents by their bytes, or by a setting."""
    for content in ([block], [{"type": "tool_result", "content": [block]}]):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
        estimate = request_of(AnthropicMessages(image_tokens=500, file_tokens=700), body.encode()).estimate
        assert 0 <= len(body) - 9000 * ("xxx" in body) + tokens - estimate.input_tokens < 20


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("claude-sonnet-4-5", None, False),
        ("claude-3-7-sonnet-latest", None, False),
        ("claude-sonnet-4-5", {"type": "enabled", "budget_tokens": 1024}, True),
        ("claude-opus-4-6", {"type": "adaptive"}, True),
        ("claude-sonnet-5", None, True),
        ("claude-sonnet-5", {"type": "disabled"}, False),
        ("mine", None, False),
    ],
)
def test_hidden_reasoning(model: str, thinking: Any, expected: bool) -> None:
    """Thinking is shown in part or not at all; newer models think unless they are told not to."""
    body = {"model": model, "messages": MESSAGES, "stream": True, "thinking": thinking}
    request = read(body)
    assert (request.may_reason_hidden, request.streams) == (expected, True)


@pytest.mark.parametrize(
    ("body", "limit", "expected"),
    [
        ({"max_tokens": 5000}, 300, {"max_tokens": 300}),
        ({}, 300, {"max_tokens": 300}),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
            2000,
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
        ),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
            1024,
            {"max_tokens": 1024, "thinking": {"type": "disabled"}},
        ),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
            2000,
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
    ],
)
def test_a_lowered_limit(body: dict[str, Any], limit: int, expected: dict[str, Any]) -> None:
    """The application gets a lower limit, and a budget for thinking that fits into it."""
    sent = json.dumps({"messages": MESSAGES, "temperature": 0.10, **body}).encode()
    lowered = API.application_body(sent, request_of(API, sent), limit)
    assert json.loads(lowered) == {"messages": MESSAGES, "temperature": 0.1, **expected}
    assert API.application_body(sent, request_of(API, sent), None) is sent


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"model": ""}, None),
        ({"model": "x" * 129}, "model"),
        ({"tools": {}}, "tools"),
    ],
)
def test_bad_requests(body: dict[str, Any], param: str | None) -> None:
    """What makes no sense is named; an empty model is none."""
    if param is None:
        assert read(body).estimate.model is None
        return
    with pytest.raises(BadRequestError) as refused:
        read(body)
    assert refused.value.param == param


def test_routes() -> None:
    """The API is recognised behind any prefix and on Vertex AI; its batches and token counting are something else."""
    vertex = "/v1/projects/p/locations/l/publishers/anthropic/models/"
    counting = AnthropicTokenCounting()
    for path in ("/v1/messages", "/anthropic/v1/messages/", f"{vertex}claude@1:rawPredict"):
        assert API.matches(path)
        assert not counting.matches(path)
    for path in ("/v1/messages/batches", "/v1/threads/t/messages", "/v1/complete", f"{vertex}claude:predict"):
        assert not API.matches(path)
        assert not counting.matches(path)
    for path in ("/v1/messages/count_tokens", f"{vertex}count-tokens:rawPredict"):
        assert counting.matches(path)
        assert not API.matches(path)
    assert counting.free
    request = read({"messages": MESSAGES}, f"{vertex}claude-x@20250514:streamRawPredict")
    assert (request.estimate.model, request.streams) == ("claude-x@20250514", True)


def test_a_tokeniser_counts_text_only() -> None:
    """With a tokeniser the prompt is its text, without the bytes of images."""
    seen: list[str] = []

    def count(model: str | None, text: str) -> int:
        seen.append(text)
        return 3

    block = {"type": "image", "source": {"type": "base64", "data": "secret"}}
    body = {"model": "m", "system": "be brief", "messages": [{"role": "user", "content": [block]}]}
    request = request_of(AnthropicMessages(image_tokens=500), body, estimates=Estimates(count_tokens=count))
    assert request.estimate.input_tokens == 503
    assert request.counted_input_tokens == 3 + 125
    assert "be brief" in seen[0]
    assert "secret" not in seen[0]
