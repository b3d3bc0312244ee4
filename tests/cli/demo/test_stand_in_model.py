"""The stand-in model speaks OpenAI's Chat Completions."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ducto_redis.cli.demo.stand_in_model import StandInModel

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "What is a ledger?"}]}


async def stream(request: dict[str, Any]) -> list[ChatCompletionChunk]:
    *events, end = [event async for event in StandInModel(request).stream()]
    assert end == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)
    return [ChatCompletionChunk.model_validate(json.loads(event[6:])) for event in events]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def test_plain_answer() -> None:
    """An answer is a chat completion whose usage adds up."""
    answer = ChatCompletion.model_validate(await StandInModel(REQUEST).answer())
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == len((answer.choices[0].message.content or "").split())


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_limit_is_honoured(limit: str) -> None:
    """An answer that would be longer than asked for is cut, and says so; streamed as well."""
    request = {**REQUEST, limit: 7}
    answer = ChatCompletion.model_validate(await StandInModel(request).answer())
    assert (answer.choices[0].finish_reason, answer.usage and answer.usage.completion_tokens) == ("length", 7)
    chunks = await stream(request)
    assert [it.choices[0].finish_reason for it in chunks if it.choices[0].finish_reason] == ["length"]
    assert len(text_of(chunks).split()) == 7


async def test_stream_says_the_same() -> None:
    """The stream's pieces are the plain answer's text; the first chunk has the role."""
    chunks = await stream(REQUEST)
    answer = await StandInModel(REQUEST).answer()
    assert text_of(chunks) == answer["choices"][0]["message"]["content"]
    assert chunks[0].choices[0].delta.role == "assistant"


async def test_usage_comes_only_if_asked_for() -> None:
    """With include_usage a last chunk without choices has the usage; without it no chunk has any."""
    assert all(chunk.usage is None for chunk in await stream(REQUEST))
    *chunks, last = await stream({**REQUEST, "stream_options": {"include_usage": True}})
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == (await StandInModel(REQUEST).answer())["usage"]["completion_tokens"]
