"""What a request to Bedrock may cost, and what its answers say they used."""

import json
from base64 import b64encode
from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest, Refusal
from ducto_redis.middleware.framing import AwsEventStreamFramer
from ducto_redis.middleware.recognisers import BedrockConverse, BedrockInvoke, BedrockTokenCounting
from ducto_redis.middleware.recognisers.bedrock.frame_writing import frame
from tests.middleware.recognisers.reading import JSON, charge_of, cuts_of, reader_of, request_of, usage_of

CONVERSE, INVOKE = BedrockConverse(), BedrockInvoke()
STREAM = b"application/vnd.amazon.eventstream"
MODEL = "us.anthropic.claude-sonnet-4-20250514-v1:0"
ARN = "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-micro-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "hello"}]}]
REQUEST = MeteredRequest(UsageMetrics(model="m", output_tokens=100), counted_input_tokens=7)
PLAIN = {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}
TOTALS = {"input_tokens": 10, "output_tokens": 20}


def sent(kind: str, **payload: Any) -> bytes:
    return frame(kind.encode(), json.dumps({**payload, "p": "abcd"}).encode())


def text(written: str) -> bytes:
    return sent("contentBlockDelta", contentBlockIndex=0, delta={"text": written})


START = sent("messageStart", role="assistant")
CLOSE = sent("contentBlockStop", contentBlockIndex=0)
STOP = sent("messageStop", stopReason="end_turn")


def plain(usage: Any = None, **more: Any) -> Charge | None:
    content = [{"text": "x" * 40}]
    document = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn", **more}
    if usage is not None:
        document["usage"] = usage
    return charge_of(CONVERSE, json.dumps(document).encode(), content_type=JSON, request=REQUEST)


def stream(*frames: bytes, complete: bool = True, api: Any = CONVERSE) -> Charge | None:
    return charge_of(api, *frames, content_type=STREAM, request=REQUEST, complete=complete)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (PLAIN, TOTALS),
        # Beside the input, as for most models: the total counts it.
        (
            {**PLAIN, "cacheReadInputTokens": 300, "cacheWriteInputTokens": 50, "totalTokens": 380},
            {"input_tokens": 360, "output_tokens": 20, "cache_read_tokens": 300, "cache_write_tokens": 50},
        ),
        # Inside the input, as for OpenAI's models: the total does not count it again.
        (
            {"inputTokens": 400, "outputTokens": 20, "cacheReadInputTokens": 300, "totalTokens": 420},
            {"input_tokens": 400, "output_tokens": 20, "cache_read_tokens": 300},
        ),
        (
            {
                **PLAIN,
                "cacheWriteInputTokens": 50,
                "totalTokens": 80,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 20}],
            },
            {"input_tokens": 60, "output_tokens": 20, "cache_write_tokens": 50, "cache_write_1h_tokens": 30},
        ),
        ({**PLAIN, "cacheReadInputTokenCount": 0, "cacheReadInputTokens": 0, "serverToolUsage": {}}, TOTALS),
        ({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}, {}),
    ],
)
def test_the_usage_of_an_answer(usage: dict[str, Any], expected: dict[str, int]) -> None:
    """Totals with the cache in them, wherever the model reports it; an explicit zero stays zero."""
    assert usage_of(plain(usage)) == expected


@pytest.mark.parametrize("usage", [{"inputTokens": 1}, {"inputTokens": -1, "outputTokens": 2}, [], "x"])
def test_garbage_instead_of_usage_is_counted(usage: Any) -> None:
    """Without usable totals prompt and text are counted, a token for four bytes."""
    counted = {"input_tokens": 7, "output_tokens": 10}
    assert usage_of(plain(usage), "usage_invalid", "usage_counted") == counted
    assert usage_of(plain(), "usage_counted") == counted


def test_the_tier() -> None:
    """The tier is the one that served the request."""
    charge = plain(PLAIN, serviceTier={"type": "priority"})
    assert charge is not None
    assert charge.usage.service_tier == "priority"


