"""OpenAI Responses: what answers say they used, and how streams end."""

import json
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from ducto_redis import UsageMetrics
from ducto_redis.middleware import Charge, Estimates
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import OpenAIResponses
from ducto_redis.middleware.recognisers.base import MeteredRequest, ResponseReader
from tests.middleware.asgi import scope
from tests.middleware.responses import REQUEST, Events, message, response

API = OpenAIResponses()
ESTIMATES = Estimates()


def request(body: Any = REQUEST, api: OpenAIResponses = API, estimates: Estimates = ESTIMATES) -> MeteredRequest:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.read_request(api_request(scope("/v1/responses"), encoded), estimates)


def reader(body: Any = REQUEST) -> ResponseReader:
    return API.read_response(request(body), ESTIMATES)


def charge_of(document: Any) -> Charge | None:
    """What a plain answer is charged."""
    plain = reader()
    plain.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return plain.charge(complete=True)


def streamed(*events: bytes, complete: bool = True, body: Any = REQUEST) -> Charge | None:
    """What a stream of these events is charged."""
    stream = reader(body)
    reading = BodyReading(stream, b"text/event-stream", b"")
    for event in events:
        reading.feed(event)
    reading.finish()
    return stream.charge(complete=complete)


def usage_of(charge: Charge | None) -> UsageMetrics:
    assert charge is not None
    return charge.usage


def test_parts() -> None:
    """Cached, written and reasoning tokens are parts of the totals."""
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 40},
    }
    charge = charge_of({**response(), "usage": usage})
    expected = UsageMetrics("m", 100, 50, 60, 30, 40, operation="chat", service_tier="default")
    assert charge == Charge(expected)


@pytest.mark.parametrize(
    ("usage", "flags"),
    [
        (
            {"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 6}},
            ("usage_invalid",),
        ),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 11}}, ("usage_invalid",)),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": None}, ()),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": None}}, ()),
    ],
)
def test_parts_that_make_no_sense(usage: dict[str, Any], flags: tuple[str, ...]) -> None:
    """A part above its total is left out and flagged, never charged twice."""
    charge = charge_of({**response(), "usage": usage})
    assert charge is not None
    assert charge.flags == flags
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == (10, 5)
    assert (charge.usage.cache_read_tokens, charge.usage.reasoning_tokens) == (0, 0)


def test_cached_under_another_name() -> None:
    """Perplexity has its own name for what was read from a cache, and counts searches."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "input_tokens_details": {"cache_read_input_tokens": 4},
        "tool_calls_details": {"search_web": {"invocation": 2}},
    }
    found = usage_of(charge_of({**response(), "usage": usage}))
    assert (found.cache_read_tokens, found.web_search_calls) == (4, 2)


def test_reported_as_for_a_chat() -> None:
    """Some providers report the tokens of a response as those of a chat completion."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    found = usage_of(charge_of({**response(), "usage": usage}))
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (10, 5, 4)


def test_explicit_zero() -> None:
    """Zero that is reported stays zero."""
    charge = charge_of(response(used=(0, 0), output=[message("x" * 400)]))
    assert charge == Charge(UsageMetrics("m", operation="chat", service_tier="default"))


OUTPUT: list[dict[str, Any]] = [
    {"id": "1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "a"}},
    {"id": "2", "type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": "b"}},
    {"id": "3", "type": "web_search_call", "status": "completed", "action": {"type": "find_in_page"}},
    {"id": "4", "type": "web_search_call", "status": "completed"},
    {"id": "5", "type": "web_search_call", "status": "failed", "action": {"type": "search"}},
    {"id": "6", "type": "file_search_call", "status": "completed", "queries": ["a", "b"]},
    {"id": "7", "type": "code_interpreter_call", "status": "completed", "container_id": "cntr_1"},
    {"id": "8", "type": "code_interpreter_call", "status": "completed", "container_id": "cntr_1"},
    {"id": "9", "type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_2"}},
    {"id": "10", "type": "shell_call", "environment": {"type": "local"}},
    {"id": "11", "type": "image_generation_call", "status": "completed", "result": "AAAA"},
    {"id": "12", "type": "image_generation_call", "status": "failed"},
    {"id": "13", "type": "mcp_call", "name": "web_search", "arguments": "{}"},
    {"id": "14", "type": "function_call", "name": "web_search", "arguments": "{}"},
]
CALLS = {"web_search_calls": 2, "file_search_calls": 1, "code_exec_calls": 2, "images": 1}


