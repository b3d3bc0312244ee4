"""Arguments of callers, checked and converted to the form that stores take."""

import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from ducto_redis.engine.cause import Cause, encode_cause, encode_usages
from ducto_redis.engine.ids import KEY_BYTES, METADATA_BYTES, NAME_BYTES, check_id, new_id
from ducto_redis.engine.operation import CALLERS_KEY, DEFAULT_PRIORITY, OperationKey
from ducto_redis.engine.text import EPOCH, MILLISECOND
from ducto_redis.errors import (
    ConfigError,
    InvalidAmountError,
    InvalidMetadataError,
    InvalidUsageError,
    StoreUnavailableError,
)
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount, to_micro
from ducto_redis.pricing.plans import BillingMode

Usage: TypeAlias = UsageMetrics | Sequence[UsageMetrics]
"""Consumption: one usage, or several that are charged together."""

UsageOrAmount: TypeAlias = Usage | Amount
"""A charge: usage, which the active pricing document prices, or credits."""

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
CALL_KEPT_MS = 10 * _MINUTE_MS
KEY_KEPT_MS = _DAY_MS
GRANT_KEY_KEPT_MS = 35 * _DAY_MS
_LONGEST_TTL_SECONDS = 30 * 24 * 3600
_LAST_PRIORITY = 1_000_000
_REASON_BYTES = 512
_MADE_FOR_A_CALL = re.compile(r"call/[\w-]{16}", re.ASCII)


def operation_key(idempotency_key: str | None, kept_ms: int, *passed: Any, **optional: Any) -> OperationKey:
    """Return the operation key of a call.

    Args:
        idempotency_key: the caller's, or None for a key that is made for this call. A key that was made for a call
            whose outcome stayed unknown (StoreUnavailableError carries it) repeats that call.
        kept_ms: milliseconds for which the first result of a caller's key is remembered.
        passed, optional: the caller's arguments, see `fingerprint`; the same key with others is a conflict.

    Raises:
        InvalidIdError: if the key is not valid.
    """
    if idempotency_key is None:
        return OperationKey("call/" + new_id(), CALL_KEPT_MS)
    check_id(idempotency_key, "an idempotency key", KEY_BYTES)
    if _MADE_FOR_A_CALL.fullmatch(idempotency_key):
        return OperationKey(idempotency_key, CALL_KEPT_MS)
    return OperationKey(CALLERS_KEY + idempotency_key, kept_ms, fingerprint(*passed, **optional))


def fingerprint(*passed: Any, **optional: Any) -> str:
    """Return twelve characters that differ if the arguments differ.

    Args:
        passed: the arguments that every call passes.
        optional: the arguments that few calls pass. None and False count as absent, so that a call without them keeps
            its fingerprint when later versions have more of them.
    """
    if optional:
        given = {}
        for name, value in optional.items():
            if value is not None and value is not False:
                given[name] = value
        if given:
            passed = (*passed, given)
    return b2a_base64(blake2b(_encoder.encode(passed), digest_size=9).digest(), newline=False).decode()


def key_of_call(idempotency_key: str | None) -> str:
    """Return the caller's key, or one that is made for this call."""
    return "call/" + new_id() if idempotency_key is None else idempotency_key


def key_of_step(key: str, step: str) -> str:
    """Return the key of one step of a call that takes several."""
    text = f"{key}/{step}"
    return text if len(text.encode(errors="replace")) <= KEY_BYTES else f"{fingerprint(key)}/{step}"


@contextmanager
def steps_of(key: str) -> Iterator[None]:
    """Enclose the steps of a call: where the outcome of one is unknown, the error names the key of the whole call."""
    try:
        yield
    except StoreUnavailableError as error:
        error.operation_key = key
        raise


