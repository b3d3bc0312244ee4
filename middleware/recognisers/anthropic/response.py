"""The usage that a message of Anthropic's reports, and the text that it delivers."""

import json
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.anthropic.usage import has_advisor, read_usage
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, written
from ducto_redis.middleware.sse import ServerSentEvent

_EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    }
)
# Blocks that the model wrote. The results of server-side tools are input.
_WRITTEN = frozenset({"text", "thinking", "tool_use", "server_tool_use", "mcp_tool_use"})
_DELTA_TEXTS = ("text", "thinking", "partial_json")


class _Report(Struct):
    """The fields of a message that reports its usage; the rest, and so all text, is skipped."""

    usage: dict[str, Any] | None = None
    error: Raw = Raw(b"")


class _TextDelta(Struct, tag_field="type", tag="text_delta"):
    text: str


class _TextEvent(Struct, tag_field="type", tag="content_block_delta"):
    """An event that delivers text and nothing else, as most do; any other does not decode as one."""

    delta: _TextDelta


_report_decoder = msgspec.json.Decoder(_Report)
_text_event_decoder = msgspec.json.Decoder(_TextEvent)
_TEXT_EVENTS = (b"event: content_block_delta\ndata: ", b"data: ")


class MessageReader(DeferringReader):
    """A reader of one message: a JSON document, or the events of a stream."""

    report_fields: tuple[bytes, ...] = (b"usage", b"error")

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._report: dict[str, Any] = {}
        self._started = False
        self._open_block: int | None = None
        self._totals_final = False

    def document(self, body: bytes) -> None:
        """Take the whole message. A body of another shape counts as delivered text."""
        try:
            response = _report_decoder.decode(body)
            if (
                response.usage is not None
                and bytes(response.error) in (b"", b"null")
                and self._take_usage(response.usage)
            ):
                return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        message = decode(body)
        if isinstance(message, dict) and message.get("type") == "error":
            self.failed = True
        elif isinstance(message, dict) and isinstance(content := message.get("content"), list):
            for block in content:
                self._take_block(block)
        else:
            self.deliver_all(body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event."""
        data = decode(event.data)
        if not isinstance(data, dict) or not isinstance(kind := data.get("type"), str) or kind not in _EVENTS:
            self.deliver_all(event.data)
        elif kind == "content_block_delta":
            self._take_delta(data.get("delta"))
        elif kind == "content_block_start":
            self._open_block = data.get("index")
            self._take_block(data.get("content_block"))
        elif kind == "content_block_stop":
            self._open_block = None
        elif kind == "message_start":
            self._started = True
            if isinstance(message := data.get("message"), dict):
                self._take_usage(message.get("usage"))
        elif kind == "message_delta":
            self._totals_final = self._take_usage(data.get("usage"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self.failed = True

    def take_plain_text(self, events: bytes) -> bool:
        """Read one event with a piece of text by a fast path. Returns False for anything else."""
        start = next((len(start) for start in _TEXT_EVENTS if events.startswith(start)), 0)
        if not start or events.find(b"\n", start) != len(events) - 2 or b"\r" in events:
            return False
        try:
            event = _text_event_decoder.decode(memoryview(events)[start:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self.deliver(event.delta.text)
        return True

    @property
    def knows_usage(self) -> bool:
        """True once the message's final totals have come: those of the first event leave out what was written since."""
        return self.done or self._totals_final

    def ending(self) -> bytes | None:
        """Return the events that end the stream as one that reached its `max_tokens`."""
        events = self.ending_events()
        return b"".join(b"event: %b\ndata: %b\n\n" % event for event in events) or None

    def ending_events(self) -> list[tuple[bytes, bytes]]:
        """Return the names and the data of these events; none where the stream can only be cut."""
        delivered = self.delivered_tokens  # parses the skipped events, and with them the open block
        if not self._started or self.done or self.of_another_shape:
            return []
        reported = self.reported
        output = delivered if reported is None else max(delivered, reported.output_tokens)
        usage = {**self._report, "output_tokens": output}
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events: list[dict[str, Any]] = [
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ]
        if self._open_block is not None:
            events.insert(0, {"type": "content_block_stop", "index": self._open_block})
        return [(event["type"].encode(), json.dumps(event).encode()) for event in events]

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error."""
        charge = super().charge(complete=complete)
        if charge is not None and "iterations" in self._report and has_advisor(self._report):
            return Charge(charge.usage, (*charge.flags, "advisor_not_charged"))
        return charge

    def _take_usage(self, report: object) -> bool:
        """Take a report of totals so far: what it leaves out stays as it was."""
        if not isinstance(report, dict):
            return False
        for name, value in report.items():
            if value is not None:
                self._report[name] = value
        try:
            usage, whole = read_usage(self._report)
        except InvalidReportError:
            self.invalid = True
            return False
        self.take_report(usage, whole=whole)
        tier = "fast" if self._report.get("speed") == "fast" else self._report.get("service_tier")
        if tier is not None:
            self.take_tier(tier)
        return True

    def _take_block(self, block: object) -> None:
        if not isinstance(block, dict) or not isinstance(kind := block.get("type"), str) or kind not in _WRITTEN:
            return
        for name in ("text", "thinking", "name"):
            if isinstance(text := block.get(name), str):
                self.deliver(text)
        if arguments := block.get("input"):
            self.deliver(written(arguments))

    def _take_delta(self, delta: object) -> None:
        if isinstance(delta, dict):
            for name in _DELTA_TEXTS:
                if isinstance(text := delta.get(name), str):
                    self.deliver(text)
