"""OpenAI Responses: which requests are metered, and what they may cost."""

import json
from typing import Any

import pytest

from ducto_redis import UsageMetrics
from ducto_redis.errors import ConfigError
from ducto_redis.middleware import BadRequestError, Estimates, MeteredRequest
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.recognisers import OpenAIResponses, OpenAIResponsesTokenCounting
from tests.middleware.asgi import scope
from tests.middleware.responses import REQUEST

API = OpenAIResponses()
ESTIMATES = Estimates()


def request(body: Any = REQUEST, api: OpenAIResponses = API, estimates: Estimates = ESTIMATES) -> MeteredRequest:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.read_request(api_request(scope("/v1/responses"), encoded), estimates)


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/openai/responses/", True),
        ("POST", "/v1/responses/compact", True),
        ("POST", "/v1/responses/input_tokens", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("GET", "/v1/responses/resp_1", False),
        ("POST", "/v1/chat/completions", False),
    ],
)
def test_which_requests(method: str, path: str, ours: bool) -> None:
    """Making a response costs something, and compacting some; counting tokens, looking and cancelling do not."""
    assert (method in API.methods and API.matches(path)) is ours
    counting = OpenAIResponsesTokenCounting()
    assert (counting.free and counting.matches(path)) is path.endswith("input_tokens")


