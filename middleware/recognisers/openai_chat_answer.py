"""What a chat completion says about its usage, and what it delivered."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import AnswerReader, Charge, MeteredRequest
from ducto_redis.middleware.recognisers.openai_usage import InvalidReportError, ReportedUsage, read_usage
from ducto_redis.middleware.sse import ServerSentEvent

_decoder = msgspec.json.Decoder()
_LONGEST_NAME = 128

# Providers give the same reasoning under several names, sometimes at once.
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
_DELIVERED = ("content", "refusal", "tool_calls", "function_call", "audio")
_KNOWN = frozenset({"choices", "usage", "error", "x_groq"})
_TEXT = ("text", "thinking", "summary", "function", "name", "arguments", "transcript", "content", "refusal")


class ChatAnswerReader(AnswerReader):
    """Reads one chat completion: a JSON document, or the chunks of a stream."""

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        self._request = request
        self._estimates = estimates
        self._service_tier = request.estimate.service_tier
        self._reported: ReportedUsage | None = None
        self._invalid = False
        self._delivered_since_report = False
        self._delivered_bytes = 0
        self._delivered_text: list[str] | None = None if estimates.count_tokens is None else []
        self._of_another_shape = False
        self._failed = False
        self._done = False

    def document(self, body: bytes) -> None:
        """Take the whole answer. What is no chat completion counts as delivered text."""
        self._take(_decode(body), "message", body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one chunk."""
        if event.data == b"[DONE]":
            self._done = True
            return
        self._take(_decode(event.data), "delta", event.data)

    def charge(self, *, complete: bool) -> Charge | None:
        """Return what was reported; what was counted, where nothing (usable) was."""
        flags = [] if complete or self._done else ["interrupted"]
        if self._invalid:
            flags.append("usage_invalid")
        if self.unread_bytes:
            flags.append("answer_unread")
        reported = self._reported
        if reported is None:
            if self._failed and not self._delivered_bytes:
                return None
            flags.append("usage_counted")
            reported = ReportedUsage(self._request.counted_input_tokens, self._counted_output())
        elif self._delivered_since_report and self._counted_output() > reported.output_tokens:
            # The report was of an earlier moment, as in a stream that reports with every chunk and was cut.
            flags.append("usage_counted")
            reported = reported._replace(output_tokens=self._counted_output())
        estimate = self._request.estimate
        usage = UsageMetrics(
            model=estimate.model, operation=estimate.operation, service_tier=self._service_tier, **reported._asdict()
        )
        return Charge(usage, tuple(flags))

    def _take(self, answer: object, part: str, text: bytes) -> None:
        if not isinstance(answer, dict) or _KNOWN.isdisjoint(answer):
            # Of another shape, as an application's own routes may have: all of it is what was delivered.
            self._of_another_shape = True
            self._deliver(text.decode(errors="replace"))
            return
        choices = answer.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and isinstance(message := choice.get(part), dict):
                    self._take_message(message)
        if answer.get("error"):
            self._failed = True
        tier = answer.get("service_tier")
        if isinstance(tier, str) and 1 <= len(tier.encode()) <= _LONGEST_NAME:
            self._service_tier = tier
        report = answer.get("usage")
        if report is None and isinstance(groq := answer.get("x_groq"), dict):
            report = groq.get("usage")
        if report is not None:
            self._take_report(report)

    def _take_report(self, report: object) -> None:
        try:
            self._reported, whole = read_usage(report)
            self._invalid = not whole
            self._delivered_since_report = False
        except InvalidReportError:
            self._invalid = True

    def _take_message(self, message: dict[str, Any]) -> None:
        for name in _DELIVERED:
            if value := message.get(name):
                for text in _texts(value):
                    self._deliver(text)
        for name in _REASONING:
            if value := message.get(name):
                for text in _texts(value):
                    self._deliver(text)
                break

    def _deliver(self, text: str) -> None:
        if not text:
            return
        self._delivered_bytes += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        self._delivered_since_report = True
        if self._delivered_text is not None:
            self._delivered_text.append(text)

    def _counted_output(self) -> int:
        estimate = self._request.estimate
        text = self._delivered_text or []
        counted = self._estimates.charged_tokens(estimate.model, self._delivered_bytes, lambda: "".join(text))
        if self._of_another_shape:  # its bytes may be anything: no more than was held
            counted = min(counted, estimate.output_tokens)
        # What could not be read may be compressed: each byte a token, but no more than was held.
        return counted + min(self.unread_bytes, max(0, estimate.output_tokens - counted))


def _decode(text: bytes) -> object:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(text)  # takes NaN and halves of surrogate pairs, as applications in Python write them
    except (ValueError, RecursionError):
        return None


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name in _TEXT:
            if name in value:
                yield from _texts(value[name])
