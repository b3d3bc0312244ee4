"""Recorded answers of Anthropic, Google, AWS and Cohere, replayed: charged is what the provider reported."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import ASGIApp

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware.recognisers.bedrock.frame_writing import frame
from tests.middleware.asgi import call, sending
from tests.middleware.conftest import Accounts
from tests.middleware.test_recordings import FOLDER, read

APIS = ("anthropic", "gemini", "bedrock", "cohere")
RECORDINGS = sorted(path for path in FOLDER.glob("*.json") if path.name.split("_")[1] in APIS)
STREAMS = [path for path in RECORDINGS if "_stream_" in path.name]

# Every part of a usage has its own digits in the price.
PRICES = {"input": "0.000001", "output": "0.01", "cache_read": "100", "cache_write": "10000"}
FORMULA = " + ".join(f"{name}_tokens * {price}" for name, price in PRICES.items())


@pytest.fixture(autouse=True)
async def funds(manager: AsyncCreditManager) -> None:
    await manager.publish_pricing({"version": 1, "models": {"_default": FORMULA}})
    await manager.add_credits("u1", 9 * 10**8)


async def replay(
    wrap: Callable[..., ASGIApp], manager: AsyncCreditManager, recording: dict[str, Any], pieces: list[bytes]
) -> Decimal:
    """Return what was charged for a recorded answer that comes in these pieces, which must all pass unchanged."""
    before = (await manager.get_balance("u1")).balance
    path, _, query = recording["path"].partition("?")
    answering = sending(*pieces, status=recording["status"], content_type=recording["content_type"])
    app = wrap(answering)
    answer = await call(app, recording["request"], path=unquote(path), query_string=query.encode())
    assert answer.status == recording["status"]
    assert answer.body == b"".join(pieces)
    return before - (await manager.get_balance("u1")).balance


def price(reported: dict[str, int]) -> Decimal:
    return sum((reported.get(name, 0) * Decimal(price) for name, price in PRICES.items()), Decimal(0))


def stated(recording: dict[str, Any]) -> dict[str, int]:
    """Return what an answer states whose recording leaves `reported` out."""
    usage = json.loads(recording["body"])["usage"]
    if recording["api"] == "cohere":
        return {"input": usage["billed_units"]["input_tokens"], "output": usage["billed_units"]["output_tokens"]}
    assert usage.get("cacheReadInputTokens", 0) == usage.get("cacheWriteInputTokens", 0) == 0
    return {"input": usage["inputTokens"], "output": usage["outputTokens"]}


def test_the_recordings_are_there() -> None:
    """The replays below are not empty."""
    assert len(RECORDINGS) == 29
    assert len(STREAMS) == 6


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_replayed(metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """The charge is what the provider reported, to the last digit; errors cost nothing; no byte is changed."""
    recording = read(path)
    charged = await replay(metered, manager, recording, [recording["body"].encode()])
    if recording["status"] >= 400:
        assert charged == 0
    else:
        assert charged == price(recording["reported"] or stated(recording))
    last = Accounts(manager).journal()[-1]
    if last.operation == "settle":
        assert json.loads(last.cause).get("flags", []) in ([], ["advisor_not_charged"])


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_cut_everywhere(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path, line_end: str
) -> None:
    """Cut into pieces of one byte, and in two at any place, a stream is charged the same."""
    recording = read(path)
    body = recording["body"].replace("\r\n", "\n").replace("\n", line_end).encode()
    cuts = [[body[i : i + 1] for i in range(len(body))]]
    cuts += [[body[:cut], body[cut:]] for cut in range(1, len(body), 1 + len(body) // 12)]
    for pieces in cuts:
        assert await replay(metered, manager, recording, pieces) == price(recording["reported"])


@pytest.mark.parametrize("path", [path for path in STREAMS if "gemini" in path.name], ids=lambda path: path.stem)
async def test_a_stream_of_gemini_as_an_array(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path
) -> None:
    """Asked for without `alt=sse`, the same events are the elements of an array, and charged the same."""
    recording = read(path)
    events = [event.removeprefix("data: ") for event in recording["body"].replace("\r\n", "\n").strip().split("\n\n")]
    body = ("[" + ",\r\n".join(events) + "\n]").encode()
    recording |= {"path": recording["path"].partition("?")[0], "content_type": "application/json; charset=UTF-8"}
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        assert await replay(metered, manager, recording, pieces) == price(recording["reported"])


async def test_a_binary_stream_of_bedrock(metered: Callable[..., ASGIApp], manager: AsyncCreditManager) -> None:
    """The events of a binary stream are read wherever the frames are cut, and passed on unchanged."""
    usage = {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 5, "totalTokens": 35}
    body = b"".join(
        [
            frame(b"messageStart", b'{"role":"assistant"}'),
            frame(b"contentBlockDelta", '{"contentBlockIndex":0,"delta":{"text":"Grüße"}}'.encode()),
            frame(b"messageStop", b'{"stopReason":"end_turn"}'),
            frame(b"metadata", json.dumps({"usage": usage, "metrics": {"latencyMs": 1}}).encode()),
        ]
    )
    recording = {
        "path": "/model/us.amazon.nova-micro-v1%3A0/converse-stream",
        "request": {"messages": [{"role": "user", "content": [{"text": "hello"}]}]},
        "status": 200,
        "content_type": "application/vnd.amazon.eventstream",
    }
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        charged = await replay(metered, manager, recording, pieces)
        assert charged == price({"input": 15, "output": 20, "cache_read": 5})
