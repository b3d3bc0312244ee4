"""Signing and verifying webhooks."""

from decimal import Decimal

import pytest

from ducto_redis.errors import ConfigError, WebhookSignatureError
from ducto_redis.events.signature import new_webhook_secret, sign_webhook, verify_webhook
from ducto_redis.events.telling import event_of
from ducto_redis.events.types import Added

SENT = 1_800_000_000
EVENT = event_of(Added(amount=Decimal(5), balance_after=Decimal(9), type="purchase"), "u1", "3-1-1700000000123-4")
BODY = EVENT.to_json()


def test_the_signature_is_that_of_the_specification() -> None:
    """The published example of Standard Webhooks comes out."""
    headers = sign_webhook(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_signed_message_is_its_event() -> None:
    """What was signed verifies, under headers of any case, and is the event."""
    secret = new_webhook_secret()
    headers = {name.title(): value for name, value in sign_webhook(secret, EVENT.event_id, SENT, BODY).items()}
    assert verify_webhook(secret, headers, BODY, now=SENT + 299) == EVENT
    assert verify_webhook(secret, headers, BODY.decode(), now=SENT - 299) == EVENT


def test_secrets_can_be_replaced_without_a_gap() -> None:
    """While two secrets are in use, each side may know either of them or both."""
    old, new, other = (new_webhook_secret() for _ in range(3))
    both = sign_webhook([old, new], EVENT.event_id, SENT, BODY)
    for known in (old, new, [new, old], [other, new]):
        assert verify_webhook(known, both, BODY, now=SENT) == EVENT
    only_old = sign_webhook(old, EVENT.event_id, SENT, BODY)
    assert verify_webhook([new, old], only_old, BODY, now=SENT) == EVENT
    with pytest.raises(WebhookSignatureError):
        verify_webhook(new, only_old, BODY, now=SENT)


@pytest.mark.parametrize("part", ["id", "timestamp", "body", "signature", "secret"])
def test_every_part_is_signed(part: str) -> None:
    """A message of which anything was changed is refused."""
    secret, body = new_webhook_secret(), BODY
    headers = sign_webhook(secret, EVENT.event_id, SENT, body)
    if part == "id":
        headers["webhook-id"] += "0"
    elif part == "timestamp":
        headers["webhook-timestamp"] = str(SENT + 1)
    elif part == "signature":
        headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
    elif part == "body":
        body = body.replace(b'"5"', b'"6"')
        assert body != BODY
    else:
        secret = new_webhook_secret()
    with pytest.raises(WebhookSignatureError, match="no signature matches"):
        verify_webhook(secret, headers, body, now=SENT)


@pytest.mark.parametrize("now", [SENT + 301, SENT - 301])
def test_an_old_message_is_refused(now: float) -> None:
    """A message that was signed too long ago, or in the future, is refused however right its signature is."""
    secret = new_webhook_secret()
    headers = sign_webhook(secret, EVENT.event_id, SENT, BODY)
    with pytest.raises(WebhookSignatureError, match="301 seconds"):
        verify_webhook(secret, headers, BODY, now=now)
    assert verify_webhook(secret, headers, BODY, now=now, tolerance_seconds=400) == EVENT


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"webhook-id": ""}, "are required"),
        ({"webhook-timestamp": ""}, "are required"),
        ({"webhook-signature": ""}, "are required"),
        ({"webhook-timestamp": "soon"}, "seconds since 1970"),
        ({"webhook-timestamp": "-5"}, "seconds since 1970"),
        ({"webhook-timestamp": "9" * 13}, "seconds since 1970"),
        ({"webhook-signature": "v1,ü v1 ,"}, "no signature"),
    ],
)
def test_damaged_headers_are_refused(headers: dict[str, str], message: str) -> None:
    """Headers that are missing or are none are refused, never an error of another kind."""
    secret = new_webhook_secret()
    with pytest.raises(WebhookSignatureError, match=message):
        verify_webhook(secret, sign_webhook(secret, EVENT.event_id, SENT, BODY) | headers, BODY, now=SENT)


def test_a_signed_message_that_is_no_event_is_refused() -> None:
    """Somebody else who signs with the same secret is found out."""
    secret = new_webhook_secret()
    with pytest.raises(WebhookSignatureError, match="the message is signed, but it is not an event"):
        verify_webhook(secret, sign_webhook(secret, "x", SENT, b"{}"), b"{}", now=SENT)


@pytest.mark.parametrize(
    "secret", ["", "hunter2-and-some-more-letters", "whsec_", "whsec_a*", "whsec_aHVudGVyMg==", []]
)
def test_a_weak_secret_is_refused_and_not_shown(secret: str | list[str]) -> None:
    """What is no secret is an error that does not repeat it."""
    with pytest.raises(ConfigError) as caught:
        sign_webhook(secret, "x", SENT, b"")
    assert "secret" in str(caught.value)
    assert not secret or (secret.removeprefix("whsec_") or "no rest") not in str(caught.value)  # type: ignore[union-attr]