def test_a_binary_stream() -> None:
    """The last event reports the usage, wherever the frames are cut."""
    usage = sent("metadata", usage=PLAIN, metrics={"latencyMs": 1}, serviceTier={"type": "flex"})
    for pieces in cuts_of(b"".join([START, text("hello"), CLOSE, STOP, usage])):
        charge = stream(*pieces)
        assert usage_of(charge) == TOTALS
        assert charge is not None
        assert charge.usage.service_tier == "flex"


def test_a_cut_stream_is_counted() -> None:
    """Of a stream without its last event the text is counted, of whatever kind it is."""
    reasoning = sent("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"text": "x" * 16}})
    tool = sent("contentBlockStart", contentBlockIndex=1, start={"toolUse": {"toolUseId": "t", "name": "f" * 4}})
    arguments = sent("contentBlockDelta", contentBlockIndex=1, delta={"toolUse": {"input": "x" * 20}})
    charge = stream(START, reasoning, CLOSE, tool, arguments, complete=False)
    assert usage_of(charge, "interrupted", "usage_counted") == {"input_tokens": 7, "output_tokens": 10}


def test_an_exception_inside_a_stream() -> None:
    """An exception in place of an answer costs nothing; after one began, what came is charged."""
    failure = frame(b"throttlingException", b'{"message": "slow down"}')
    assert stream(failure) is None
    assert usage_of(stream(START, text("x" * 40), failure), "usage_counted") == {"input_tokens": 7, "output_tokens": 10}


@pytest.mark.parametrize(
    "frames", [[START], [START, text("x" * 40)], [START, text("x" * 40), CLOSE], [START, text("x" * 40), CLOSE, STOP]]
)
def test_the_ending(frames: list[bytes]) -> None:
    """A stream that is ended in the middle closes what is open, and says why and what it used."""
    ending = reader_of(CONVERSE, *frames, content_type=STREAM, request=REQUEST, finish=False).ending()
    assert ending is not None
    events = [piece.event for piece in AwsEventStreamFramer().feed(ending)]
    kinds = [event.name.decode() for event in events if event is not None]
    assert kinds == ["contentBlockStop"] * (len(frames) == 2) + ["messageStop"] * (STOP not in frames) + ["metadata"]
    (*before, metadata) = [json.loads(event.data) for event in events if event is not None]
    assert before[-1:] == ([] if STOP in frames else [{"stopReason": "max_tokens"}])
    assert metadata["usage"]["outputTokens"] == (10 if len(frames) > 1 else 0)
    assert usage_of(stream(*frames, ending))["input_tokens"] == 7
    usage = sent("metadata", usage=PLAIN)
    assert reader_of(CONVERSE, START, usage, content_type=STREAM, request=REQUEST, finish=False).ending() is None


def read(body: dict[str, Any], path: str = f"/model/{MODEL}/converse", api: Any = CONVERSE) -> MeteredRequest:
    return request_of(api, body, path)


def test_what_is_held() -> None:
    """All of the body as input, and `maxTokens`; the model is in the path, which may be an ARN."""
    body = {"messages": MESSAGES, "inferenceConfig": {"maxTokens": 300}, "serviceTier": {"type": "flex"}}
    request = read(body)
    assert request.estimate == UsageMetrics(
        model=MODEL, input_tokens=len(json.dumps(body)), output_tokens=300, operation="chat", service_tier="flex"
    )
    assert (request.output_limit, request.streams, request.may_reason_hidden) == (300, False, False)
    request = read({"messages": MESSAGES}, f"/bedrock/model/{ARN}/converse-stream")
    assert (request.estimate.model, request.estimate.output_tokens, request.streams) == (ARN, 50, True)
    assert read({}, "/model/a%3A0/converse").estimate.model == "a:0"
    thinking = {"messages": MESSAGES, "additionalModelRequestFields": {"thinking": {"type": "enabled"}}}
    assert read(thinking).may_reason_hidden
    assert read({"additionalModelRequestFields": {"reasoningConfig": {}}}).may_reason_hidden
    assert read({}, "/model/us.anthropic.claude-sonnet-5-v1:0/converse").may_reason_hidden
    body = {"messages": [{"role": "user", "content": [{"cachePoint": {"type": "default"}}]}]}
    counting = Estimates(count_tokens=lambda model, text: len(text) // 4)
    assert read(body).estimate.cache_write_tokens == 0
    cached = request_of(CONVERSE, body, "/model/m/converse", estimates=counting).estimate
    assert cached.cache_write_tokens == cached.input_tokens > 0


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"image": {"format": "png", "source": {"bytes": "x" * 9000}}}, 500),
        ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://x"}}}}, 500),
        ({"document": {"format": "pdf", "source": {"bytes": "x" * 9000}}}, 9000),
        ({"document": {"format": "pdf", "source": {"s3Location": {"uri": "s3://x"}}}}, 700),
        ({"video": {"format": "mp4", "source": {"bytes": "x" * 9000}}}, 700),
        ({"document": {"format": "txt", "source": {"text": "x" * 90}}}, 0),
    ],
)
def test_media(block: dict[str, Any], tokens: int) -> None:
    """Images count as such, films and documents by their bytes or a setting."""
    for content in ([block], [{"toolResult": {"content": [block]}}]):
        body = json.dumps({"messages": [{"role": "user", "content": content}]})
        api = BedrockConverse(image_tokens=500, file_tokens=700)
        estimate = request_of(api, body.encode(), f"/model/{MODEL}/converse").estimate
        assert estimate.input_tokens == len(body) - 9000 * ("x" * 9000 in body) + tokens


