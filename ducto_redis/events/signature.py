"""Signatures of webhooks by the Standard Webhooks specification: make secrets, sign, verify.

HMAC-SHA256 signs `<webhook-id>.<webhook-timestamp>.<body>`. The header `webhook-signature` holds one or more
`v1,<base64>`, so that secrets can be replaced without a gap: for a while messages are signed with both.
"""

import binascii
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from time import time
from typing import TypeAlias

from ducto_redis.errors import ConfigError, WebhookSignatureError
from ducto_redis.events.types import CreditEvent

Secrets: TypeAlias = str | Sequence[str]
"""One secret, or several of which any one is enough."""

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

_PREFIX = "whsec_"
_SHORTEST_BYTES, _LONGEST_BYTES = 24, 64


def new_webhook_secret() -> str:
    """Return a new secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + b64encode(secrets.token_bytes(32)).decode()


def sign_webhook(secret: Secrets, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed message.

    Args:
        secret: one, or several: the message is signed with each.
        event_id: the event's id, without a dot; the same in every attempt.
        timestamp: seconds since 1970, of this attempt.
        body: the body of the request.

    Raises:
        ConfigError: if a secret is malformed.
    """
    return {
        ID_HEADER: event_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(f"v1,{_signature(key, event_id, timestamp, body)}" for key in keys_of(secret)),
    }


def verify_webhook(
    secret: Secrets,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance_seconds: float = 300,
    now: float | None = None,
) -> CreditEvent:
    """Verify a message, and return the event in it.

    Pass the body as it came, before any parsing. A message may come more than once, with the same `event_id`.

    Args:
        secret: one, or several of which any one is enough.
        headers: of the request; their names in any case.
        body: of the request.
        tolerance_seconds: how old the message may be, or how far in the future, so that an old one cannot be replayed.
        now: seconds since 1970; the clock's by default.

    Raises:
        WebhookSignatureError: if it was not signed with a secret, is too old, or is no event.
        ConfigError: if a secret is malformed.
    """
    keys = keys_of(secret)
    given = {name.lower(): value for name, value in headers.items()}
    event_id, sent, signatures = (given.get(name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not event_id or not sent or not signatures:
        raise WebhookSignatureError(f"the headers {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER} are required")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 12):
        raise WebhookSignatureError(f"{TIMESTAMP_HEADER} must be seconds since 1970, not {sent!r:.40}")
    content = body.encode() if isinstance(body, str) else bytes(body)
    if not _matches(keys, event_id, int(sent), content, signatures):
        raise WebhookSignatureError("no signature matches: the secret is wrong, or the message was changed")
    age = (time() if now is None else now) - int(sent)
    if abs(age) > tolerance_seconds:
        raise WebhookSignatureError(
            f"the message was signed {abs(age):.0f} seconds {'ago' if age > 0 else 'in the future'}; at most"
            f" {tolerance_seconds:g} are accepted"
        )
    try:
        return CreditEvent.from_json(content)
    except ConfigError as error:
        raise WebhookSignatureError(f"the message is signed, but it is {error}") from None


def keys_of(secret: Secrets) -> list[bytes]:
    """Return the keys of secrets. Raises ConfigError, which never shows them, if one is malformed."""
    texts = [secret] if isinstance(secret, str) else list(secret)
    if not texts:
        raise ConfigError("a webhook needs a secret: `ducto events secret` makes one")
    return [_key_of(text) for text in texts]


def _key_of(secret: str) -> bytes:
    try:
        if not secret.startswith(_PREFIX):
            raise ValueError
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError(
            f"a webhook secret is {_PREFIX!r} followed by base64; `ducto events secret` makes one"
        ) from None
    if not _SHORTEST_BYTES <= len(key) <= _LONGEST_BYTES:
        raise ConfigError(f"a webhook secret holds {_SHORTEST_BYTES} to {_LONGEST_BYTES} bytes, not {len(key)}")
    return key


def _signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    content = b"%b.%d.%b" % (event_id.encode(), timestamp, body)
    return b64encode(hmac.digest(key, content, sha256)).decode()


def _matches(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    # Compares every signature with every key, so that the time does not tell if one is right.
    right = False
    expected = [_signature(key, event_id, timestamp, body).encode() for key in keys]
    for signature in signatures.split(" "):
        version, _, value = signature.partition(",")
        for candidate in expected:
            right |= version == "v1" and hmac.compare_digest(value.encode(), candidate)
    return right
