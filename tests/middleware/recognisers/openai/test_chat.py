"""What a chat request may cost, and what a chat answer says it used."""

import json
from typing import Any

import pytest

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAIChat

MESSAGES = [{"role": "user", "content": "Grüße"}]
REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100, operation="chat"), counted_input_tokens=7)


def read(body: dict[str, Any] | bytes, estimates: Estimates | None = None, **options: Any) -> MeteredRequest:
    encoded = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return OpenAIChat(**options).read_request(ApiRequest(body=encoded), estimates or Estimates(default_max_tokens=50))


def answer(document: Any, estimates: Estimates | None = None, *, complete: bool = True) -> Charge | None:
    reader = OpenAIChat().read_response(REQUEST, estimates or Estimates())
    reader.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reader.charge(complete=complete)


def stream(*chunks: Any, estimates: Estimates | None = None, complete: bool = True) -> Charge | None:
    reader = OpenAIChat().read_response(REQUEST, estimates or Estimates())
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
        reader.event(ServerSentEvent(b"", data))
    return reader.charge(complete=complete)


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


def used(prompt: Any, completion: Any, **details: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}}


def totals(charge: Charge | None) -> tuple[int, int, tuple[str, ...]]:
    assert charge is not None
    return charge.usage.input_tokens, charge.usage.output_tokens, charge.flags


def test_the_prompt_holds_a_token_per_byte() -> None:
    """A hold assumes a token per UTF-8 byte of the body."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "service_tier": "flex"}
    estimate = read(body).estimate
    assert estimate == UsageMetrics(
        model="gpt-4o",
        input_tokens=len(json.dumps(body, ensure_ascii=False).encode()),
        output_tokens=50,
        operation="chat",
        service_tier="flex",
    )


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 50),
        ({"max_tokens": 20}, 20),
        ({"max_completion_tokens": 30}, 30),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
        ({"max_tokens": None, "n": None}, 50),
        ({"max_tokens": 20, "n": 3}, 60),
        ({"max_tokens": 5000}, 1000),
        ({"max_tokens": 20, "prediction": {"type": "content", "content": "abc"}}, 20 + 34),
    ],
)
def test_the_worst_output(limits: dict[str, Any], expected: int) -> None:
    """The output held is the limit of the request, else the default, at most the ceiling, for every choice."""
    estimates = Estimates(default_max_tokens=50, max_tokens_ceiling=1000)
    body = json.dumps({"messages": MESSAGES, **limits}, separators=(",", ":")).encode()
    assert read(body, estimates).estimate.output_tokens == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"3", None),
        (b"\xff", None),
        (b'{"x": "\xff"}', None),
        (b'{"a":' + b"[" * 100_000, None),
        (b'{"max_tokens": 0}', "max_tokens"),
        (b'{"max_tokens": -1}', "max_tokens"),
        (b'{"max_tokens": 1.5}', "max_tokens"),
        (b'{"max_tokens": "5"}', "max_tokens"),
        (b'{"max_tokens": true}', "max_tokens"),
        (b'{"max_tokens": 9007199254740993}', "max_tokens"),
        (b'{"max_tokens": 99999999999999999999}', "max_tokens"),
        (b'{"max_tokens": 9007199254740990, "n": 2}', "max_tokens"),
        (b'{"max_completion_tokens": 0}', "max_completion_tokens"),
        (b'{"n": 0}', "n"),
        (b'{"n": 100000}', "n"),
        (b'{"n": []}', "n"),
        (b'{"model": 3}', "model"),
        (b'{"model": ""}', "model"),
        (b'{"model": "%s"}' % (b"x" * 129), "model"),
        (b'{"model": "two\\nlines"}', "model"),
        (b'{"model": "\\u0085"}', "model"),
        (b'{"model": "\\ud800"}', None),
        (b'{"service_tier": "\\u0000"}', "service_tier"),
        (b'\xef\xbb\xbf{"model": "m"}', None),
    ],
)
def test_bad_requests(body: bytes, param: str | None) -> None:
    """A body that is no JSON object, or has limits that are none, is refused and names the field."""
    with pytest.raises(BadRequestError) as refused:
        read(body)
    assert refused.value.param == param


def test_a_default_model() -> None:
    """A route of the application's own may leave the model out of its requests."""
    assert read({"messages": MESSAGES}).estimate.model is None
    assert read({"messages": MESSAGES}, default_model="m").estimate.model == "m"


