"""Responses as OpenAI's Responses API gives them, whole and streamed."""

import json
from collections.abc import Sequence
from typing import Any

RESPONSES = "/v1/responses"
REQUEST = {"model": "m", "input": "hello", "max_output_tokens": 100}


def response(
    status: str = "completed",
    used: tuple[int, int] | None = (10, 20),
    *,
    output: Sequence[dict[str, Any]] = (),
    response_id: str = "resp_1",
    **more: Any,
) -> dict[str, Any]:
    """A response; `used` are the tokens that it reports of input and output."""
    usage = None
    if used is not None:
        usage = {
            "input_tokens": used[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(used),
        }
    return {
        "id": response_id, "object": "response", "created_at": 1, "status": status, "background": False, "error": None,
        "incomplete_details": None, "model": "m-2026", "output": list(output), "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "service_tier": "default", "usage": usage, **more,
    }  # fmt: skip


def message(text: str = "hi", status: str = "completed") -> dict[str, Any]:
    """An item of an output: a message."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


class Events:
    """The events of a streamed response, numbered as they are made."""

    def __init__(self, **more: Any) -> None:
        self._number = 0
        self._more = more

    def event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    def about(self, kind: str, status: str, used: tuple[int, int] | None = None, **more: Any) -> bytes:
        """An event that carries the response."""
        return self.event(f"response.{kind}", response=response(status, used, **{**self._more, **more}))

    def start(self) -> list[bytes]:
        """What comes before the text of a message."""
        item = {**message(status="in_progress"), "content": []}
        (part,) = message("")["content"]
        return [
            self.about("created", "in_progress"),
            self.about("in_progress", "in_progress"),
            self.event("response.output_item.added", output_index=0, item=item),
            self.event("response.content_part.added", output_index=0, content_index=0, item_id="msg_1", part=part),
        ]

    def text(self, delta: str) -> bytes:
        return self.event("response.output_text.delta", output_index=0, content_index=0, item_id="msg_1", delta=delta)

    def completed(self, used: tuple[int, int] | None = (10, 20), **more: Any) -> bytes:
        return self.about("completed", "completed", used, **more)
