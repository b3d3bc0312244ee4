"""A model that is none: it recites, in the shape and at the pace of OpenAI's Chat Completions.

It honours `stream`, `stream_options.include_usage` and the limits on output, and reports usage as the real one does.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

_SECONDS_PER_TOKEN = 0.002
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_USUAL_TOKENS = 60

_RECITED = (
    "A ledger is a promise kept in columns. Each line says what came in, what went out, and why; nothing is ever rubbed"
    " out, so whoever asks later finds the same answer. What is held for work that still runs is not yet spent, but it"
    " cannot be promised twice either. When the work is done its true cost is written down, and the rest goes back to"
    " where it came from. Sum the lines and you have the balance; if you do not, somebody has to explain."
)


class StandInModel:
    """Answers chat completions.

    Args:
        request: the request's body, which is a JSON object.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._name = str(request.get("model"))
        messages = request.get("messages") or []
        asked = sum(len(str(message.get("content", "")).encode()) for message in messages)
        self._input_tokens = len(messages) * _TOKENS_PER_MESSAGE + -(-asked // _BYTES_PER_TOKEN)
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        length = _USUAL_TOKENS + asked % 40
        self._finish_reason = "stop" if limit is None or length <= limit else "length"
        self._tokens = list(itertools.islice(_words(), length if limit is None else min(length, limit)))
        self._reports_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._id = f"chatcmpl-{uuid4().hex[:24]}"
        self._created = int(time.time())

    async def answer(self) -> dict[str, Any]:
        """Return the whole answer."""
        await asyncio.sleep(len(self._tokens) * _SECONDS_PER_TOKEN)
        message = {"role": "assistant", "content": "".join(self._tokens), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events."""
        yield self._event({"role": "assistant", "content": "", "refusal": None})
        for token in self._tokens:
            await asyncio.sleep(_SECONDS_PER_TOKEN)
            yield self._event({"content": token})
        yield self._event({}, self._finish_reason)
        if self._reports_usage:
            yield _sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return _sse({**chunk, "usage": None} if self._reports_usage else chunk)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._name}

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self._input_tokens,
            "completion_tokens": len(self._tokens),
            "total_tokens": self._input_tokens + len(self._tokens),
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def _words() -> Iterator[str]:
    for number, word in enumerate(itertools.cycle(_RECITED.split())):
        yield word if number == 0 else f" {word}"


def _sse(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
