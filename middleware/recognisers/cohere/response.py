"""The usage that Cohere's responses report, and the text that they deliver."""

import json
from typing import Any

from msgspec import structs

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest
from ducto_redis.middleware.recognisers.cohere.usage import read_usage
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, texts
from ducto_redis.middleware.sse import ServerSentEvent

# Not citations: they point at text that was delivered before.
_TEXTS = ("message", "content", "text", "thinking", "tool_plan", "tool_calls", "function", "name", "arguments")
_DONE = b"[DONE]"


class CohereReader(DeferringReader):
    """A reader of one response, of version 2 or 1: a JSON document, or the events of a stream.

    Embeddings and rankings deliver nothing that is charged by its length.
    """

    report_fields = (b"usage", b"meta", b"error")
    # Version 1 streams a line of JSON for each event.
    lines_are_stream = True

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._open_content: object = None
        self._started = False

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        response = decode(body)
        if not isinstance(response, dict):
            self.deliver_all(body)
            return
        for text in texts([response.get("message"), response.get("text")], _TEXTS):
            self.deliver(text)
        self._take_usage(response.get("usage", response.get("meta")))

    def event(self, event: ServerSentEvent) -> None:
        """Take one event."""
        if event.data == _DONE:
            self.done = True
            return
        data = decode(event.data)
        if not isinstance(data, dict) or not isinstance(kind := data.get("type", data.get("event_type")), str):
            self.deliver_all(event.data)
        elif kind == "message-start":
            self._started = True
        elif kind == "message-end":
            self.done = True
            delta = data.get("delta")
            if isinstance(delta, dict):
                self.failed = self.failed or bool(delta.get("error"))
                self._take_usage(delta.get("usage"))
        elif kind == "stream-end":
            self.done = True
            response = data.get("response")
            self._take_usage(response.get("meta") if isinstance(response, dict) else None)
        else:
            if kind == "content-start":
                self._open_content = data.get("index")
            elif kind == "content-end":
                self._open_content = None
            for text in texts([data.get("delta"), data.get("text")], _TEXTS):
                self.deliver(text)

    def ending(self) -> bytes | None:
        """Return the events that end a stream of version 2 as one that reached its `max_tokens`."""
        output = self.delivered_tokens  # parses the skipped events, and with them the open content
        if not self._started or self.done or self.of_another_shape:
            return None
        units = {"input_tokens": self.request.counted_input_tokens, "output_tokens": output}
        events: list[dict[str, Any]] = []
        if self._open_content is not None:
            events.append({"type": "content-end", "index": self._open_content})
        events.append(
            {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": {"billed_units": units}}}
        )
        sent = [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events]
        return b"".join(sent) + b"data: [DONE]\n\n"

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none: searches are the request's."""
        return structs.replace(super().counted_usage(), search_queries=self.request.estimate.search_queries)

    def _take_usage(self, report: object) -> None:
        if report is None:
            return
        try:
            usage, whole = read_usage(report)
        except InvalidReportError:
            self.invalid = True
        else:
            self.take_report(usage, whole=whole)
