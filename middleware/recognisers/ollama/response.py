"""What Ollama's answers say about their usage, and what they delivered."""

import json
from typing import Any

from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.deferring_reader import DeferringReader
from ducto_redis.middleware.recognisers.reported import InvalidReportError, total, usage_of
from ducto_redis.middleware.recognisers.usage_reader import decode, written
from ducto_redis.middleware.sse import ServerSentEvent

_KNOWN = frozenset({"message", "response", "embeddings", "error", "done"})
_TEXTS = ("response", "content", "thinking")


class OllamaReader(DeferringReader):
    """Reads one answer: a JSON document, or a stream of lines, of which the last reports the usage."""

    report_fields = (b"eval_count", b"prompt_eval_count", b"error")
    lines_are_stream = True

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._head: dict[str, Any] = {}
        self._prompt_counted = False

    def document(self, body: bytes) -> None:
        """Take the whole answer."""
        self._take(decode(body), body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one line."""
        self._take(decode(event.data), event.data)

    def ending(self) -> bytes | None:
        """Return the line that ends the stream as one that reached its `num_predict`."""
        output = self.delivered_tokens  # this reads what was put off, and with it what a line looks like
        if self.done or self.of_another_shape or not self._head:
            return None
        end = {"done": True, "done_reason": "length", "eval_count": output}
        prompt = {"prompt_eval_count": self.request.counted_input_tokens}
        return json.dumps({**self._head, **end, **prompt}).encode() + b"\n"

    def charge(self, *, complete: bool) -> Charge | None:
        """Return what was reported; what was counted, where nothing (usable) was; None for an error."""
        charge = super().charge(complete=complete)
        if charge is None or not self._prompt_counted or "usage_counted" in charge.flags:
            return charge
        return Charge(charge.usage, (*charge.flags, "usage_counted"))

    def _take(self, answer: object, text: bytes) -> None:
        if not isinstance(answer, dict) or _KNOWN.isdisjoint(answer):
            self.deliver_all(text)
            return
        if answer.get("error"):
            self.failed = True
        message = answer.get("message")
        for holder in (answer, message if isinstance(message, dict) else {}):
            for name in _TEXTS:
                if isinstance(said := holder.get(name), str):
                    self.deliver(said)
            if calls := holder.get("tool_calls"):
                self.deliver(written(calls))
        if answer.get("done"):
            self.done = True
        elif not self._head and ("message" in answer or "response" in answer):
            self._head = {name: answer[name] for name in ("model", "created_at") if name in answer}
            self._head |= (
                {"response": ""} if "response" in answer else {"message": {"role": "assistant", "content": ""}}
            )
        if "eval_count" in answer or "prompt_eval_count" in answer:
            self._take_usage(answer)

    def _take_usage(self, answer: dict[str, Any]) -> None:
        # An answer from a prompt that was cached may leave its count out; one of embeddings has no output.
        self._prompt_counted = "prompt_eval_count" not in answer
        try:
            prompt = self.request.counted_input_tokens if self._prompt_counted else total(answer["prompt_eval_count"])
            usage, whole = usage_of(prompt, total(answer.get("eval_count", 0)), {})
        except InvalidReportError:
            self.invalid = True
        else:
            self.take_report(usage, whole=whole)