def split(usage_or_amount: UsageOrAmount, *, zero: bool = False) -> tuple[Sequence[UsageMetrics], int]:
    """Return the usages to price, or, if there are none, the amount in micro-credits.

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
            raise InvalidUsageError(f"a sequence of usages holds UsageMetrics only, not {type(usage).__name__}")
        usages.append(usage)
    if not usages:
        raise InvalidUsageError("a sequence of usages must not be empty")
    return usages, 0


def journal_cause(
    usages: Sequence[UsageMetrics] = (),
    *,
    type: str | None = None,
    operation_type: str = "default",
    flags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> bytes:
    """Return the cause of a change, as its journal entry holds it.

    Raises:
        InvalidMetadataError
        InvalidUsageError: if JSON cannot hold the usage or its flags.
    """
    if metadata:
        encode_metadata(metadata)
    if isinstance(flags, str):
        raise InvalidUsageError(f"flags must be a sequence of texts, not one text: {flags!r:.40}")
    kind = None if operation_type == "default" else operation_type
    try:
        if not (flags or metadata) and type is kind is actor is reason is None:
            return encode_usages(usages)
        return encode_cause(Cause(usages, type, kind, flags, metadata or None, actor, reason))
    except (TypeError, ValueError) as error:
        raise InvalidUsageError(f"JSON cannot hold this usage and its flags: {error}") from None


check_operation_type = partial(check_id, what="an operation type", limit=NAME_BYTES)
"""Returns it. Raises InvalidIdError if it is not valid."""


def check_billing_mode(billing_mode: BillingMode | None) -> BillingMode | None:
    """Return it. Raises ConfigError for any other than `strict`, `overdraft` and None."""
    if billing_mode not in (None, "strict", "overdraft"):
        raise ConfigError(f"billing_mode is 'strict' or 'overdraft', not {billing_mode!r:.40}")
    return billing_mode


def check_member(member: str | None) -> str:
    """Return it, "" for None. Raises InvalidIdError if it is not valid."""
    return "" if member is None else check_id(member, "a member", NAME_BYTES)


def check_feature(feature: str | None) -> str | None:
    """Return it. Raises InvalidIdError if it is not valid."""
    return None if feature is None else check_id(feature, "a feature", NAME_BYTES)


check_lease_id = partial(check_id, what="a lease id", limit=NAME_BYTES)
"""Returns it. Raises InvalidIdError if it is not valid."""


def check_actor(actor: str) -> str:
    """Return the person who changes something by hand. Raises InvalidIdError if it names none."""
    return check_id(actor, "an actor", NAME_BYTES)


def check_reason(reason: str) -> str:
    """Return the reason of a change by hand: one line of at most 512 bytes. Raises InvalidIdError otherwise."""
    return check_id(reason, "a reason", _REASON_BYTES)


def encode_metadata(metadata: Mapping[str, Any] | None) -> bytes:
    """Return the metadata as JSON, empty for none. Raises InvalidMetadataError if it is no metadata."""
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
    """Return seconds as milliseconds. Raises ConfigError if they are no time to live."""
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float):
        raise ConfigError(f"a time to live is a number of seconds, not {ttl_seconds!r:.40}")
    if not 0.001 <= ttl_seconds <= _LONGEST_TTL_SECONDS:
        raise ConfigError(
            f"a time to live is above 0 and at most {_LONGEST_TTL_SECONDS} seconds, not {ttl_seconds!r:.40}"
        )
    return round(ttl_seconds * 1000)


def check_max_concurrent(max_concurrent: int | None) -> int | None:
    """Return it. Raises ConfigError if it is no number of leases."""
    if max_concurrent is None or (type(max_concurrent) is int and max_concurrent >= 1):
        return max_concurrent
    raise ConfigError(f"max_concurrent is a number of leases from 1, or None, not {max_concurrent!r:.40}")


def check_priority(priority: int | None) -> int:
    """Return the priority of credits, the default for None. Raises ConfigError if it is no priority."""
    if priority is None:
        return DEFAULT_PRIORITY
    if type(priority) is int and 0 <= priority <= _LAST_PRIORITY:
        return priority
    raise ConfigError(
        f"a priority is a number from 0, spent first, to {_LAST_PRIORITY}; {DEFAULT_PRIORITY} is usual: not"
        f" {priority!r:.40}"
    )


def expiry_to_ms(expires_at: datetime | None) -> int:
    """Return a time as milliseconds since 1970, 0 for None; one without a time zone is in UTC. Raises ConfigError.

    The engine refuses a time that is past: its clock is the one that counts.
    """
    if expires_at is None:
        return 0
    if not isinstance(expires_at, datetime):
        raise ConfigError(f"expires_at is a datetime, not {expires_at!r:.40}")
    if expires_at.utcoffset() is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    return max(1, (expires_at - EPOCH) // MILLISECOND)  # 0 would be never


def floor_to_micro(floor: Amount) -> int:
    """Return an overdraft floor, zero or below, in micro-credits. Raises InvalidAmountError."""
    if isinstance(floor, float):
        to_micro(floor)
    try:
        return -to_micro(Decimal(floor).copy_negate(), zero=True)  # a minus would round it to the caller's context
    except (InvalidOperation, TypeError, ValueError) as error:
        raise InvalidAmountError(f"an overdraft floor is a decimal of zero or below, not {floor!r:.40}") from error


_encoder = msgspec.json.Encoder(decimal_format="number")