def test_a_lowered_limit() -> None:
    """The application gets a lower limit, also where the request set none."""
    sent = json.dumps({"messages": MESSAGES}).encode()
    request = request_of(CONVERSE, sent, "/model/m/converse")
    assert json.loads(CONVERSE.application_body(sent, request, 70))["inferenceConfig"] == {"maxTokens": 70}
    assert CONVERSE.application_body(sent, request, None) is sent
    for limit, expected in ((2000, {"type": "enabled", "budget_tokens": 1999}), (70, {"type": "disabled"})):
        fields = {"thinking": {"type": "enabled", "budget_tokens": 4000}}
        sent = json.dumps({"messages": MESSAGES, "additionalModelRequestFields": fields}).encode()
        lowered = json.loads(CONVERSE.application_body(sent, request, limit))
        assert lowered["additionalModelRequestFields"]["thinking"] == expected
    assert read({"messages": MESSAGES}, "/mine", BedrockConverse(default_model="m")).estimate.model == "m"


def test_refusals() -> None:
    """Clients of AWS tell errors apart by a header."""
    refusal = CONVERSE.refused(Refusal(429, "spend_cap_reached", "no more this month"))
    assert refusal.headers["x-amzn-errortype"] == "ServiceQuotaExceededException"
    assert CONVERSE.error_body(refusal)["message"] == "no more this month"
    with pytest.raises(BadRequestError, match="maxTokens"):
        read({"inferenceConfig": {"maxTokens": 0}})
    with pytest.raises(BadRequestError, match="serviceTier"):
        read({"serviceTier": {"type": 5}})


def test_routes() -> None:
    """Each of Bedrock's routes has its recogniser; counting tokens is free."""
    counting = BedrockTokenCounting()
    assert counting.free
    known: dict[str, Any] = {
        f"/model/{MODEL}/converse": CONVERSE,
        f"/bedrock/model/{ARN}/converse-stream": CONVERSE,
        f"/model/{MODEL}/invoke": INVOKE,
        f"/model/{ARN}/invoke-with-response-stream": INVOKE,
        f"/model/{MODEL}/count-tokens": counting,
    }
    for path, expected in known.items():
        assert [api for api in (CONVERSE, INVOKE, counting) if api.matches(path)] == [expected]


