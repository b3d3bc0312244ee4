"""Recorded answers of OpenAI's Responses API and its relatives, replayed: charged is what the provider reported."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware.recognisers import OpenAIResponses
from tests.middleware.asgi import call, sending
from tests.middleware.test_recordings import FOLDER, price, read

RECORDINGS = sorted(FOLDER.glob("*_openai_responses_*.json"), key=lambda path: int(path.name.split("_")[0]))
STREAMS = [path for path in RECORDINGS if "_stream_" in path.name]


@pytest.fixture
def wrap(metered: Callable[..., ASGIApp]) -> Callable[..., ASGIApp]:
    return partial(metered, recognisers=[OpenAIResponses()])


async def replay(wrap: Callable[..., ASGIApp], recording: dict[str, Any], pieces: list[bytes]) -> bytes:
    app = wrap(sending(*pieces, status=recording["status"], content_type=recording["content_type"]))
    answer = await call(app, {**recording["request"], "model": "digits"}, path=recording["path"].partition("?")[0])
    assert answer.status == recording["status"]
    return answer.body


def test_the_recordings_are_there() -> None:
    """The replays below are not empty."""
    assert (len(RECORDINGS), len(STREAMS)) == (25, 9)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_replayed(wrap: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """The charge is what the provider reported, to the last digit; errors cost nothing; no byte is changed."""
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    recording = read(path)
    body = recording["body"].encode()
    assert await replay(wrap, recording, [body]) == body
    charged = before - (await manager.get_balance("u1")).balance
    assert charged == (price(recording["reported"]) if recording["reported"] else 0)
    assert (recording["reported"] is None) == (recording["status"] >= 400)


@pytest.mark.parametrize("path", STREAMS[:1] + STREAMS[-1:], ids=lambda path: path.stem)
async def test_cut_in_two(wrap: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """Wherever a stream is cut in two, it is charged the same."""
    recording = read(path)
    body = recording["body"].encode()
    cuts = range(1, len(body), 1 + len(body) // 40)
    await manager.add_credits("u1", 9 * 10**9)
    before = (await manager.get_balance("u1")).balance
    for cut in cuts:
        await replay(wrap, recording, [body[:cut], body[cut:]])
    assert before - (await manager.get_balance("u1")).balance == price(recording["reported"]) * len(cuts)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_cut_into_single_bytes(
    wrap: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path, line_end: str
) -> None:
    """Cut into pieces of one byte a stream is charged the same, whatever its line ends."""
    recording = read(path)
    body = recording["body"].replace("\n", line_end).encode()
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    assert await replay(wrap, recording, [body[i : i + 1] for i in range(len(body))]) == body
    assert before - (await manager.get_balance("u1")).balance == price(recording["reported"])