def calls_of(usage: UsageMetrics) -> dict[str, int]:
    return {name: getattr(usage, name) for name in CALLS}


def test_tools() -> None:
    """Searches are charged, not looks at pages; containers, not runs of code; pictures; nothing that failed."""
    assert calls_of(usage_of(charge_of(response(output=OUTPUT)))) == CALLS


def test_tools_of_streams() -> None:
    """The same of a stream, which lists its output at the end."""
    events = Events()
    found = streamed(*events.start(), events.completed(output=OUTPUT))
    assert calls_of(usage_of(found)) == CALLS


@pytest.mark.parametrize("cut", [True, False])
def test_tools_that_pass_by(cut: bool) -> None:
    """Where the end does not list the output, or never comes, calls are counted as they pass."""
    events = Events()
    pieces = [events.event("response.output_item.done", output_index=i, item=item) for i, item in enumerate(OUTPUT)]
    end = [] if cut else [events.completed()]
    assert calls_of(usage_of(streamed(*events.start(), *pieces, *end, complete=not cut))) == CALLS


def test_billable_searches() -> None:
    """Where the provider says how many searches it charges, that counts."""
    found = charge_of(response(output=OUTPUT, tool_usage={"web_search": {"num_requests": 7}}))
    assert usage_of(found).web_search_calls == 7


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_streamed_usage(kind: str) -> None:
    """However a response ended: what its last event reports is charged."""
    events = Events()
    details = {"reason": "max_output_tokens"} if kind == "incomplete" else None
    error = {"code": "server_error", "message": "sorry"} if kind == "failed" else None
    end = events.about(kind, kind, (10, 20), incomplete_details=details, error=error)
    charge = streamed(*events.start(), events.text("x" * 400), end)
    assert charge == Charge(UsageMetrics("m", 10, 20, operation="chat", service_tier="default"))


def test_failed_without_usage() -> None:
    """A response that failed and reports nothing costs nothing, whatever came before."""
    events = Events()
    end = events.about("failed", "failed", error={"code": "server_error", "message": "sorry"})
    assert streamed(*events.start(), events.text("x" * 400), end) is None
    assert charge_of(response("failed", None, error={"code": "server_error", "message": "sorry"})) is None


def test_error_event() -> None:
    """A stream that breaks off with an error has delivered what it has delivered; one that begins with it nothing."""
    events = Events()
    error = events.event("error", code="server_error", message="sorry", param=None)
    charge = streamed(*events.start(), events.text("x" * 400), error)
    assert usage_of(charge).output_tokens == 100
    assert streamed(events.event("error", code="server_error", message="sorry")) is None


@pytest.mark.parametrize(
    "kind",
    [
        "output_text.delta",
        "refusal.delta",
        "reasoning_text.delta",
        "reasoning_summary_text.delta",
        "function_call_arguments.delta",
        "custom_tool_call_input.delta",
        "mcp_call_arguments.delta",
        "code_interpreter_call_code.delta",
        "audio.transcript.delta",
    ],
)
def test_counted(kind: str) -> None:
    """Without a report, all text that came in pieces is counted, once."""
    events = Events()
    pieces = [events.event(f"response.{kind}", output_index=0, delta="x" * 40) for _ in range(10)]
    whole = events.event(f"response.{kind.replace('delta', 'done')}", output_index=0, text="x" * 400)
    item = events.event("response.output_item.done", output_index=0, item=message("x" * 400))
    charge = streamed(*events.start(), *pieces, whole, item, complete=False)
    assert charge is not None
    assert charge.usage.output_tokens == 100
    assert charge.usage.input_tokens == request().counted_input_tokens
    assert charge.flags == ("interrupted", "usage_counted")


