"""What a chat completion says about its usage, and what it delivered."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import AnswerReader, Charge, MeteredRequest
from ducto_redis.middleware.recognisers.openai_usage import InvalidReportError, ReportedUsage, read_usage
from ducto_redis.middleware.sse import ServerSentEvent, ServerSentEventParser

_LONGEST_NAME = 128
# What a stream may keep unparsed in memory, in bytes; a longer one is counted piece by piece.
_MOST_SKIPPED = 64 * 2**10
_DONE = b"data: [DONE]\n\n"

# Providers give the same reasoning under several names, sometimes at once.
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
_DELIVERED = ("content", "refusal", "tool_calls", "function_call", "audio")
_KNOWN = frozenset({"choices", "usage", "error", "x_groq"})
_TEXT = ("text", "thinking", "summary", "function", "name", "arguments", "transcript", "content", "refusal")


class _Report(Struct):
    """What of an answer is needed where it reports its usage: the rest, and so all text, is only skipped over."""

    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: Raw = Raw(b"")


class _Delta(Struct, forbid_unknown_fields=True):
    content: str | None = None
    role: str | None = None
    refusal: None = None


class _Choice(Struct):
    delta: _Delta


class _TextChunk(Struct):
    """A chunk that delivers text and nothing else, as most do; any other does not decode as one."""

    choices: list[_Choice]
    usage: None = None
    error: None = None
    x_groq: None = None
    service_tier: str | None = None


_decoder = msgspec.json.Decoder()
_text_chunk_decoder = msgspec.json.Decoder(_TextChunk)
_report_decoder = msgspec.json.Decoder(_Report)


class ChatAnswerReader(AnswerReader):
    """Reads one chat completion: a JSON document, or the chunks of a stream.

    What was delivered matters only where no report says what it costs. So chunks without a report are kept as they
    were sent and parsed only if the stream ends without one, was cut after one, or becomes too long to be kept.
    """

    report_fields = (b"usage", b"error")

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        self._request = request
        self._estimates = estimates
        self._service_tier = request.estimate.service_tier
        self._tier_reported = False
        self._reported: ReportedUsage | None = None
        self._invalid = False
        self._delivered_since_report = False
        self._delivered_bytes = 0
        self._delivered_text: list[str] | None = None if estimates.count_tokens is None else []
        self._of_another_shape = False
        self._failed = False
        self._done = False
        self._skipped: list[bytes] = []
        self._skipped_bytes = 0
        self._skipped_before_report = 0

    def document(self, body: bytes) -> None:
        """Take the whole answer. What is no chat completion counts as delivered text."""
        if self._take_report_only(body):
            return
        self._take(_decode(body), "message", body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one chunk."""
        if event.data == b"[DONE]":
            self._done = True
            return
        self._take(_decode(event.data), "delta", event.data)

    def skipped(self, events: bytes) -> None:
        """Keep chunks that report nothing, in case that they must be counted."""
        self._skipped.append(events)
        self._skipped_bytes += len(events)
        if self._skipped_bytes > _MOST_SKIPPED:
            self._read_skipped()

    def charge(self, *, complete: bool) -> Charge | None:
        """Return what was reported; what was counted, where nothing (usable) was."""
        if self._skipped:
            self._read_what_matters()
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

    def _read_what_matters(self) -> None:
        """Parse what was skipped, as far as it can change the charge."""
        if self._reported is None:
            self._read_skipped()
            return
        after = self._skipped[self._skipped_before_report :]
        del self._skipped[self._skipped_before_report :]
        self._parse(after)
        if self._delivered_since_report or not (
            self._tier_reported or not any(b'"service_tier"' in events for events in self._skipped)
        ):
            self._read_skipped()

    def _read_skipped(self) -> None:
        before, after = self._skipped[: self._skipped_before_report], self._skipped[self._skipped_before_report :]
        self._skipped = []
        self._skipped_bytes = self._skipped_before_report = 0
        if before:
            # It came before the report: it is only counted, and says the tier where the report did not.
            known = self._reported, self._invalid, self._delivered_since_report
            tier = self._service_tier
            self._parse(before)
            self._reported, self._invalid, self._delivered_since_report = known
            if self._tier_reported:
                self._service_tier = tier
        self._parse(after)

    def _parse(self, skipped: list[bytes]) -> None:
        if not skipped or skipped == [_DONE]:
            self._done = self._done or bool(skipped)
            return
        for events in skipped:
            if not self._take_text_chunk(events):
                parser = ServerSentEventParser()
                # Only the start of a stream can have the mark that a parser leaves out.
                for event in parser.feed(b"\n" + events):
                    self.event(event)
                self.unread_bytes += parser.skipped_bytes

    def _take_text_chunk(self, events: bytes) -> bool:
        """Read the quick way what is one event, with one chunk of text. Returns whether it was."""
        if not events.startswith(b"data: {") or events.find(b"\n") != len(events) - 2 or b"\r" in events:
            return False
        try:
            chunk = _text_chunk_decoder.decode(memoryview(events)[6:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for choice in chunk.choices:
            self._deliver(choice.delta.content or "")
        self._take_tier(chunk.service_tier, reported=False)
        return True

    def _take_report_only(self, body: bytes) -> bool:
        """Read the report of a whole document and nothing else of it. Returns whether that was enough."""
        try:
            answer = _report_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if answer.usage is None or bytes(answer.error) not in (b"", b"null"):
            return False
        try:
            self._reported, whole = read_usage(answer.usage)
        except InvalidReportError:
            return False
        self._invalid = not whole
        self._take_tier(answer.service_tier)
        return True

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
        report = answer.get("usage")
        if report is None and isinstance(groq := answer.get("x_groq"), dict):
            report = groq.get("usage")
        if report is not None:
            self._tier_reported = False
        self._take_tier(answer.get("service_tier"), reported=report is not None)
        if report is not None:
            self._take_report(report)

    def _take_tier(self, tier: object, *, reported: bool = True) -> None:
        if isinstance(tier, str) and 1 <= len(tier.encode()) <= _LONGEST_NAME:
            self._service_tier = tier
            self._tier_reported = self._tier_reported or reported

    def _take_report(self, report: object) -> None:
        try:
            self._reported, whole = read_usage(report)
            self._invalid = not whole
            self._delivered_since_report = False
            self._skipped_before_report = len(self._skipped)
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
