"""What a chat completion says about its usage, and what it delivered."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from ducto_redis.middleware.recognisers.deferring_reader import DeferringReader
from ducto_redis.middleware.recognisers.openai_usage import read_usage
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import decode, texts
from ducto_redis.middleware.sse import ServerSentEvent

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


_text_chunk_decoder = msgspec.json.Decoder(_TextChunk)
_report_decoder = msgspec.json.Decoder(_Report)


class ChatAnswerReader(DeferringReader):
    """Reads one chat completion: a JSON document, or the chunks of a stream."""

    report_fields = (b"usage", b"error")

    def document(self, body: bytes) -> None:
        """Take the whole answer. What is no chat completion counts as delivered text."""
        if self._take_report_only(body):
            return
        self._take(decode(body), "message", body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one chunk."""
        if event.data == b"[DONE]":
            self.done = True
            return
        self._take(decode(event.data), "delta", event.data)

    def take_plain_text(self, events: bytes) -> bool:
        """Read the quick way what is one event, with one chunk of text. Returns whether it was."""
        if not events.startswith(b"data: {") or events.find(b"\n") != len(events) - 2 or b"\r" in events:
            return False
        try:
            chunk = _text_chunk_decoder.decode(memoryview(events)[6:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for choice in chunk.choices:
            self.deliver(choice.delta.content or "")
        self.take_tier(chunk.service_tier, reported=False)
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
            usage, whole = read_usage(answer.usage)
        except InvalidReportError:
            return False
        self.take_report(usage, whole=whole)
        self.take_tier(answer.service_tier)
        return True

    def _take(self, answer: object, part: str, text: bytes) -> None:
        if not isinstance(answer, dict) or _KNOWN.isdisjoint(answer):
            # Of another shape, as an application's own routes may have: all of it is what was delivered.
            self.deliver_all(text)
            return
        choices = answer.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and isinstance(message := choice.get(part), dict):
                    self._take_message(message)
        if answer.get("error"):
            self.failed = True
        report = answer.get("usage")
        if report is None and isinstance(groq := answer.get("x_groq"), dict):
            report = groq.get("usage")
        if report is not None:
            self._read_report(report)
        self.take_tier(answer.get("service_tier"), reported=report is not None)

    def _read_report(self, report: object) -> None:
        try:
            usage, whole = read_usage(report)
            self.take_report(usage, whole=whole)
        except InvalidReportError:
            self.invalid = True

    def _take_message(self, message: dict[str, Any]) -> None:
        for name in _DELIVERED:
            if value := message.get(name):
                for text in texts(value, _TEXT):
                    self.deliver(text)
        for name in _REASONING:
            if value := message.get(name):
                for text in texts(value, _TEXT):
                    self.deliver(text)
                break