def test_counted_items() -> None:
    """What came whole, without pieces, is counted; what runs at the provider is not the model's text."""
    events = Events()
    call = {"id": "fc", "type": "function_call", "name": "look", "arguments": "x" * 396, "status": "completed"}
    searched = {"id": "ws", "type": "file_search_call", "results": [{"text": "x" * 1000}]}
    pieces = [
        events.event("response.output_item.done", output_index=i, item=item) for i, item in enumerate([call, searched])
    ]
    assert usage_of(streamed(*events.start(), *pieces, complete=False)).output_tokens == 100


def test_completed_without_usage() -> None:
    """A whole answer without usage is counted from its output."""
    charge = charge_of(response(used=None, output=[message("x" * 400)]))
    assert charge is not None
    assert (charge.usage.output_tokens, charge.flags) == (100, ("usage_counted",))
    events = Events()
    charge = streamed(*events.start(), events.completed(None, output=[message("x" * 400)]))
    assert charge is not None
    assert (charge.usage.output_tokens, charge.flags) == (100, ("usage_counted",))


def test_sound_is_not_text() -> None:
    """Pieces of sound have bytes, not text."""
    events = Events()
    pieces = [events.event("response.audio.delta", delta="A" * 4000)]
    assert usage_of(streamed(*events.start(), *pieces, complete=False)).output_tokens == 0


@pytest.mark.parametrize("usage", ["free", {"input_tokens": -1, "output_tokens": 1}, {"input_tokens": 1}, []])
def test_garbage(usage: Any) -> None:
    """Garbage instead of usage is flagged, and what was delivered is counted."""
    charge = charge_of({**response(output=[message("x" * 400)]), "usage": usage})
    assert charge is not None
    assert charge.usage.output_tokens == 100
    assert charge.flags == ("usage_invalid", "usage_counted")


@pytest.mark.parametrize(
    "field", ["status", "id", "output", "service_tier", "error", "incomplete_details", "tool_usage"]
)
@pytest.mark.parametrize("garbage", [{}, [], 5, {"a": [1]}, [None], "x", True])
def test_garbage_elsewhere(field: str, garbage: Any) -> None:
    """Garbage in other fields does not change what is charged for tokens."""
    events, document = Events(), {**response(), field: garbage}
    stream = streamed(*events.start(), events.event("response.completed", response=document))
    for charge in (charge_of(document), stream):
        assert charge is not None
        assert (charge.usage.input_tokens, charge.usage.output_tokens, charge.later) == (10, 20, "")


def test_another_shape() -> None:
    """An answer of another shape was delivered as it is."""
    assert usage_of(charge_of(b"x" * 80)).output_tokens == 20


@pytest.mark.parametrize(("said", "charged"), [("priority", "priority"), ("auto", "flex"), (None, "flex")])
def test_service_tier(said: str | None, charged: str) -> None:
    """The tier that served the request is charged; "auto" is none yet."""
    document = response(service_tier=said)
    plain = reader({**REQUEST, "service_tier": "flex"})
    plain.document(json.dumps(document).encode())
    assert usage_of(plain.charge(complete=True)).service_tier == charged


def test_service_tier_of_streams() -> None:
    """A stream begins with the tier that was asked for and ends with the one that served it."""
    events = Events()
    start = events.about("created", "in_progress", service_tier="auto")
    assert usage_of(streamed(start, events.completed(service_tier="priority"))).service_tier == "priority"


