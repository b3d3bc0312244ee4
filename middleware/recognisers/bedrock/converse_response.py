"""The usage that Bedrock's Converse reports, and the text that it delivers."""

import json
from typing import Any

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest
from ducto_redis.middleware.recognisers.bedrock.converse_usage import read_usage, service_tier
from ducto_redis.middleware.recognisers.bedrock.frame_writing import frame
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, texts, written
from ducto_redis.middleware.sse import ServerSentEvent

_TEXTS = ("text", "toolUse", "reasoningContent", "reasoningText", "name")


class ConverseReader(DeferringReader):
    """A reader of one response: a JSON document, or the events of a binary stream, told apart by what is in them."""

    report_fields = (b"usage", b"message")

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._open_block: object = None
        self._stopped = False

    def document(self, body: bytes) -> None:
        """Take the whole response. A body of another shape counts as delivered text."""
        response = decode(body)
        output = response.get("output") if isinstance(response, dict) else None
        if not isinstance(response, dict) or not ("usage" in response or isinstance(output, dict)):
            self.deliver_all(body)
            return
        message = output.get("message") if isinstance(output, dict) else None
        if isinstance(message, dict):
            self._deliver_content(message.get("content"))
        self._take_metadata(response)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event."""
        data = decode(event.data)
        if not isinstance(data, dict):
            self.deliver_all(event.data)
        elif event.name.endswith(b"xception") or "message" in data:
            self.failed = True
        elif "delta" in data:
            self._open_block = data.get("contentBlockIndex")
            self._deliver_content(data["delta"])
        elif "start" in data:
            self._open_block = data.get("contentBlockIndex")
            self._deliver_content(data["start"])
        elif "contentBlockIndex" in data:
            self._open_block = None
        elif "stopReason" in data:
            self._stopped = True
        elif "usage" in data:
            self.done = True
            self._take_metadata(data)

    def ending(self) -> bytes | None:
        """Return the events that end the stream as one that reached its `maxTokens`."""
        output = self.delivered_tokens  # parses the skipped events, and with them the open block
        if self.done or self.of_another_shape:
            return None
        frames = []
        if self._open_block is not None:
            frames.append(frame(b"contentBlockStop", json.dumps({"contentBlockIndex": self._open_block}).encode()))
        if not self._stopped:
            frames.append(frame(b"messageStop", b'{"stopReason":"max_tokens"}'))
        counted = self.request.counted_input_tokens
        usage = {"inputTokens": counted, "outputTokens": output, "totalTokens": counted + output}
        frames.append(frame(b"metadata", json.dumps({"usage": usage, "metrics": {"latencyMs": 0}}).encode()))
        return b"".join(frames)

    def _take_metadata(self, holder: dict[str, Any]) -> None:
        if holder.get("usage") is not None:
            try:
                usage, whole = read_usage(holder["usage"])
                self.take_report(usage, whole=whole)
            except InvalidReportError:
                self.invalid = True
        self.take_tier(service_tier(holder))

    def _deliver_content(self, content: object) -> None:
        for text in texts(content, _TEXTS):
            self.deliver(text)
        for block in content if isinstance(content, list) else [content]:
            tool = block.get("toolUse") if isinstance(block, dict) else None
            if isinstance(tool, dict) and (arguments := tool.get("input")):
                self.deliver(arguments if isinstance(arguments, str) else written(arguments))
