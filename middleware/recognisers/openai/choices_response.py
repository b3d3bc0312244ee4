"""Answers made of choices, as chat completions and the older completions are: their usage, and how a stream ends."""

import json
import time
from abc import abstractmethod
from typing import Any

import msgspec
from msgspec import Struct, structs

from ducto_redis.engine.ids import new_id
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest
from ducto_redis.middleware.recognisers.openai.chat_usage import read_usage, reported_searches
from ducto_redis.middleware.recognisers.openai.stream_options import StreamRequest
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode
from ducto_redis.middleware.sse import ServerSentEvent

_KNOWN = frozenset({"choices", "usage", "error", "x_groq"})
# The fields that all chunks of one stream share.
_COMMON = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
_DONE = b"data: [DONE]\n\n"


class _Report(Struct):
    """The fields of a response that reports its usage; the rest, and so all text, is skipped."""

    usage: dict[str, Any] | None = None
    service_tier: str | None = None


_report_decoder = msgspec.json.Decoder(_Report)


class ChoicesReader(DeferringReader):
    """A reader of one response: a JSON document, or the chunks of a stream.

    Args:
        request: what was asked.
        estimates: how tokens are counted where no usage is reported.
        rest_is_reasoning: as of `OpenAIChat`.
    """

    report_fields = (b"usage", b"error")
    chunk_object = ""
    """The `object` of a chunk."""

    def __init__(self, request: MeteredRequest, estimates: Estimates, *, rest_is_reasoning: bool = False) -> None:
        super().__init__(request, estimates)
        self.hides_events = isinstance(request, StreamRequest) and request.adds_usage
        self.latest: dict[str, Any] | bytes = b"{}"
        self.finished: set[int] = set()
        self._rest_is_reasoning = rest_is_reasoning
        self._is_usage_only = False

    @abstractmethod
    def take_choice(self, choice: dict[str, Any]) -> None:
        """Deliver the content of a choice: of a document, or of a chunk."""

    @abstractmethod
    def cut_choice(self, index: int) -> dict[str, object]:
        """Return a choice of a chunk that ends it for want of tokens."""

    def document(self, body: bytes) -> None:
        """Take the whole response. A body of another shape counts as delivered text."""
        try:
            # Where the report is usable, nothing else is read.
            response = _report_decoder.decode(body)
            if response.usage is not None and self._read_report(response.usage):
                if response.service_tier is not None:
                    self.take_tier(response.service_tier)
                return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        self._take(decode(body), body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one chunk."""
        self._is_usage_only = False
        if event.data == b"[DONE]":
            self.done = True
            return
        self._take(decode(event.data), event.data)

    def hidden(self, event: ServerSentEvent) -> bool:
        """Hide the chunk that only the middleware asked for. One with choices is never hidden."""
        return self.hides_events and self._is_usage_only

    def ending(self) -> bytes | None:
        """Return a chunk that ends every open choice with "length", then [DONE]."""
        if self._skipped:
            self._read_skipped()
        if self.done:
            return b""
        is_open = [index for index in range(self.request.answers) if index not in self.finished]
        if self.failed or not is_open:
            return _DONE
        latest = decode(self.latest) if isinstance(self.latest, bytes) else self.latest
        assert isinstance(latest, dict)
        chunk: dict[str, object] = {
            "id": f"cmpl-{new_id()}",
            "object": self.chunk_object,
            "created": int(time.time()),
            "model": self.request.estimate.model,
            **{name: latest[name] for name in _COMMON if name in latest},
            "choices": [self.cut_choice(index) for index in is_open],
        }
        # The stream's own ids may be anything that JSON can hold: Python's own encoder takes it all.
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n" + _DONE

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none."""
        return structs.replace(super().counted_usage(), web_search_calls=self.request.estimate.web_search_calls)

    def _take(self, response: object, text: bytes) -> None:
        if not isinstance(response, dict) or _KNOWN.isdisjoint(response):
            # Of another shape, as an application's own routes may have: all of it is what was delivered.
            self.deliver_all(text)
            return
        choices = response.get("choices")
        report = response.get("usage")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self.take_choice(choice)
                    if choice.get("finish_reason"):
                        self.finish_choice(choice.get("index"))
                    if choice.get("error"):
                        self.failed = True
                    if report is None:  # Moonshot reports there
                        report = choice.get("usage")
        if response.get("error"):
            self.failed = True
        if report is None and isinstance(groq := response.get("x_groq"), dict):
            report = groq.get("usage")
        if report is not None:
            self._is_usage_only = choices == [] and not response.get("error")
            self._read_report(report)
        self.take_tier(response.get("service_tier"), reported=report is not None)
        self.latest = response

    def finish_choice(self, index: object) -> None:
        """Note that a choice has come to its own end."""
        self.finished.add(index if type(index) is int else 0)

    def _read_report(self, report: object) -> bool:
        """Take a report. Returns False where it is none."""
        try:
            usage, whole = read_usage(report, rest_is_reasoning=self._rest_is_reasoning)
        except InvalidReportError:
            self.invalid = True
            return False
        searches = self.request.estimate.web_search_calls
        if searches and isinstance(report, dict) and reported_searches(report) is None:
            usage = structs.replace(usage, web_search_calls=searches)
        self.take_report(usage, whole=whole)
        return True