def test_compacted() -> None:
    """Compacting has no status, and its usage is charged."""
    document = {
        "id": "resp_1", "object": "response.compaction", "created_at": 1, "output": [],
        "usage": response()["usage"],
    }  # fmt: skip
    assert charge_of(document) == Charge(UsageMetrics("m", 10, 20, operation="chat"))


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_goes_on(status: str) -> None:
    """A response that has not finished is charged later."""
    charge = charge_of(response(status, None, background=True))
    assert charge is not None
    assert charge.later == "resp_1"


def test_cut_in_the_foreground() -> None:
    """A response whose stream was cut is over, unless it runs in the background."""
    for background in (False, True):
        events = Events(background=background)
        charge = streamed(*events.start(), events.text("x" * 40), complete=False)
        assert charge is not None
        assert charge.later == ("resp_1" if background else "")


def test_knows_usage() -> None:
    """Only what was reported says what unseen reasoning cost."""
    stream = reader()
    reading = BodyReading(stream, b"text/event-stream", b"")
    events = Events()
    for event in (*events.start(), events.text("hello")):
        reading.feed(event)
    assert not stream.knows_usage
    reading.feed(events.completed())
    assert stream.knows_usage


# Ending a stream


def ended(*pieces: bytes) -> bytes | None:
    stream = reader()
    reading = BodyReading(stream, b"text/event-stream", b"")
    for piece in pieces:
        reading.feed(piece)
    return stream.ending()


def test_ending() -> None:
    """A stream ends as the API ends one that reached its limit: with what has been delivered, and the next number."""
    events = Events()
    ending = ended(*events.start(), events.text("Hel"), events.text("lo"))
    assert ending is not None
    name, _, data = ending.decode().strip().partition("\ndata: ")
    assert name == "event: response.incomplete"
    event = json.loads(data)
    assert event["sequence_number"] == 6
    cut = event["response"]
    assert (cut["id"], cut["status"], cut["model"]) == ("resp_1", "incomplete", "m-2026")
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert cut["output"] == [message("Hello", "incomplete")]
    assert cut["usage"]["output_tokens"] == 2
    typed: Any = TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert typed.response.output_text == "Hello"


def test_ending_with_halves_of_characters() -> None:
    """What Python's json writes of half a character comes back as it came."""
    events = Events(model="\ud800")
    ending = ended(*events.start(), events.text("\ud83d"))
    assert ending is not None
    assert json.loads(ending.partition(b"data: ")[2])["response"]["model"] == "\ud800"


def test_ending_between_items() -> None:
    """Items that are whole stay; a call that is half written must not be made."""
    events = Events()
    reasoning = {"id": "rs", "type": "reasoning", "summary": []}
    call = {"id": "fc", "type": "function_call", "status": "in_progress", "arguments": "", "name": "f", "call_id": "c"}
    ending = ended(
        events.about("created", "in_progress"),
        events.event("response.output_item.done", output_index=0, item=reasoning),
        events.event("response.output_item.done", output_index=1, item=message("Hi")),
        events.event("response.output_item.added", output_index=2, item=call),
        events.event("response.function_call_arguments.delta", output_index=2, item_id="fc", delta='{"all": tr'),
    )
    assert ending is not None
    output = json.loads(ending.partition(b"data: ")[2])["response"]["output"]
    assert output == [reasoning, message("Hi")]


def test_no_ending() -> None:
    """Before a stream has named its response it can only be cut."""
    assert ended(Events().text("x")) is None


def test_charged_as_ended() -> None:
    """The tokens that the ending reports are those that are charged."""
    events = Events()
    stream = reader()
    reading = BodyReading(stream, b"text/event-stream", b"")
    for piece in (*events.start(), events.text("x" * 400)):
        reading.feed(piece)
    ending = stream.ending()
    assert ending is not None
    reported = json.loads(ending.partition(b"data: ")[2])["response"]["usage"]
    usage = usage_of(stream.charge(complete=False))
    assert (usage.input_tokens, usage.output_tokens) == (reported["input_tokens"], reported["output_tokens"])
