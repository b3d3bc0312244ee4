"""Answers that are kept for a while, encrypted, so that a repeat of their request gets them again."""

import binascii
import hashlib
import logging
import os
import secrets
import zlib
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from starlette.types import Message, Send

from ducto_redis.errors import ConfigError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.middleware.client import Client

logger = logging.getLogger("ducto_redis.middleware")

REPLAYED = (b"idempotent-replayed", b"true")

_KEY_BYTES = 32
_KEY_ID_BYTES = 4
_SALT_BYTES = 16
_NONCE_BYTES = 12
_FORMAT = b"\x01"
_HEAD_BYTES = len(_FORMAT) + _KEY_ID_BYTES + _SALT_BYTES + _NONCE_BYTES
_MOST_BYTES = 2**20 - 4096
"""What is certain to fit into a value that is kept."""

_ABOUT_THE_CHARGE = b"x-credits-"


class Answer(Struct, frozen=True, array_like=True):
    """An answer as its client got it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def send(self, send: Send) -> None:
        """Give it again. Nothing is charged for that, so it says nothing about charges."""
        headers = [header for header in self.headers if not header[0].lower().startswith(_ABOUT_THE_CHARGE)]
        await send({"type": "http.response.start", "status": self.status, "headers": [*headers, REPLAYED]})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class StoredAnswers:
    """Settings of stored answers: encrypted by your key, for a short time, in Redis.

        MeteringMiddleware(..., idempotency="wait", stored_answers=StoredAnswers.from_environment())

    AES-256-GCM, by a key of its own for each answer, which is bound to its account and its request: in another's place
    it can't be read.

    Args:
        keys: of 32 random bytes each. The first encrypts, each of them decrypts: to change the key, put the new one in
            front, and take the old one away `ttl_seconds` later.
        ttl_seconds: how long an answer is kept.
        max_bytes: the largest answer that is kept, headers and body; at most 1,044,480.

    Raises:
        ConfigError: where a key or a setting is wrong, or `cryptography` is not installed.
    """

    def __init__(self, keys: Sequence[bytes], *, ttl_seconds: float = 3600, max_bytes: int = 256 * 1024) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigError("stored answers need cryptography: pip install 'ducto-redis[answers]'") from None
        if isinstance(keys, bytes | str) or not keys:
            raise ConfigError("keys is a list of keys, of which the first encrypts")
        if not all(isinstance(key, bytes) and len(key) == _KEY_BYTES for key in keys):
            raise ConfigError(f"each key of stored answers has {_KEY_BYTES} bytes: `openssl rand -base64 32` makes one")
        ttl_to_ms(ttl_seconds)
        if type(max_bytes) is not int or not 0 < max_bytes <= _MOST_BYTES:
            raise ConfigError(f"max_bytes is a number of bytes from 1 to {_MOST_BYTES}, not {max_bytes!r}")
        self.ttl_seconds = ttl_seconds
        self.max_bytes = max_bytes
        self._keys = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])
        self._cipher: Any = AESGCM
        self._wrong: type[Exception] = InvalidTag
        self._warned = False

    @classmethod
    def from_environment(cls, name: str = "DUCTO_ANSWER_KEYS", **options: Any) -> "StoredAnswers":
        """Take the keys from an environment variable: base64, with spaces or commas between. Raises ConfigError."""
        return cls(_read_keys(os.environ.get(name, ""), f"the environment variable {name}"), **options)

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> "StoredAnswers":
        """Take the keys from a file, such as a mounted secret: base64, one a line. Raises ConfigError."""
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the keys of stored answers can't be read from {path}: {type(error).__name__}") from None
        return cls(_read_keys(text, str(path)), **options)

    def seal(self, answer: Answer, place: bytes) -> bytes:
        """Return an answer as it is kept, for this place and no other."""
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        content = zlib.compress(_encoder.encode(answer), level=1)
        head = _FORMAT + self._first + salt + nonce
        sealed: bytes = self._cipher(_derived(self._keys[self._first], salt)).encrypt(nonce, content, head + place)
        return head + sealed

    def open(self, kept: bytes, place: bytes) -> Answer | None:
        """Return a kept answer, or None where it can't be read: another key, another place, or damaged."""
        head, sealed = kept[:_HEAD_BYTES], kept[_HEAD_BYTES:]
        key = self._keys.get(head[1 : 1 + _KEY_ID_BYTES]) if head[:1] == _FORMAT else None
        if key is None:
            self._warn("it was encrypted by a key that is not among those given")
            return None
        salt, nonce = head[-_SALT_BYTES - _NONCE_BYTES : -_NONCE_BYTES], head[-_NONCE_BYTES:]
        try:
            content: bytes = self._cipher(_derived(key, salt)).decrypt(nonce, sealed, head + place)
        except (self._wrong, ValueError):
            self._warn("it was changed, or belongs to another request")
            return None
        return _decoder.decode(zlib.decompress(content))

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("a stored answer can't be given again: %s. More of these are not logged", why)


class Recording:
    """Takes down an answer as its client gets it.

    Args:
        max_bytes: the largest answer that is taken down; of a larger one nothing is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._start: Message | None = None
        self._pieces: list[bytes] = []
        self._ended = False
        self._whole = True

    @property
    def answer(self) -> Answer | None:
        """The answer; None where it is none that can be given again: no success, not whole, or too large."""
        start = self._start
        if start is None or start["status"] >= 300 or not self._ended or not self._whole:
            return None
        headers = tuple((bytes(name), bytes(value)) for name, value in start.get("headers", ()))
        return Answer(start["status"], headers, b"".join(self._pieces))

    def take(self, message: Message) -> None:
        """Take the next message; nothing comes after the last one of a body."""
        if not self._whole or self._ended:
            return
        kind = message["type"]
        if kind == "http.response.body":
            body = bytes(message.get("body", b""))
            self._left -= len(body)
            self._pieces.append(body)
            self._ended = not message.get("more_body", False)
        elif kind == "http.response.start":
            self._start = message
            self._left -= sum(len(name) + len(value) for name, value in message.get("headers", ()))
            self._whole = not message.get("trailers", False)
        elif kind != "http.response.early_hint":
            self._whole = False  # such as a file that the server sends by itself
        if self._left < 0:
            self._whole = False
        if not self._whole:
            self._pieces.clear()


class RecordedClient(Client):
    """A client whose answer is taken down, also as far as it is no longer there to take it."""

    def __init__(self, recording: Recording, *args: Any) -> None:
        super().__init__(*args)
        self._recording = recording

    async def send(self, message: Message) -> None:
        """Take down the message, and send it."""
        self._recording.take(message)
        await super().send(message)


def _read_keys(text: str, where: str) -> list[bytes]:
    names = text.replace(",", " ").split()
    if not names:
        raise ConfigError(f"{where} holds no key for stored answers")
    try:
        return [b64decode(name, validate=True) for name in names]
    except (binascii.Error, ValueError):
        raise ConfigError(f"{where} holds a key for stored answers that is no base64") from None


def _key_id(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=_KEY_ID_BYTES, person=b"ducto key id").digest()


def _derived(key: bytes, salt: bytes) -> bytes:
    # A key for each answer: however many there are, no nonce meets the same key twice.
    return hashlib.blake2b(salt, key=key, digest_size=_KEY_BYTES, person=b"ducto answer").digest()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)
