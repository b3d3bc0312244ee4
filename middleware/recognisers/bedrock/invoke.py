"""Bedrock's InvokeModel: bodies and responses as the provider of the model has them."""

import re
from base64 import b64decode
from typing import Any
from urllib.parse import unquote

import msgspec

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.anthropic.messages import AnthropicMessages
from ducto_redis.middleware.recognisers.anthropic.response import MessageReader
from ducto_redis.middleware.recognisers.base import MeteredRequest, ResponseReader
from ducto_redis.middleware.recognisers.bedrock import converse_usage as bedrock_usage
from ducto_redis.middleware.recognisers.bedrock.frame_writing import frame
from ducto_redis.middleware.recognisers.openai import chat_usage as openai_usage
from ducto_redis.middleware.recognisers.reported import InvalidReportError, take_parts, total, usage_of
from ducto_redis.middleware.recognisers.usage_reader import decode, texts
from ducto_redis.middleware.sse import ServerSentEvent

_INVOKE = re.compile(r"/model/(.+)/invoke(-with-response-stream)?$")
_METRICS = "amazon-bedrock-invocationMetrics"
# Where models other than Anthropic's report: Bedrock itself in streams, Meta, Amazon Titan.
_TOTALS = (
    ("inputTokenCount", "outputTokenCount"),
    ("prompt_token_count", "generation_token_count"),
    ("inputTextTokenCount", "totalOutputTextTokenCount"),
)
_CACHE = {"cacheReadInputTokenCount": "cache_read_tokens", "cacheWriteInputTokenCount": "cache_write_tokens"}
_EMBEDDINGS = frozenset({"embedding", "embeddings", "embeddingsByType"})
_IMAGES = ("images", "artifacts")
_TEXTS = ("generation", "outputText", "completion", "text", "outputs", "results", "delta", "contentBlockDelta")


class BedrockInvoke(AnthropicMessages):
    """`POST .../model/{model}/invoke` and `.../invoke-with-response-stream`, as for Anthropic's models.

    Other models are read as far as they are alike: a limit named `max_tokens`, and a usage that is reported as by
    Converse, OpenAI, Meta or Titan. Any other is counted: for embeddings the input, and pictures by their number.
    """

    def matches(self, path: str) -> bool:
        """Tell whether a request to this path belongs to the API."""
        return _INVOKE.search(path) is not None

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return InvokeReader(request, estimates)

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return a refusal in the shape of Bedrock's errors."""
        return refusal.as_message()

    def refused(self, refusal: Refusal) -> Refusal:
        """Return a refusal with the header by which clients of AWS tell errors apart."""
        return refusal.for_bedrock()

    def model_in_path(self, path: str) -> str | None:
        """Return the model that a path names; None where it names none."""
        named = _INVOKE.search(path)
        return None if named is None else unquote(named[1])

    def streams(self, body_says: bool | None, path: str) -> bool:
        """Tell whether a request asks for its response in pieces, which its path says."""
        named = _INVOKE.search(path)
        return named is not None and named[2] is not None


class InvokeReader(MessageReader):
    """A reader of one response: a JSON document, or a binary stream whose events carry the provider's own."""

    report_fields = ()

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = decode(body)
        if not isinstance(response, dict) or "usage" in response or "content" in response:
            super().document(body)
        elif not self._take_other(response) and _EMBEDDINGS.isdisjoint(response):
            images = next((images for name in _IMAGES if isinstance(images := response.get(name), list)), None)
            if images is None:
                super().document(body)
            else:
                self.take_report(UsageMetrics(images=len(images)))

    def event(self, event: ServerSentEvent) -> None:
        """Take one event of the binary stream."""
        chunk = decode(event.data)
        if event.name.endswith(b"xception"):
            self.failed = True
        elif not isinstance(chunk, dict) or not isinstance(chunk.get("bytes"), str):
            self.deliver_all(event.data)
        else:
            try:
                inner = b64decode(chunk["bytes"], validate=True)
            except ValueError:
                inner = event.data
            self._take_inner(inner)

    def ending(self) -> bytes | None:
        """Return the events that end the stream as one that reached its `max_tokens`."""
        return (
            b"".join(frame(b"chunk", msgspec.json.encode({"bytes": data})) for _, data in self.ending_events()) or None
        )

    def _take_inner(self, data: bytes) -> None:
        inner = decode(data)
        if not isinstance(inner, dict):
            self.deliver_all(data)
            return
        if isinstance(inner.get("type"), str):
            super().event(ServerSentEvent(b"", data))
        elif not self._take_other(inner):
            for text in texts(inner, _TEXTS):
                self.deliver(text)
        metrics = inner.get(_METRICS)
        if self.reported is None and isinstance(metrics, dict):
            self.done = self._take_other(metrics)

    def _take_usage(self, report: object) -> bool:
        if not isinstance(report, dict) or "input_tokens" in report or self._report:
            return super()._take_usage(report)
        read_usage = bedrock_usage.read_usage if "inputTokens" in report else openai_usage.read_usage
        try:
            usage, whole = read_usage(report)
        except InvalidReportError:
            self.invalid = True
            return False
        self.take_report(usage, whole=whole)
        return True

    def _take_other(self, report: dict[str, Any]) -> bool:
        """Take what a model of yet another provider reports. Returns whether it reported anything."""
        for prompt, output in _TOTALS:
            if prompt in report:
                results = report.get("results")
                if output not in report and isinstance(results, list):  # Titan counts each of its results
                    counts = [item.get("tokenCount", 0) for item in results if isinstance(item, dict)]
                    report = {**report, output: sum(count for count in counts if isinstance(count, int))}
                try:
                    parts: dict[str, int] = {}
                    whole = take_parts(report, _CACHE, parts)
                    tokens = total(report[prompt]) + sum(parts.values())
                    usage, fits = usage_of(tokens, total(report.get(output, 0)), parts)
                except InvalidReportError:
                    self.invalid = True
                    return False
                self.take_report(usage, whole=whole and fits)
                return True
        return False
