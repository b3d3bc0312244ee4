"""The usage that a chat completion reports, and the text that it delivers."""

from typing import Any

import msgspec
from msgspec import Struct

from ducto_redis.middleware.recognisers.openai.choices_response import ChoicesReader
from ducto_redis.middleware.recognisers.usage_reader import texts

# Providers give the same reasoning under several names, sometimes at once.
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
_DELIVERED = ("content", "refusal", "tool_calls", "function_call", "audio")
_TEXT = ("text", "thinking", "summary", "function", "name", "arguments", "transcript", "content", "refusal")


class _Delta(Struct, forbid_unknown_fields=True):
    content: str | None = None
    role: str | None = None
    refusal: None = None


class _Choice(Struct):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None


class _TextChunk(Struct):
    """A chunk that delivers text and nothing else, as most do; any other does not decode as one."""

    choices: list[_Choice]
    usage: None = None
    error: None = None
    x_groq: None = None
    service_tier: str | None = None


_text_chunk_decoder = msgspec.json.Decoder(_TextChunk)


class ChatResponseReader(ChoicesReader):
    """A reader of one chat completion: a JSON document, or the chunks of a stream."""

    chunk_object = "chat.completion.chunk"

    def take_plain_text(self, events: bytes) -> bool:
        """Read one event with one chunk of text by a fast path. Returns False for anything else."""
        if not events.startswith(b"data: {") or events.find(b"\n") != len(events) - 2 or b"\r" in events:
            return False
        data = events[6:]
        try:
            chunk = _text_chunk_decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for choice in chunk.choices:
            self.deliver(choice.delta.content or "")
            if choice.finish_reason:
                self.finish_choice(choice.index)
        self.take_tier(chunk.service_tier, reported=False)
        self.latest = data
        return True

    def take_choice(self, choice: dict[str, Any]) -> None:
        """Deliver the text, reasoning (once), refusal, calls of tools and sound of a message, or of a delta."""
        message = choice.get("delta")
        if not isinstance(message, dict):
            message = choice.get("message")
        if not isinstance(message, dict):
            return
        for name in _DELIVERED:
            if value := message.get(name):
                for text in texts(value, _TEXT):
                    self.deliver(text)
        for name in _REASONING:
            if value := message.get(name):
                for text in texts(value, _TEXT):
                    self.deliver(text)
                break

    def cut_choice(self, index: int) -> dict[str, object]:
        """Return a choice of a chunk that ends it for want of tokens."""
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