def test_media_are_not_counted_by_their_bytes() -> None:
    """Images count a constant, sound by its length, files in the request a token per byte."""

    def held(*parts: dict[str, Any]) -> int:
        body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, *parts]}]}
        return read(body, image_tokens=1000, file_tokens=7000).estimate.input_tokens

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 90_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "mp3"}}
    inline = {"type": "file", "file": {"file_data": "A" * 5_000}}
    stored = {"type": "file", "file": {"file_id": "file-1"}}
    assert 1000 < held(image) < 1200
    assert 2000 < held(sound) < 2200
    assert 5000 < held(inline) < 5200
    assert 7000 < held(stored) < 7200
    assert 2000 < held(image, image) < 2300


def test_what_only_resembles_media_is_text() -> None:
    """Bytes in a place where no API puts an image are held as text."""
    for part in ({"type": "image_url", "image_url": "A" * 9000}, {"type": "image_url", "url": "A" * 9000}):
        assert read({"messages": [{"role": "user", "content": [part]}]}).estimate.input_tokens > 9000
    assert read({"messages": {"image_url": "A" * 9000}}).estimate.input_tokens > 9000
    assert read(b'{"messages": "\\"image_url\\" %s"}' % (b"A" * 9000)).estimate.input_tokens > 9000


def test_a_tokeniser_replaces_the_bytes() -> None:
    """count_tokens gets the model and the prompt without images, and decides hold and charge."""
    seen: list[tuple[str | None, str]] = []

    def count(model: str | None, text: str) -> int:
        seen.append((model, text))
        return 11

    image = {"type": "image_url", "image_url": {"url": "AAAA"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [image]}], "tools": [{"name": "search"}]}
    request = read(body, Estimates(count_tokens=count), image_tokens=100)
    assert (request.estimate.input_tokens, request.counted_input_tokens) == (111, 36)
    assert {model for model, _ in seen} == {"m"}
    assert all("search" in text and "user" in text and "AAAA" not in text for _, text in seen)
    charge = stream(delta("hello "), delta("you"), estimates=Estimates(count_tokens=count))
    assert totals(charge) == (7, 11, ("usage_counted",))
    assert seen[-1] == ("m", "hello you")


def test_a_broken_tokeniser_falls_back_to_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """A tokeniser that raises or returns nonsense refuses nobody: bytes are counted, and it is logged."""

    def fail(model: str | None, text: str) -> int:
        raise RuntimeError("no vocabulary")

    body = {"messages": MESSAGES}
    for broken in (fail, lambda model, text: -1, lambda model, text: 1.5):
        caplog.clear()
        assert read(body, Estimates(count_tokens=broken)) == read(body, Estimates())  # type: ignore[arg-type]
        assert "bytes are counted" in caplog.text


def test_the_report_is_charged() -> None:
    """Totals and parts of a report become usage; the model is the request's, the tier the answer's."""
    details = {
        "prompt_tokens_details": {
            "cached_tokens": 30,
            "audio_tokens": 5,
            "cache_write_tokens": 2,
            "image_tokens": None,
        },
        "completion_tokens_details": {"reasoning_tokens": 9, "audio_tokens": 4, "accepted_prediction_tokens": 1},
    }
    charge = answer({"choices": [], "model": "m-2026-01-01", "service_tier": "priority", **used(40, 20, **details)})
    assert charge == Charge(
        UsageMetrics(
            model="m",
            input_tokens=40,
            output_tokens=20,
            cache_read_tokens=30,
            cache_write_tokens=2,
            audio_input_tokens=5,
            reasoning_tokens=9,
            audio_output_tokens=4,
            operation="chat",
            service_tier="priority",
        )
    )


def test_the_last_report_of_a_stream_wins() -> None:
    """Usage that is repeated is cumulative: it is never summed, whether it stands beside choices or alone."""
    charge = stream(
        delta("a", **used(5, 1)),
        delta("b", **used(5, 2)),
        {"choices": [], **used(5, 3)},
        {"choices": [], "usage": None},
    )
    assert totals(charge) == (5, 3, ())


def test_groq_hides_the_report() -> None:
    """A report inside x_groq counts where there is none outside."""
    assert totals(stream(delta("a"), {"choices": [], "x_groq": used(5, 3)})) == (5, 3, ())
    assert totals(stream({"choices": [], "x_groq": used(9, 9), **used(5, 3)})) == (5, 3, ())


def test_an_explicit_zero_stays_zero() -> None:
    """Zero usage at the end is a report like any other."""
    assert totals(stream(delta("hello"), {"choices": [], **used(0, 0)})) == (0, 0, ())
    assert totals(answer({"choices": [{"message": {"content": "hello"}}], **used(0, 0)})) == (0, 0, ())


