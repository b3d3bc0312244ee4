"""What a prompt may cost, and what it is charged where no answer says so."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware import BadRequestError, Estimates
from ducto_redis.middleware.recognisers.json_request import NOTHING
from ducto_redis.middleware.recognisers.prompt import Medium, Prompt, check_settings, measure_prompt

MARKS = (b'"picture"',)


def find(part: dict[str, Any]) -> Medium | None:
    return Medium(part, "picture", 500) if "picture" in part else None


def measure(body: bytes, *parts: bytes, estimates: Estimates | None = None, marks: tuple[bytes, ...] = MARKS) -> Prompt:
    return measure_prompt(estimates or Estimates(), "m", body, parts, find, marks)


def test_text() -> None:
    """All of the body bounds the prompt; a charge counts its parts, or all where there are none, four bytes a token."""
    assert measure(b"x" * 100, b"x" * 40) == Prompt(100, 10)
    assert measure(b"x" * 100, b"", b"") == Prompt(100, 25)


def test_media() -> None:
    """The bytes of media count as nothing, media as they are told, wherever they stand."""
    part = json.dumps([{"deep": [{"picture": "x" * 9000}, {"picture": None}]}]).encode()
    prompt = measure(part, part)
    assert prompt.most_tokens == len(part) - 9000 + 2 * 500
    assert prompt.likely_tokens == -(-len(part.replace(b" ", b"").replace(b"x", b"")) // 4) + 250
    assert measure(part, part, marks=()).most_tokens == len(part)
    assert measure(b'{"picture"', b'{"picture"').most_tokens == 10


@pytest.mark.parametrize("tokeniser", [None, lambda model, text: len(text)])
@pytest.mark.parametrize("fields", [{}, {"a": [{"picture": "x" * 90}], "b": "ü"}, {"a": None, "b": "text"}])
def test_fields_as_they_were_sent(fields: dict[str, Any], tokeniser: Any) -> None:
    """A field of the body counts as the same bytes do, and one that is missing as nothing."""
    body = json.dumps(fields, ensure_ascii=False).encode()
    raw = [msgspec.json.decode(body, type=dict[str, Raw]).get(name, NOTHING) for name in ("a", "b", "c")]
    estimates = Estimates(count_tokens=tokeniser)
    measured = measure_prompt(estimates, "m", body, raw, find, MARKS)
    assert measured == measure(body, *map(bytes, raw), estimates=estimates)


def test_a_tokeniser_gets_the_text() -> None:
    """A tokeniser counts the parts without media, and is asked with the model."""
    seen: list[tuple[str | None, str]] = []

    def count(model: str | None, text: str) -> int:
        seen.append((model, text))
        return 3

    part = b'{"picture":"secret","text":"hello"}'
    assert measure(part, part, estimates=Estimates(count_tokens=count)) == Prompt(503, 128)
    assert seen[0] == ("m", '{"picture":"","text":"hello"}')


def test_bounds() -> None:
    """What is out of range is refused: media of a request, and settings."""
    with pytest.raises(BadRequestError, match="media"):
        measure_prompt(Estimates(), "m", b"{}", [b"{}"], lambda part: Medium(part, "x", MAX_COUNT + 1), (b"{",))
    check_settings(image_tokens=0)
    for value in (-1, 1.5, True, "5"):
        with pytest.raises(ConfigError, match="image_tokens"):
            check_settings(image_tokens=value)  # type: ignore[arg-type]