@pytest.mark.parametrize(
    ("method", "path", "continued"),
    [
        ("GET", "/v1/responses/resp_1", "resp_1"),
        ("GET", "/v1/responses/resp_1/", "resp_1"),
        ("POST", "/openai/v1/responses/resp_1/cancel", "resp_1"),
        ("GET", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/responses/resp_1", None),
        ("DELETE", "/v1/responses/resp_1", None),
        ("GET", "/v1/responses/resp_1/input_items", None),
        ("GET", "/v1/responses", None),
        ("GET", "/v1/responses/compact", None),
    ],
)
def test_which_requests_look_at_a_response(method: str, path: str, continued: str | None) -> None:
    """A response is looked at with GET, and cancelled with POST."""
    assert API.continued(method, path) == continued


def test_worst_case() -> None:
    """Held are a token for each byte of the body, and the limit on output."""
    body = json.dumps(REQUEST).encode()
    found = request(body)
    assert found.estimate == UsageMetrics("m", len(body), 100, operation="chat")
    assert found.counted_input_tokens == -(-len('"hello"') // 4)
    assert (found.streams, found.output_limit, found.answers) == (False, 100, 1)
    assert request({**REQUEST, "stream": True}).streams


def test_what_the_prompt_is() -> None:
    """The prompt that is charged for want of a report is the input, instructions, tools and the form of the text."""
    more = {"instructions": "x" * 40, "tools": [{"type": "function", "name": "f"}], "text": {"verbosity": "low"}}
    body = {**REQUEST, **more, "metadata": {"x": "y" * 400}}
    size = sum(len(json.dumps(body[name])) for name in ("input", "instructions", "tools", "text"))
    assert request(body).counted_input_tokens == -(-size // 4)


def test_no_limit() -> None:
    """Without a limit of its own a request holds the middleware's."""
    found = request({"model": "m", "input": "hello"}, estimates=Estimates(default_max_tokens=77))
    assert (found.estimate.output_tokens, found.output_limit) == (77, None)


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_stored_context(more: dict[str, Any]) -> None:
    """What the provider has stored is read by the model as well: so much is held for it as is set."""
    body = {**REQUEST, **more}
    api = OpenAIResponses(context_tokens=9_000)
    assert request(body, api).estimate.input_tokens == len(json.dumps(body)) + 9_000
    without = OpenAIResponses(context_tokens=0)
    assert request(body, api).counted_input_tokens == request(body, without).counted_input_tokens + 2_250


def test_no_stored_context() -> None:
    """Fields that are there and empty continue nothing."""
    body = {**REQUEST, "previous_response_id": None, "conversation": None, "prompt": None}
    assert request(body).estimate.input_tokens == len(json.dumps(body))


def test_tools_of_the_provider() -> None:
    """Calls that the provider makes itself are held for, and what they find is read by the model."""
    tools = [{"type": kind} for kind in ("web_search_preview", "file_search", "code_interpreter", "image_generation")]
    body = {**REQUEST, "tools": [*tools, {"type": "function", "name": "mine"}]}
    found = request(body, OpenAIResponses(tool_calls=2, tool_tokens=1_000)).estimate
    assert found.input_tokens == len(json.dumps(body)) + 2_000
    calls = (found.web_search_calls, found.file_search_calls, found.code_exec_calls, found.images)
    assert calls == (2, 2, 2, 2)
    limited = request({**body, "max_tool_calls": 1}).estimate
    assert (limited.web_search_calls, limited.input_tokens) == (
        1,
        len(json.dumps({**body, "max_tool_calls": 1})) + 10_000,
    )
    assert request({**REQUEST, "tools": [{"type": "mcp"}]}).estimate.input_tokens > 30_000
    own = {**REQUEST, "tools": [{"type": "function", "name": "web_search"}]}
    assert request(own).estimate == UsageMetrics("m", len(json.dumps(own)), 100, operation="chat")


@pytest.mark.parametrize(
    ("part", "taken", "tokens"),
    [
        ({"type": "input_image", "image_url": "A" * 9_000}, 9_000, 5_000),
        ({"type": "input_image", "file_id": "file-1"}, 0, 5_000),
        ({"type": "input_audio", "input_audio": {"data": "A" * 3_200, "format": "mp3"}}, 3_200, 100),
        ({"type": "input_file", "file_data": "A" * 3_000}, 3_000, 3_000),
        ({"type": "input_file", "file_id": "file-1"}, 0, 20_000),
        ({"type": "input_text", "text": "A" * 3_000}, 0, 0),
    ],
)
def test_media(part: dict[str, Any], taken: int, tokens: int) -> None:
    """The bytes of images and sound are not tokens; those of text are."""
    body = {**REQUEST, "input": [{"role": "user", "content": [part]}]}
    assert request(body).estimate.input_tokens == len(json.dumps(body)) - taken + tokens


def test_media_that_comes_back() -> None:
    """Pictures that the model made before, and screenshots of tools, count as images wherever they are in the input."""
    made = {"type": "image_generation_call", "id": "ig", "result": "A" * 50_000}
    screen = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "B" * 50_000}}
    found = request({**REQUEST, "input": [made, screen]}).estimate.input_tokens
    assert 10_000 < found < 10_500


@pytest.mark.parametrize(
    ("model", "more", "expected"),
    [
        ("gpt-4o", {}, False),
        ("gpt-4.1-mini", {}, False),
        ("o3-mini", {}, True),
        ("gpt-5.2", {}, True),
        ("openai/gpt-5", {}, True),
        ("openai.gpt-5.5", {}, True),
        ("deepseek-v4-flash", {}, False),
        ("gpt-5.2", {"reasoning": {"effort": "none"}}, False),
        ("gpt-5.2", {"reasoning": {"summary": "auto"}}, True),
        ("my-model", {"reasoning": {"effort": "low"}}, True),
        (None, {}, False),
    ],
)
def test_hidden_reasoning(model: str | None, more: dict[str, Any], expected: bool) -> None:
    """Models that reason do so unseen, unless they are told not to."""
    assert request({**REQUEST, "model": model, **more}).may_reason_hidden is expected


def test_default_model() -> None:
    """A stored prompt may name the model; then the one that is priced is set."""
    found = request({"prompt": {"id": "pmpt_1"}}, OpenAIResponses(default_model="m"))
    assert found.estimate.model == "m"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        ({**REQUEST, "max_output_tokens": 0}, "max_output_tokens"),
        ({**REQUEST, "max_output_tokens": 10**20}, "max_output_tokens"),
        ({**REQUEST, "max_tool_calls": -1}, "max_tool_calls"),
        ({**REQUEST, "model": "a\nb"}, "model"),
        ({**REQUEST, "service_tier": ""}, "service_tier"),
        ({**REQUEST, "stream": "yes"}, "stream"),
        ({**REQUEST, "tools": {"type": "web_search"}}, None),
    ],
)
def test_impossible(body: Any, param: str | None) -> None:
    """A request that makes no sense is refused, and which field of it."""
    with pytest.raises(BadRequestError) as refused:
        request(body)
    assert refused.value.param == param


def test_settings() -> None:
    """Settings that are no numbers of tokens are refused."""
    with pytest.raises(ConfigError, match="context_tokens"):
        OpenAIResponses(context_tokens=-1)


def test_lowered_limit() -> None:
    """A limit that the account can pay takes the place of the request's, and nothing else changes."""
    body = b'{"model": "m", "temperature": 0.10, "input": "hello"}'
    assert API.application_body(body, request(body), None) is body
    lowered = API.application_body(body, request(body), 55)
    assert b"0.10" in lowered
    assert json.loads(lowered) == {**json.loads(body), "max_output_tokens": 55}