@pytest.mark.parametrize(
    "garbage",
    [
        used("5", 3), used(5, -1), used(5, 1.5), used(10**12, 3), used(True, 3), used(None, 3), used(5, None),
        {"usage": {}}, {"usage": []}, {"usage": "lots"}, {"usage": 12}, {"usage": {"total_tokens": 8}},
    ],
)  # fmt: skip
def test_garbage_is_counted_instead(garbage: dict[str, Any]) -> None:
    """A report that is no usage is not charged: prompt and delivered output are counted, and flagged."""
    expected = (7, 3, ("usage_invalid", "usage_counted"))
    assert totals(stream(delta("0123456789"), {"choices": [], **garbage})) == expected
    assert totals(answer({"choices": [{"message": {"content": "0123456789"}}], **garbage})) == expected


def test_a_part_over_its_total_is_left_out() -> None:
    """A part that is larger than its total, or no count, is priced as plain tokens, and flagged."""
    for details in (
        {"cached_tokens": 41},
        {"cached_tokens": "9"},
        "none",
        {"cached_tokens": 30, "cache_write_tokens": 11},
    ):
        charge = answer({"choices": [], **used(40, 20, prompt_tokens_details=details)})
        assert totals(charge) == (40, 20, ("usage_invalid",))
        assert charge is not None
        assert charge.usage.cache_read_tokens + charge.usage.cache_write_tokens <= 40


def test_without_a_report_everything_delivered_is_counted() -> None:
    """Text, reasoning (once), refusals and arguments of tools, of every choice, four bytes a token."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunk = {
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "äö"}},
            {"index": 1, "delta": {"content": None, "refusal": "no"}},
            {
                "index": 0,
                "delta": {"reasoning": "why", "reasoning_details": [{"type": "reasoning.text", "text": "why"}]},
            },
            {"index": 0, "delta": {"tool_calls": [call]}},
            {"index": 0, "delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}},
        ]
    }
    assert totals(stream(chunk)) == (7, 4, ("usage_counted",))  # 4 + 2 + 3 + 1 + 2 + 2 bytes


def test_a_cut_stream_is_charged_for_what_it_delivered() -> None:
    """A stream that was cut is counted, and flagged as interrupted."""
    assert totals(stream(delta("01234567"), complete=False)) == (7, 2, ("interrupted", "usage_counted"))
    assert totals(stream(delta("0" * 80, **used(5, 2)), complete=False)) == (5, 2, ("interrupted",))
    late = stream(delta("0123", **used(5, 1)), delta("x" * 40), complete=False)
    assert totals(late) == (5, 11, ("interrupted", "usage_counted"))
    assert totals(stream(delta("0123"), used(5, 1), complete=False)) == (5, 1, ("interrupted",))


def test_done_is_the_end() -> None:
    """A client that leaves after [DONE] has interrupted nothing."""
    assert totals(stream(delta("0123"), used(5, 1), b"[DONE]", complete=False)) == (5, 1, ())


def test_an_error_costs_nothing() -> None:
    """An error in place of an answer, in JSON or as the first event, is not charged; after output it is."""
    error = {"error": {"message": "overloaded"}}
    assert answer(error) is None
    assert stream(error) is None
    assert totals(stream(delta("0123"), error)) == (7, 1, ("usage_counted",))


def test_another_shape_counts_as_delivered() -> None:
    """An answer that is no chat completion is counted by all of its bytes."""
    assert totals(answer(b"plain text!!")) == (7, 3, ("usage_counted",))
    assert totals(answer({"text": "hi"})) == (7, 4, ("usage_counted",))
    assert totals(answer(b"[1,2,3]")) == (7, 2, ("usage_counted",))
    assert totals(answer(b'{"choices": [{"mess', complete=False)) == (7, 5, ("interrupted", "usage_counted"))
    assert totals(stream(b"plain text!!")) == (7, 3, ("usage_counted",))


def test_json_as_python_writes_it_is_read() -> None:
    """NaN and halves of surrogate pairs, which Python's json writes, do not hide the report."""
    for odd in (b"NaN", rb'"\ud83d"', b"-Infinity"):
        document = b'{"choices": [{"logprobs": %s}], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}' % odd
        assert totals(answer(document)) == (5, 3, ())
        assert totals(stream(document)) == (5, 3, ())


