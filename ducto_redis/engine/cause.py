"""The cause of a change: why it was made, as the caller said it. A journal entry holds it as JSON.

Usage is written by position, in the order of `UsageMetrics`' fields and without the last ones that say nothing:
`{"usage":[["gpt-4o",1200,300,256]]}`. Names would take more room than all the rest of an entry.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct, structs

from ducto_redis.metrics import UsageMetrics

USAGE_FIELDS = UsageMetrics.__struct_fields__
"""What each position of a usage is. Journals and ledgers keep what was written: new fields come last."""


class Cause(Struct, frozen=True):
    """Why a change was made.

    Attributes:
        usages: what was priced.
        type: of credits that came in: purchase, bonus, ...
        operation_type: of a lease or a charge.
        flags: what is unusual about the usage, such as `usage_counted`.
        metadata: the caller's own.
        actor, reason: who did it by hand, and why.
    """

    usages: Sequence[UsageMetrics] = ()
    type: str | None = None
    operation_type: str | None = None
    flags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    actor: str | None = None
    reason: str | None = None


def encode_cause(cause: Cause) -> bytes:
    """Return the JSON of a cause, without missing parts; empty where all of them are missing.

    Raises:
        TypeError, ValueError: if it holds what JSON cannot.
    """
    usages = cause.usages
    written = _encode_usage(usages[0]) if len(usages) == 1 else b",".join([_encode_usage(usage) for usage in usages])
    rest = structs.astuple(cause)[1:]
    others = b"}" if rest == _NO_OTHERS else _encoder.encode(_StoredCause((), *rest))[1:]
    if not written:
        return b"" if others == b"}" else b"{" + others
    return b'{"usage":[%b]%b' % (written, others if others == b"}" else b"," + others)


def encode_usages(usages: Sequence[UsageMetrics]) -> bytes:
    """Return the JSON of a cause that is nothing but usage, as `encode_cause` does.

    Raises:
        TypeError, ValueError: if it holds a value that JSON cannot.
    """
    if len(usages) == 1:
        return b'{"usage":[%b]}' % _encode_usage(usages[0])
    return b'{"usage":[%b]}' % b",".join([_encode_usage(usage) for usage in usages]) if usages else b""


def decode_cause(text: str) -> Cause:
    """Read what `encode_cause` wrote. Own measures are as exact as they were written down.

    Raises:
        msgspec.DecodeError: if it is no cause.
    """
    if not text:
        return _NO_CAUSE
    stored = _decoder.decode(text)
    return Cause(tuple(map(_usage_of, stored.usage)), *structs.astuple(stored)[1:])


class _StoredUsage(UsageMetrics, frozen=True, array_like=True):
    # A number that may be a float would be read as one, which holds fewer digits than were written.
    measures: Mapping[str, int | Decimal] = {}


class _StoredCause(Struct, omit_defaults=True):
    usage: Sequence[Any] = ()
    type: str | None = None
    operation_type: str | None = None
    flags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None
    actor: str | None = None
    reason: str | None = None


class _ReadCause(_StoredCause):
    usage: Sequence[_StoredUsage] = ()


def _usage_of(stored: _StoredUsage) -> UsageMetrics:
    usage = UsageMetrics(*structs.astuple(stored))
    return usage if usage.tool_calls else structs.replace(usage, tool_calls=())


def _encode_usage(usage: UsageMetrics) -> bytes:
    values = structs.astuple(usage)
    length = len(values)
    # Most usages have a model, totals, and perhaps an operation: two comparisons are quicker than twenty.
    if values[_BEYOND_OPERATION:] == _SILENT_BEYOND:
        length = _TOTALS if values[_TOTALS:_BEYOND_OPERATION] == _SILENT_BETWEEN else _BEYOND_OPERATION
    while length > 1 and (values[length - 1] == _SILENT[length - 1] or values[length - 1] == []):
        length -= 1
    return _encoder.encode(values[:length])


_NO_CAUSE = Cause()
_NO_OTHERS = structs.astuple(_NO_CAUSE)[1:]
_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(_ReadCause)

_SILENT = structs.astuple(UsageMetrics())
"""The values of fields that say nothing: where all that follow say nothing too, they are not written."""

_TOTALS = USAGE_FIELDS.index("output_tokens") + 1
_BEYOND_OPERATION = USAGE_FIELDS.index("operation") + 1
_SILENT_BETWEEN = _SILENT[_TOTALS:_BEYOND_OPERATION]
_SILENT_BEYOND = _SILENT[_BEYOND_OPERATION:]
