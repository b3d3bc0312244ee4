"""The usage that a response reports, and the text that it delivers."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.openai.responses_usage import count_calls, read_usage, reported_searches
from ducto_redis.middleware.recognisers.reported import InvalidReportError
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, texts
from ducto_redis.middleware.sse import ServerSentEvent

_FINISHED = ("completed", "incomplete", "failed", "cancelled")
_RUNNING = ("queued", "in_progress")
_KNOWN = frozenset({"object", "output", "status", "usage", "error", "response", "type"})
# The fields of an output's items whose text the model wrote.
_TEXT = ("text", "refusal", "transcript", "content", "summary", "name", "arguments", "input", "code")
_SOUND = "response.audio.delta"
_MESSAGE_TEXT = "response.output_text.delta"


class _TextDelta(Struct):
    """An event that delivers text and nothing else, as most do."""

    type: str
    delta: str
    sequence_number: int = -1
    output_index: int = 0


_text_delta_decoder = msgspec.json.Decoder(_TextDelta)


class ResponsesReader(DeferringReader):
    """A reader of one response: a JSON document, or the events of a stream.

    The charge of a response that is not finished, as of one in the background, says that there is more to come.
    """

    report_fields = (b"usage", b"error", b"incomplete_details")

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._response: Mapping[str, Any] = {}
        self.names_work = request.holds_worst_case and request.streams
        self._is_stream = False
        self._sequence_number = -1
        self._items: dict[int, dict[str, Any]] = {}
        self._message_text: dict[int, bytearray] = {}
        self._in_pieces: set[int] = set()

    @property
    def knows_usage(self) -> bool:
        """True once the usage of the whole response has been reported."""
        return self.reported is not None

    @property
    def work_id(self) -> str | None:
        """The id of the response, once its stream has named it."""
        if not self._response:
            self._read_skipped()
        response_id = self._response.get("id")
        return response_id if isinstance(response_id, str) and response_id else None

    def document(self, body: bytes) -> None:
        """Take a whole response. A body of another shape counts as delivered text."""
        response = decode(body)
        if isinstance(response, dict) and not _KNOWN.isdisjoint(response):
            self._take_response(response)
        else:
            self.deliver_all(body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event of a stream."""
        self._is_stream = True
        if event.data == b"[DONE]":
            return
        data = decode(event.data)
        if not isinstance(data, dict) or _KNOWN.isdisjoint(data):
            self.deliver_all(event.data)
            return
        kind, index = data.get("type"), data.get("output_index")
        index = index if type(index) is int else 0
        if type(number := data.get("sequence_number")) is int:
            self._sequence_number = max(self._sequence_number, number)
        match data:
            case {"response": dict(response)}:
                self._take_response(response)
            case {"delta": str(delta)}:
                self._take_delta(kind, index, delta)
            case {"item": dict(item)}:
                self._take_item(index, item, whole=kind == "response.output_item.done")
            case {"error": error} if error:
                self.failed = True
            case {"type": "error"}:
                self.failed = True

    def take_plain_text(self, events: bytes) -> bool:
        """Read one event with a piece of text by a fast path. Returns False for anything else."""
        start = events.find(b"data: {")
        if start < 0 or events.find(b"\n", start) != len(events) - 2 or b"\r" in events:
            return False
        try:
            event = _text_delta_decoder.decode(memoryview(events)[start + 6 :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._is_stream = True
        self._sequence_number = max(self._sequence_number, event.sequence_number)
        self._take_delta(event.type, event.output_index, event.delta)
        return True

    def ending(self) -> bytes | None:
        """Return the event of a response that reached its limit; None before the stream has named its response."""
        output_tokens = self.delivered_tokens  # parses the skipped events
        if not self._response:
            return None
        input_tokens = self.request.counted_input_tokens
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": list(self._output_so_far()),
            "usage": {
                "input_tokens": input_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": input_tokens + output_tokens,
            },
        }
        event = {"type": "response.incomplete", "sequence_number": self._sequence_number + 1, "response": response}
        # Not msgspec: halves of surrogate pairs, as some applications write them, must not spoil it.
        return f"event: response.incomplete\ndata: {json.dumps(event)}\n\n".encode()

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, else the counted one; None for a response that failed and reports nothing."""
        if not self._response.get("output") and any(b'_call"' in events for events in self._skipped):
            self._read_skipped()  # some providers list what a response called only while it streams
        if self.reported is None:
            self._read_skipped()
            if not self._delivered_bytes:
                self._deliver_items(self._response.get("output"))
        response, request = self._response, self.request
        status, response_id = response.get("status"), response.get("id") or request.continues
        if self._goes_on(status) and isinstance(response_id, str) and response_id:
            return Charge(UsageMetrics(input_tokens=request.counted_input_tokens), later=response_id)
        charge = super().charge(complete=complete)
        if charge is None or (self.reported is None and status in ("failed", "cancelled")):
            return None
        output = response.get("output")
        calls = count_calls(output if output and isinstance(output, list) else self._items.values())
        if (searches := reported_searches(response)) is not None:
            calls["web_search_calls"] = searches
        return Charge(structs.replace(charge.usage, **calls), charge.flags)

    def _goes_on(self, status: object) -> bool:
        if self.reported is not None or status in _FINISHED:
            return False
        if self.request.continues:
            return True
        return status in _RUNNING and (not self._is_stream or self._response.get("background") is True)

    def _take_response(self, response: dict[str, Any]) -> None:
        finished = response.get("status") in _FINISHED
        if self.done and not finished:
            return  # of an earlier event, which was skipped
        self._response = response
        self.done = finished
        self.failed = self.failed or bool(response.get("error"))
        report = response.get("usage")
        if report is not None:
            try:
                usage, whole = read_usage(report)
                self.take_report(usage, whole=whole)
            except InvalidReportError:
                self.invalid = True
        if response.get("service_tier") != "auto":  # which says that the provider may choose, before it has chosen
            self.take_tier(response.get("service_tier"), reported=report is not None)

    def _take_delta(self, kind: object, index: int, delta: str) -> None:
        if kind == _SOUND:
            return
        self.deliver(delta)
        self._in_pieces.add(index)
        if kind == _MESSAGE_TEXT:
            self._message_text.setdefault(index, bytearray()).extend(delta.encode(errors="replace"))

    def _take_item(self, index: int, item: dict[str, Any], *, whole: bool) -> None:
        self._items[index] = item
        if whole:
            self._message_text.pop(index, None)
            if index not in self._in_pieces:
                self._deliver_items([item])

    def _deliver_items(self, items: object) -> None:
        for item in items if isinstance(items, list) else ():
            for text in texts(item, _TEXT):
                self.deliver(text)

    def _output_so_far(self) -> Iterator[dict[str, Any]]:
        for index, item in sorted(self._items.items()):
            if item.get("status") == "completed" or (item.get("type") == "reasoning" and "status" not in item):
                yield item
            elif item.get("type") == "message":
                text = self._message_text.get(index, b"").decode()
                part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                yield {**item, "status": "incomplete", "content": [part]}