def test_what_could_not_be_read_counts_up_to_the_hold() -> None:
    """Bytes of an unknown encoding count a token each, at most what was held."""
    for size, expected in ((40, 40), (4000, 100)):
        reader = OpenAIChat().read_response(REQUEST, Estimates())
        reader.unread_bytes = size
        assert totals(reader.charge(complete=True)) == (7, expected, ("answer_unread", "usage_counted"))


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None},
        {"choices": 3},
        {"choices": [None, 3, {"delta": None}, {"delta": {"content": 3}}]},
        {"choices": {}},
    ],
)
def test_odd_chunks_do_no_harm(odd: dict[str, Any]) -> None:
    """A chunk that no schema allows counts nothing and breaks nothing."""
    assert totals(stream(odd, {"choices": [], **used(5, 3)})) == (5, 3, ())


def test_moonshot_reports_in_its_choices() -> None:
    """A report beside a choice's end counts where the chunk has none itself."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", **used(5, 3, cached_tokens=4)}]}
    charge = stream(delta("hello"), last)
    assert totals(charge) == (5, 3, ())
    assert charge is not None
    assert charge.usage.cache_read_tokens == 4
    assert totals(stream(last, {"choices": [], **used(6, 4)})) == (6, 4, ())


def test_an_error_in_a_choice_costs_nothing() -> None:
    """OpenRouter puts the error of a model into its choice; what was delivered before it is charged."""
    failed = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502}}]}
    assert stream(failed) is None
    assert answer({"choices": [{"error": {"code": 502, "message": "overloaded"}}]}) is None
    assert totals(stream(delta("0123"), failed)) == (7, 1, ("usage_counted",))
    assert totals(stream(delta("0123"), {**failed, **used(5, 3)})) == (5, 3, ())


@pytest.mark.parametrize(
    ("body", "may_reason"),
    [
        ({"model": "gpt-4o"}, False),
        ({"model": "gpt-5-mini"}, True),
        ({"model": "openai/o3-mini"}, True),
        ({"model": "o1"}, True),
        ({"model": "google/gemini-2.5-flash"}, True),
        ({"model": "deepseek-reasoner"}, False),
        ({"model": "gpt-4o", "reasoning_effort": "low"}, True),
        ({"model": "gpt-5", "reasoning_effort": "none"}, False),
        ({"model": "gpt-5", "reasoning_effort": None}, True),
        ({}, False),
    ],
)
def test_who_reasons_unseen(body: dict[str, Any], may_reason: bool) -> None:
    """Models that think without showing it are known by their names, or by the effort that is asked of them."""
    assert read(body).may_reason_hidden is may_reason


def test_who_reasons_unseen_can_be_told() -> None:
    """An application names its own."""
    assert read({"model": "acme/thinker-2"}, reasoning_models=["thinker-*"]).may_reason_hidden
    assert not read({"model": "gpt-5"}, reasoning_models=["thinker-*"]).may_reason_hidden
    for wrong in ("thinker-*", [3]):
        with pytest.raises(ConfigError):
            OpenAIChat(reasoning_models=wrong)  # type: ignore[arg-type]


def test_searches_are_charged_by_the_call() -> None:
    """A model that searches does it once in every request, unless the answer reports how often."""

    def searches(document: dict[str, Any], **body: Any) -> int:
        request = read(body)
        assert request.estimate.web_search_calls == 1
        reader = OpenAIChat().read_response(request, Estimates())
        reader.document(json.dumps(document).encode())
        charge = reader.charge(complete=True)
        assert charge is not None
        return charge.usage.web_search_calls

    silent = {"choices": [], **used(5, 3)}
    assert searches(silent, model="gpt-4o-search-preview-2025-03-11") == 1
    assert searches(silent, model="openai/gpt-5-search-api") == 1
    assert searches(silent, model="m", web_search_options={}) == 1
    assert searches({"choices": [{"message": {"content": "hi"}}]}, model="m", web_search_options={}) == 1
    for reported in (0, 3):
        counted = {"choices": [], **used(5, 3, server_tool_use_details={"web_search_requests": reported})}
        assert searches(counted, model="m", web_search_options={}) == reported
    assert read({"model": "gpt-4o", "web_search_options": None}).estimate.web_search_calls == 0
    assert read({"model": "finder"}, searching_models=["find*"]).estimate.web_search_calls == 1


def test_what_can_not_be_counted_as_it_comes_is_held_whole() -> None:
    """Sound, pictures and rejected predictions cost more than the text that a stream shows."""
    assert not read({"stream": True, "modalities": ["text"]}).holds_worst_case
    assert not read({"stream": True, "modalities": None, "prediction": None}).holds_worst_case
    assert read({"stream": True, "modalities": ["text", "audio"]}).holds_worst_case
    assert read({"stream": True, "modalities": ["image", "text"]}).holds_worst_case
    assert read({"stream": True, "prediction": {"type": "content", "content": "abc"}}).holds_worst_case
