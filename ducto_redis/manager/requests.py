"""What callers pass, checked and put into the form that stores take."""

import re
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from ducto_redis.engine.entry import Cause, encode_cause
from ducto_redis.engine.ids import KEY_BYTES, METADATA_BYTES, NAME_BYTES, check_id
from ducto_redis.engine.operation import CALLERS_KEY, OperationKey
from ducto_redis.errors import ConfigError, InvalidAmountError, InvalidMetadataError, InvalidUsageError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount, to_micro

Usage: TypeAlias = UsageMetrics | Sequence[UsageMetrics]
"""What was consumed: one usage, or several that are charged together."""

UsageOrAmount: TypeAlias = Usage | Amount
"""What is to be charged: usage, which the active pricing document prices, or credits."""

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
CALL_KEPT_MS = 10 * _MINUTE_MS
KEY_KEPT_MS = _DAY_MS
GRANT_KEY_KEPT_MS = 35 * _DAY_MS
_LONGEST_TTL_SECONDS = 30 * 24 * 3600
_MADE_FOR_A_CALL = re.compile(r"call/[\w-]{16}", re.ASCII)


def new_id() -> str:
    """A random id, for a lease or a call."""
    return secrets.token_urlsafe(12)


def operation_key(idempotency_key: str | None, kept_ms: int, *passed: Any) -> OperationKey:
    """The operation key of a call.

    Args:
        idempotency_key: the caller's, or None for a key that is made for this call. A key that was made for a call
            whose outcome stayed unknown (StoreUnavailableError carries it) repeats that call.
        kept_ms: how long the first answer to a caller's key is remembered.
        passed: what the caller passed; the same key with anything else is a conflict.

    Raises:
        InvalidIdError: if the key is none.
    """
    if idempotency_key is None:
        return OperationKey("call/" + new_id(), CALL_KEPT_MS)
    check_id(idempotency_key, "an idempotency key", KEY_BYTES)
    if _MADE_FOR_A_CALL.fullmatch(idempotency_key):
        return OperationKey(idempotency_key, CALL_KEPT_MS)
    return OperationKey(CALLERS_KEY + idempotency_key, kept_ms, fingerprint(*passed))


def fingerprint(*passed: Any) -> str:
    """Twelve characters that differ where what was passed differs."""
    return b64encode(blake2b(_encoder.encode(passed), digest_size=9).digest()).decode()


def split(usage_or_amount: UsageOrAmount, *, zero: bool = False) -> tuple[Sequence[UsageMetrics], int]:
    """The usages to price, or, where there are none, the amount in micro-credits.

    Raises:
        InvalidAmountError, InvalidUsageError
    """
    if isinstance(usage_or_amount, UsageMetrics):
        return (usage_or_amount,), 0
    if isinstance(usage_or_amount, int | str | Decimal):
        return (), to_micro(usage_or_amount, zero=zero)
    if isinstance(usage_or_amount, float):
        raise InvalidAmountError(
            f"an amount is an int, a decimal string or a Decimal, not a float: {usage_or_amount!r}"
        )
    if not isinstance(usage_or_amount, tuple | list) and not isinstance(usage_or_amount, Sequence):
        raise InvalidUsageError(
            f"a usage is UsageMetrics, several of them, or credits, not {type(usage_or_amount).__name__}"
        )
    usages: list[UsageMetrics] = []
    for usage in usage_or_amount:
        if not isinstance(usage, UsageMetrics):
            raise InvalidUsageError(f"several usages are a sequence of UsageMetrics, it holds {type(usage).__name__}")
        usages.append(usage)
    if not usages:
        raise InvalidUsageError("several usages are a sequence that is not empty")
    return usages, 0


def journal_cause(
    usages: Sequence[UsageMetrics] = (),
    *,
    type: str | None = None,
    operation_type: str = "default",
    flags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """The cause of a change, as its journal entry holds it.

    Raises:
        InvalidMetadataError
        InvalidUsageError: if usage or flags cannot be written down.
    """
    if metadata:
        encode_metadata(metadata)
    if isinstance(flags, str):
        raise InvalidUsageError(f"flags are a sequence of texts, not one text: {flags!r:.40}")
    usage = None if not usages else usages[0] if len(usages) == 1 else list(usages)
    kind = None if operation_type == "default" else operation_type
    try:
        return encode_cause(Cause(usage, type, kind, flags, metadata or None))
    except (TypeError, ValueError) as error:
        raise InvalidUsageError(f"usage and its flags must be such that JSON can hold them: {error}") from None


def check_operation_type(operation_type: str) -> str:
    """Return it. Raises InvalidIdError where it is none."""
    return check_id(operation_type, "an operation type", NAME_BYTES)


def check_lease_id(lease_id: str) -> str:
    """Return it. Raises InvalidIdError where it is none."""
    return check_id(lease_id, "a lease id", NAME_BYTES)


def encode_metadata(metadata: Mapping[str, Any] | None) -> bytes:
    """The metadata as JSON, empty for none. Raises InvalidMetadataError where it is none."""
    if not metadata:
        return b""
    try:
        encoded = _encoder.encode(dict(metadata))
    except (TypeError, ValueError) as error:
        raise InvalidMetadataError(f"metadata must be a mapping of names to JSON values: {error}") from None
    if len(encoded) > METADATA_BYTES:
        raise InvalidMetadataError(f"metadata must have at most {METADATA_BYTES} bytes of JSON, got {len(encoded)}")
    return encoded


def ttl_to_ms(ttl_seconds: float) -> int:
    """Seconds as milliseconds. Raises ConfigError where they are no time to live."""
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float):
        raise ConfigError(f"a time to live is a number of seconds, not {ttl_seconds!r:.40}")
    if not 0.001 <= ttl_seconds <= _LONGEST_TTL_SECONDS:
        raise ConfigError(
            f"a time to live is above 0 and at most {_LONGEST_TTL_SECONDS} seconds, not {ttl_seconds!r:.40}"
        )
    return round(ttl_seconds * 1000)


def floor_to_micro(floor: Amount) -> int:
    """An overdraft floor, zero or below, in micro-credits. Raises InvalidAmountError."""
    if isinstance(floor, float):
        to_micro(floor)
    try:
        return -to_micro(Decimal(floor).copy_negate(), zero=True)  # a minus would round it to the caller's context
    except (InvalidOperation, TypeError, ValueError) as error:
        raise InvalidAmountError(f"an overdraft floor is a decimal of zero or below, not {floor!r:.40}") from error


_encoder = msgspec.json.Encoder(decimal_format="number")