def invoked(document: Any) -> Charge | None:
    return charge_of(INVOKE, json.dumps(document).encode(), content_type=JSON, request=REQUEST)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"type": "message", "content": [], "usage": {"input_tokens": 10, "output_tokens": 20}}, TOTALS),
        ({"output": {"message": {"content": []}}, "usage": PLAIN}, TOTALS),
        ({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20}}, TOTALS),
        ({"generation": "hi", "prompt_token_count": 10, "generation_token_count": 20}, TOTALS),
        ({"inputTextTokenCount": 10, "results": [{"tokenCount": 20, "outputText": "hi"}]}, TOTALS),
        ({"inputTextTokenCount": 10, "embedding": [1.5]}, {"input_tokens": 10}),
    ],
)
def test_models_report_in_their_own_ways(document: dict[str, Any], expected: dict[str, int]) -> None:
    """An invoked model's answer is read as its provider writes it."""
    assert usage_of(invoked(document)) == expected


def test_answers_without_usage() -> None:
    """Embeddings are no output, pictures are counted, and of anything else the text is."""
    assert usage_of(invoked({"embeddings": [[0.5] * 100]}), "usage_counted") == {"input_tokens": 7}
    assert usage_of(invoked({"images": ["x" * 400, "x" * 400]})) == {"images": 2}
    assert usage_of(invoked({"completion": "x" * 22}), "usage_counted") == {"input_tokens": 7, "output_tokens": 10}


def chunk(**inner: Any) -> bytes:
    return frame(b"chunk", json.dumps({"bytes": b64encode(json.dumps(inner).encode()).decode(), "p": "ab"}).encode())


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 20}}
BEGIN = chunk(type="message_start", message={"content": [], "usage": {"input_tokens": 10, "output_tokens": 1}})
BLOCK = chunk(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
DELTA = chunk(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 40})


def test_a_stream_of_an_invoked_model() -> None:
    """The events of the model's provider come inside of Bedrock's; what Bedrock counts stands in for its usage."""
    end = chunk(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20})
    assert usage_of(stream(BEGIN, BLOCK, DELTA, end, chunk(type="message_stop", **METRICS), api=INVOKE)) == TOTALS
    assert usage_of(stream(chunk(generation="hi"), chunk(generation="", **METRICS), api=INVOKE)) == TOTALS
    cached = {"inputTokenCount": 4, "outputTokenCount": 20, "cacheReadInputTokenCount": 6}
    charge = stream(chunk(generation="hi", **{"amazon-bedrock-invocationMetrics": cached}), api=INVOKE)
    assert usage_of(charge) == {**TOTALS, "cache_read_tokens": 6}
    cut = stream(BEGIN, BLOCK, DELTA, api=INVOKE, complete=False)
    assert usage_of(cut, "interrupted", "usage_counted") == {"input_tokens": 10, "output_tokens": 10}


def test_the_ending_of_an_invoked_model() -> None:
    """It is the provider's own, inside of Bedrock's frames."""
    ending = reader_of(INVOKE, BEGIN, BLOCK, DELTA, content_type=STREAM, request=REQUEST, finish=False).ending()
    assert ending is not None
    charge = stream(BEGIN, BLOCK, DELTA, ending, api=INVOKE)
    assert usage_of(charge) == {"input_tokens": 10, "output_tokens": 10}


def test_what_is_held_for_an_invoked_model() -> None:
    """The body is the provider's, the model and whether it streams are in the path."""
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 300, "messages": MESSAGES}
    request = read(body, f"/model/{MODEL}/invoke-with-response-stream", INVOKE)
    assert (request.estimate.model, request.estimate.output_tokens, request.streams) == (MODEL, 300, True)
    assert INVOKE.error_body(Refusal(402, "insufficient_credits", "no"))["message"] == "no"
