"""Recorded answers of real providers, replayed: charged is what the provider reported."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from ducto_redis import AsyncCreditManager
from tests.middleware.asgi import call, sending
from tests.middleware.conftest import Accounts

FOLDER = Path(__file__).parent / "recordings"
RECORDINGS = sorted(FOLDER.glob("*_openai_chat_*.json"), key=lambda path: int(path.name.split("_")[0]))


def read(path: Path) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads(path.read_text())
    return recording


def price(reported: dict[str, int]) -> Decimal:
    """What the model "digits" costs: each part has its own digits."""
    return (
        reported["input"] * Decimal("0.000001")
        + reported["output"] * Decimal("0.01")
        + reported["cache_read"] * 100
        + reported["reasoning"] * 1_000_000
    )


async def replay(wrap: Callable[..., ASGIApp], recording: dict[str, Any], pieces: list[bytes]) -> bytes:
    request = {**recording["request"], "model": "digits"}
    app = wrap(sending(*pieces, status=recording["status"], content_type=recording["content_type"]))
    answer = await call(app, request, path=recording["path"].partition("?")[0])
    assert answer.status == recording["status"]
    return answer.body


def test_the_recordings_are_there() -> None:
    """The replays below are not empty."""
    assert len(RECORDINGS) == 62


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_replayed(metered: Callable[..., ASGIApp], manager: AsyncCreditManager, path: Path) -> None:
    """The charge is what the provider reported, to the last digit; errors cost nothing; no byte is changed."""
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    recording = read(path)
    body = recording["body"].encode()
    assert await replay(metered, recording, [body]) == body
    charged = before - (await manager.get_balance("u1")).balance
    if recording["status"] >= 400:
        assert charged == 0
    elif recording["reported"] is None:
        settle = Accounts(manager).journal()[-1]
        assert json.loads(settle.cause)["flags"] == ["usage_counted"]
        assert charged > 0
    else:
        assert charged == price(recording["reported"])


@pytest.mark.parametrize("name", ["81", "87", "90"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_cut_everywhere(
    metered: Callable[..., ASGIApp], manager: AsyncCreditManager, name: str, line_end: str
) -> None:
    """Cut into pieces of one byte, and in two at any place, a stream is charged the same."""
    (path,) = (path for path in RECORDINGS if path.name.startswith(f"{name}_"))
    recording = read(path)
    body = recording["body"].replace("\n", line_end).encode()
    cuts = [[body[i : i + 1] for i in range(len(body))]]
    cuts += [[body[:cut], body[cut:]] for cut in range(1, len(body), 1 + len(body) // 200)]
    await manager.add_credits("u1", 9 * 10**8)
    before = (await manager.get_balance("u1")).balance
    for pieces in cuts:
        await replay(metered, recording, pieces)
    assert before - (await manager.get_balance("u1")).balance == price(recording["reported"]) * len(cuts)
