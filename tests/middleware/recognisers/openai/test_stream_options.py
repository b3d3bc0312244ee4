"""Streams of choices: asking for their usage, hiding what only the middleware asked for, and ending them early."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ducto_redis.middleware import Estimates, Recogniser, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.recognisers import OpenAIChat, OpenAICompletions
from ducto_redis.middleware.recognisers.openai.choices_response import ChoicesReader

CHAT = OpenAIChat()
OPEN = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m-2026"}


def application_body(body: bytes, limit: int | None = None, recogniser: Recogniser = CHAT) -> bytes:
    request = recogniser.read_request(ApiRequest(body=body), Estimates())
    return recogniser.application_body(body, request, limit)


def reader(recogniser: Recogniser = CHAT, **request: Any) -> ChoicesReader:
    body = json.dumps({"model": "m", "messages": [], "stream": True, **request}).encode()
    found = recogniser.read_response(recogniser.read_request(ApiRequest(body=body), Estimates()), Estimates())
    assert isinstance(found, ChoicesReader)
    return found


def chunk(text: str = "", index: int = 0, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({**OPEN, "choices": [choice], **more}).encode()


def event(data: bytes) -> ServerSentEvent:
    return ServerSentEvent(b"", data)


def hides(found: ChoicesReader, data: Any) -> bool:
    taken = event(data if isinstance(data, bytes) else json.dumps(data).encode())
    found.event(taken)
    return found.hidden(taken)


def parsed(ending: bytes | None) -> tuple[dict[str, Any], bytes]:
    assert ending is not None
    data, end, rest = ending.partition(b"\n\n")
    assert data.startswith(b"data: ")
    assert end
    return json.loads(data[6:]), rest


USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


class TestAskingForUsage:
    """`stream_options.include_usage` is added where it is missing."""

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
            (
                b' {\n "top_p": 1.0, "stream": true, "seed": 12345678901234567890 }\n',
                b' {"stream_options":{"include_usage":true},\n "top_p": 1.0, "stream": true,'
                b' "seed": 12345678901234567890 }\n',
            ),
            (
                b'{"stream": true, "stream_options": null, "top_p": 1.00}',
                b'{"stream":true,"stream_options":{"include_usage":true},"top_p":1.00}',
            ),
            (
                b'{"stream": true, "stream_options": {"include_obfuscation": false}}',
                b'{"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}',
            ),
            (
                b'{"stream": true, "stream_options": {"include_usage": false}}',
                b'{"stream":true,"stream_options":{"include_usage":true}}',
            ),
        ],
    )
    def test_added(self, body: bytes, expected: bytes) -> None:
        """The option is spliced in; numbers and unknown fields stay as they were written."""
        assert application_body(body) == expected
        assert application_body(body, recogniser=OpenAICompletions()) == expected

    @pytest.mark.parametrize(
        "body",
        [
            b'{"model": "m"}',
            b'{"stream": false}',
            b'{"stream": null}',
            b'{"stream": 1}',
            b'{"stream": true, "stream_options": {"include_usage": true}}',
            b'{"stream": true, "stream_options": "odd"}',
            b'{"stream": true, "stream_options": [true]}',
        ],
    )
    def test_left_alone(self, body: bytes) -> None:
        """Plain requests, those that ask already, and what makes no sense pass as they came, and nothing is hidden."""
        assert application_body(body) == body
        request = CHAT.read_request(ApiRequest(body=body), Estimates())
        assert not CHAT.read_response(request, Estimates()).hides_events

    @pytest.mark.parametrize("recogniser", [OpenAIChat(ask_for_usage=False), OpenAICompletions(ask_for_usage=False)])
    def test_turned_off(self, recogniser: Recogniser) -> None:
        """For providers that refuse the option nothing is added, and nothing is hidden."""
        body = b'{"stream": true}'
        assert application_body(body, recogniser=recogniser) == body
        assert not reader(recogniser).hides_events

    def test_a_field_with_an_odd_spelling_is_seen(self) -> None:
        r"""A name written with escapes is the same name: the option is not given twice."""
        body = rb'{"stream": true, "stream\u005foptions": {"include_usage": false}}'
        assert json.loads(application_body(body))["stream_options"] == {"include_usage": True}

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.dictionaries(
            st.sampled_from(["messages", "user", "metadata", "logit_bias", "seed", "ünï", "x y"]),
            st.recursive(
                st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                max_leaves=5,
            ),
        ),
        st.sampled_from([None, {}, {"include_usage": False}, {"include_obfuscation": True}, "absent"]),
        st.sampled_from([None, 50, "absent"]),
        st.booleans(),
    )
    def test_nothing_else_changes(self, fields: dict[str, Any], options: Any, limit: Any, ascii: bool) -> None:
        """Whatever a request holds, only the option and the limit are other than they were."""
        body = {**fields, "stream": True}
        body |= {} if options == "absent" else {"stream_options": options}
        body |= {} if limit == "absent" else {"max_tokens": limit}
        encoded = json.dumps(body, ensure_ascii=ascii).encode(errors="surrogatepass")
        changed = json.loads(application_body(encoded, 20))
        assert changed == {
            **body, "stream_options": {**(options if isinstance(options, dict) else {}), "include_usage": True},
            "max_tokens": 20,
        }  # fmt: skip


class TestHiding:
    """The chunk that answers the added option is kept from the client."""

    def test_the_extra_chunk_is_hidden(self) -> None:
        """A chunk without choices that reports usage is hidden; what stands around it is not."""
        found = reader()
        assert found.hides_events
        assert not hides(found, chunk("hello"))
        assert hides(found, {**OPEN, **USAGE})
        assert not hides(found, b"[DONE]")
        charge = found.charge(complete=True)
        assert charge is not None
        assert charge.usage.output_tokens == 3

    @pytest.mark.parametrize(
        "shown",
        [
            chunk("x", usage=USAGE["usage"]),
            chunk("", finish="stop", usage=USAGE["usage"]),
            chunk("", finish="stop", x_groq=USAGE),
            {"choices": [], "prompt_filter_results": []},
            {"choices": [], "usage": None},
            {"usage": USAGE["usage"], "citations": ["https://example.com"]},
            {**USAGE, "error": {"message": "overloaded"}},
            b"no json",
        ],
    )
    def test_all_else_is_shown(self, shown: Any) -> None:
        """A chunk with choices is never hidden, nor one that tells the client anything else."""
        found = reader()
        hides(found, {**OPEN, **USAGE})
        assert not hides(found, shown)

    def test_nothing_is_hidden_from_a_client_that_asked(self) -> None:
        """A client that wants to see the usage does."""
        found = reader(stream_options={"include_usage": True})
        assert not found.hides_events
        assert not hides(found, USAGE)


class TestLimits:
    """Limits are lowered to what the account can pay."""

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"max_tokens": 500}, {"max_tokens": 20}),
            ({"max_tokens": 20}, {"max_tokens": 20}),
            ({"max_tokens": 5}, {"max_tokens": 5}),
            ({"max_completion_tokens": 500}, {"max_completion_tokens": 20}),
            ({"max_completion_tokens": 500, "max_tokens": 5}, {"max_completion_tokens": 20, "max_tokens": 5}),
            ({"max_completion_tokens": None, "max_tokens": 50}, {"max_completion_tokens": None, "max_tokens": 20}),
            ({}, {"max_tokens": 20}),
            ({"max_tokens": None}, {"max_tokens": 20}),
            ({"model": "openai/gpt-5-mini"}, {"model": "openai/gpt-5-mini", "max_completion_tokens": 20}),
        ],
    )
    def test_lowered(self, fields: dict[str, Any], expected: dict[str, Any]) -> None:
        """The limit that the request sets is lowered, never raised; where it sets none, the right one is added."""
        assert json.loads(application_body(json.dumps(fields).encode(), 20)) == expected

    def test_of_completions(self) -> None:
        """The older API has one limit."""
        body = b'{"prompt": "x", "max_tokens": 500}'
        assert application_body(body, 20, OpenAICompletions()) == b'{"prompt":"x","max_tokens":20}'
        assert application_body(b'{"prompt": "x"}', 9, OpenAICompletions()) == b'{"prompt":"x","max_tokens":9}'


class TestEnding:
    """A stream that is ended early ends as the API ends one at its limit."""

    @pytest.mark.parametrize("skipped", [True, False])
    def test_the_last_chunk(self, skipped: bool) -> None:
        """It looks like the others of its stream, whether they were parsed yet or not."""
        found = reader()
        for text in ("a", "b"):
            if skipped:
                found.skipped(b"data: " + chunk(text) + b"\n\n")
            else:
                found.event(event(chunk(text)))
        final, rest = parsed(found.ending())
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
        assert final == {**OPEN, "choices": [choice]}
        assert rest == b"data: [DONE]\n\n"
        charge = found.charge(complete=False)
        assert charge is not None
        assert (charge.usage.output_tokens, charge.flags) == (1, ("interrupted", "usage_counted"))

    @pytest.mark.parametrize("skipped", [True, False])
    def test_only_open_choices_are_ended(self, skipped: bool) -> None:
        """Of several choices those that came to their own end are left out."""
        found = reader(n=4)
        for data in (chunk("a", 0), chunk("b", 1, "stop"), chunk("c", 2), chunk("", 2, "tool_calls", service_tier="x")):
            if skipped:
                found.skipped(b"data: " + data + b"\n\n")
            else:
                found.event(event(data))
        final, _ = parsed(found.ending())
        assert [choice["index"] for choice in final["choices"]] == [0, 3]
        assert final["service_tier"] == "x"

    def test_before_the_first_chunk(self) -> None:
        """Where nothing came yet, the chunk is whole all the same."""
        final, rest = parsed(reader(n=2).ending())
        assert (final["object"], final["model"]) == ("chat.completion.chunk", "m")
        assert final["id"]
        assert final["created"] > 1_700_000_000
        assert [choice["finish_reason"] for choice in final["choices"]] == ["length", "length"]
        assert rest == b"data: [DONE]\n\n"

    def test_at_its_end(self) -> None:
        """After the last choice only the end mark is missing, after that nothing."""
        found = reader()
        found.event(event(chunk("a", 0, "stop")))
        assert found.ending() == b"data: [DONE]\n\n"
        found.event(event(b"[DONE]"))
        assert found.ending() == b""

    def test_after_an_error(self) -> None:
        """A stream that failed is not told that it reached its limit."""
        found = reader()
        found.event(event(b'{"error": {"message": "overloaded"}}'))
        assert found.ending() == b"data: [DONE]\n\n"

    def test_of_completions(self) -> None:
        """The older API's chunks have text instead of deltas."""
        found = reader(OpenAICompletions(), prompt=["x", "y"])
        found.event(event(b'{"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "a"}]}'))
        final, _ = parsed(found.ending())
        assert (final["id"], final["object"], final["model"]) == ("cmpl-1", "text_completion", "m")
        assert final["choices"] == [
            {"index": index, "text": "", "logprobs": None, "finish_reason": "length"} for index in (0, 1)
        ]

    def test_with_odd_ids(self) -> None:
        """What a stream calls itself is repeated, be it no text that UTF-8 can hold."""
        found = reader()
        found.event(event(b'{"id": "\\ud800", "choices": []}'))
        assert b'"id":"\\ud800"' in (found.ending() or b"")
