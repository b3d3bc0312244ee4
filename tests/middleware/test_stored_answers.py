"""Answers that are kept encrypted."""

import base64
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from ducto_redis.errors import ConfigError
from ducto_redis.middleware import StoredAnswers
from ducto_redis.middleware.stored_answers import Answer, Recording

KEY, OTHER = b"a" * 32, b"b" * 32
ANSWER = Answer(200, ((b"content-type", b"text/plain"), (b"x-any", bytes(range(256)))), bytes(range(256)) * 3)
PLACE = b"account, key and request"


def encoded(*keys: bytes) -> str:
    return "\n".join(base64.b64encode(key).decode() for key in keys)


def recorded(*messages: Message, max_bytes: int = 1000) -> Answer | None:
    recording = Recording(max_bytes)
    for message in messages:
        recording.take(message)
    return recording.answer


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(piece: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def test_it_comes_back_as_it_was() -> None:
    """What is sealed is opened again, and no two seals of it are the same."""
    stored = StoredAnswers([KEY])
    sealed = [stored.seal(ANSWER, PLACE) for _ in range(2)]
    assert [stored.open(one, PLACE) for one in sealed] == [ANSWER, ANSWER]
    assert sealed[0] != sealed[1]
    assert all(piece not in sealed[0] for piece in (KEY, b"text/plain", b"content-type"))


def test_any_change_is_noticed() -> None:
    """With any byte changed, cut off or added, or in another place, there is no answer."""
    stored = StoredAnswers([KEY])
    sealed = stored.seal(ANSWER, PLACE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        assert stored.open(bytes(changed), PLACE) is None
        assert stored.open(sealed[:position], PLACE) is None
    assert stored.open(sealed + b"x", PLACE) is None
    assert stored.open(sealed, PLACE + b"x") is None
    assert stored.open(sealed, PLACE) == ANSWER


def test_keys() -> None:
    """The first key encrypts, every key decrypts."""
    both = StoredAnswers([OTHER, KEY])
    old, new = StoredAnswers([KEY]), StoredAnswers([OTHER])
    assert both.open(old.seal(ANSWER, PLACE), PLACE) == ANSWER
    assert new.open(both.seal(ANSWER, PLACE), PLACE) == ANSWER
    assert old.open(both.seal(ANSWER, PLACE), PLACE) is None


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable holds them in base64, with spaces, lines or commas between."""
    sealed = StoredAnswers([KEY]).seal(ANSWER, PLACE)
    for text in (encoded(KEY), f" {encoded(OTHER)},{encoded(KEY)} ", encoded(OTHER, KEY)):
        monkeypatch.setenv("DUCTO_ANSWER_KEYS", text)
        stored = StoredAnswers.from_environment(ttl_seconds=60)
        assert stored.open(sealed, PLACE) == ANSWER
        assert stored.ttl_seconds == 60
    monkeypatch.delenv("DUCTO_ANSWER_KEYS")
    with pytest.raises(ConfigError, match="DUCTO_ANSWER_KEYS holds no key"):
        StoredAnswers.from_environment()


def test_keys_from_a_file(tmp_path: Path) -> None:
    """A file holds one a line."""
    path = tmp_path / "keys"
    path.write_text(encoded(OTHER, KEY) + "\n")
    assert StoredAnswers.from_file(path).open(StoredAnswers([KEY]).seal(ANSWER, PLACE), PLACE) == ANSWER
    with pytest.raises(ConfigError, match="can't be read"):
        StoredAnswers.from_file(tmp_path / "none")


@pytest.mark.parametrize("text", ["x", encoded(b"a" * 31), encoded(KEY)[:-1], encoded(KEY) + " secret!"])
def test_errors_do_not_show_keys(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is none is refused without being shown."""
    monkeypatch.setenv("DUCTO_ANSWER_KEYS", text)
    with pytest.raises(ConfigError) as error:
        StoredAnswers.from_environment()
    shown = repr(error.value) + repr(error.value.__cause__)
    assert not any(word in shown for word in text.split() if len(word) > 1)


@pytest.mark.parametrize(
    "options",
    [
        {"keys": []},
        {"keys": KEY},
        {"keys": ["a" * 32]},
        {"keys": [KEY, b"short"]},
        {"keys": [KEY], "ttl_seconds": 0},
        {"keys": [KEY], "max_bytes": 0},
        {"keys": [KEY], "max_bytes": 2**20},
        {"keys": [KEY], "max_bytes": 1.5},
    ],
)
def test_settings_that_are_wrong(options: dict[str, Any]) -> None:
    """Keys of another size and limits that make no sense are refused."""
    with pytest.raises(ConfigError):
        StoredAnswers(**options)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cryptography the error says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'ducto-redis[answers]'")):
        StoredAnswers([KEY])


def test_the_largest_fits() -> None:
    """The largest answer that may be kept fits into a value, however little it can be compressed."""
    size = 2**20 - 4096
    stored = StoredAnswers([KEY], max_bytes=size)
    noise = b"".join(stored.seal(ANSWER, PLACE) for _ in range(size // 900 + 1))[:size]
    assert len(stored.seal(Answer(200, (), noise), PLACE)) <= 2**20


def test_recording() -> None:
    """An answer is taken down as it was sent, in however many pieces; what comes after its end is no part of it."""
    taken = recorded(start(201, (b"a", b"b")), body(b"x", more=True), body(b"", more=True), body(b"y"), body(b"z"))
    assert taken == Answer(201, ((b"a", b"b"),), b"xy")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [start(), body(b"x", more=True)],
        [start(300), body(b"x")],
        [start(500), body(b"x")],
        [start(trailers=True), body(b"x")],
        [start(), {"type": "http.response.pathsend", "path": "/a"}],
        [start(), body(b"x", more=True), {"type": "http.response.zerocopysend", "file": 3}, body(b"y")],
        [start(), body(b"x" * 600, more=True), body(b"x" * 600)],
        [start(200, (b"a" * 500, b"b" * 501)), body(b"")],
    ],
)
def test_what_is_not_given_again(messages: list[Message]) -> None:
    """Answers that are cut, no success, too large or not all in the application's hands are not taken down."""
    assert recorded(*messages) is None


def test_the_limit_is_exact() -> None:
    """Headers and body together may have so many bytes, and not one more."""
    messages = [start(200, (b"a" * 10, b"b" * 10)), body(b"x" * 80)]
    assert recorded(*messages, max_bytes=100) is not None
    assert recorded(*messages, max_bytes=99) is None
