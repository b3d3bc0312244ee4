"""The usage that Gemini's responses report, and the text that they deliver."""

import json
from typing import Any

from msgspec import structs

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.google.content_usage import read_usage, reports_tokens, service_tier
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode, written
from ducto_redis.middleware.sse import ServerSentEvent

_KNOWN = frozenset({"candidates", "usageMetadata", "promptFeedback", "error"})
_QUERIES = ("webSearchQueries", "imageSearchQueries")


class GeminiRequest(MeteredRequest, frozen=True):
    """A request to Gemini.

    Attributes:
        array: whether it wants its stream as one array of JSON instead of server-sent events.
    """

    array: bool = False


class GeminiReader(UsageReader):
    """A reader of one response: a JSON document, the events of a stream, or the elements of a streamed array."""

    array_is_stream = True

    def __init__(self, request: GeminiRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._array = request.array
        self._report: dict[str, Any] = {}
        self._queries: set[str] = set()
        self._covered_bytes = 0

    def document(self, body: bytes) -> None:
        """Take the whole response, or all of an array at once."""
        response = decode(body)
        for item in response if isinstance(response, list) else [response]:
            self._take(item, body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event, or one element of the array."""
        self._take(decode(event.data), event.data)

    def ending(self) -> bytes | None:
        """Return what ends the stream as one that reached its `maxOutputTokens`."""
        if self.of_another_shape:
            return None
        candidate = {"content": {"parts": [], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}
        response: dict[str, Any] = {"candidates": [candidate]}
        if self._report:
            response["usageMetadata"] = self._report
        encoded = json.dumps(response).encode()
        return b",\n" + encoded + b"]" if self._array else b"data: " + encoded + b"\n\n"

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error.

        A response that searched the web is one web search, and one search query for each query it made: models are
        priced by the one or by the other.
        """
        charge = super().charge(complete=complete)
        if charge is None or not self._queries:
            return charge
        usage = structs.replace(charge.usage, web_search_calls=1, search_queries=len(self._queries))
        return Charge(usage, charge.flags)

    def _take(self, response: object, text: bytes) -> None:
        if not isinstance(response, dict) or _KNOWN.isdisjoint(response):
            self.deliver_all(text)
            return
        candidates = response.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                self._take_candidate(candidate)
        if response.get("error"):
            self.failed = True
        if (report := response.get("usageMetadata")) is not None:
            self._take_usage(report)

    def _take_usage(self, report: object) -> None:
        """Take a report of totals so far: what it leaves out stays as it was."""
        if not isinstance(report, dict):
            self.invalid = True
            return
        self._report.update(report)
        self.take_tier(service_tier(report))
        if not reports_tokens(report):
            return
        if report.get("candidatesTokenCount") is not None:
            self._covered_bytes = self._delivered_bytes
        try:
            usage, whole = read_usage(self._report)
        except InvalidReportError:
            self.invalid = True
            return
        self.take_report(usage, whole=whole)
        # The first events of a stream report the prompt only.
        self.delivered_since_report = self._delivered_bytes > self._covered_bytes

    def _take_candidate(self, candidate: dict[str, Any]) -> None:
        if candidate.get("finishReason"):
            self.done = True
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._take_part(part)
        grounding = candidate.get("groundingMetadata")
        if isinstance(grounding, dict):
            for name in _QUERIES:
                queries = grounding.get(name)
                if isinstance(queries, list):
                    # Empty ones are not charged.
                    self._queries.update(query for query in queries if isinstance(query, str) and query)

    def _take_part(self, part: dict[str, Any]) -> None:
        if isinstance(text := part.get("text"), str):
            self.deliver(text)
        elif isinstance(call := part.get("functionCall"), dict):
            self.deliver(written(call))
        elif isinstance(code := part.get("executableCode"), dict) and isinstance(text := code.get("code"), str):
            self.deliver(text)
