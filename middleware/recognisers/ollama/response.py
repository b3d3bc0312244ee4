"""The usage that Ollama's responses report, and the text that they deliver."""

import json
from typing import Any

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.reported import InvalidReportError, total, usage_of
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, written
from ducto_redis.middleware.sse import ServerSentEvent

_KNOWN = frozenset({"message", "response", "embeddings", "error", "done"})
_TEXTS = ("response", "content", "thinking")


class OllamaReader(DeferringReader):
    """A reader of one response: a JSON document, or a stream of lines, of which the last reports the usage."""

    report_fields = (b"eval_count", b"prompt_eval_count", b"error")
    lines_are_stream = True

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._head: dict[str, Any] = {}
        self._prompt_counted = False

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        self._take(decode(body), body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one line."""
        self._take(decode(event.data), event.data)

    def ending(self) -> bytes | None:
        """Return the line that ends the stream as one that reached its `num_predict`."""
        output = self.delivered_tokens  # parses the skipped lines, and with them the shape of a line
        if self.done or self.of_another_shape or not self._head:
            return None
        end = {"done": True, "done_reason": "length", "eval_count": output}
        prompt = {"prompt_eval_count": self.request.counted_input_tokens}
        return json.dumps({**self._head, **end, **prompt}).encode() + b"\n"

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error."""
        charge = super().charge(complete=complete)
        if charge is None or not self._prompt_counted or "usage_counted" in charge.flags:
            return charge
        return Charge(charge.usage, (*charge.flags, "usage_counted"))

    def _take(self, response: object, text: bytes) -> None:
        if not isinstance(response, dict) or _KNOWN.isdisjoint(response):
            self.deliver_all(text)
            return
        if response.get("error"):
            self.failed = True
        message = response.get("message")
        for holder in (response, message if isinstance(message, dict) else {}):
            for name in _TEXTS:
                if isinstance(said := holder.get(name), str):
                    self.deliver(said)
            if calls := holder.get("tool_calls"):
                self.deliver(written(calls))
        if response.get("done"):
            self.done = True
        elif not self._head and ("message" in response or "response" in response):
            self._head = {name: response[name] for name in ("model", "created_at") if name in response}
            self._head |= (
                {"response": ""} if "response" in response else {"message": {"role": "assistant", "content": ""}}
            )
        if "eval_count" in response or "prompt_eval_count" in response:
            self._take_usage(response)

    def _take_usage(self, response: dict[str, Any]) -> None:
        # A response from a prompt that was cached may leave its count out; one of embeddings has no output.
        self._prompt_counted = "prompt_eval_count" not in response
        try:
            prompt = self.request.counted_input_tokens if self._prompt_counted else total(response["prompt_eval_count"])
            usage, whole = usage_of(prompt, total(response.get("eval_count", 0)), {})
        except InvalidReportError:
            self.invalid = True
        else:
            self.take_report(usage, whole=whole)
