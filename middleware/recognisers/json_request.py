"""Bodies of requests: read as JSON, checked, and changed in one field."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import msgspec
from msgspec import Raw

from ducto_redis.engine.ids import check_id
from ducto_redis.errors import InvalidIdError
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware.error_responses import BadRequestError

T = TypeVar("T")

NOTHING = Raw(b"")
"""A field that the request does not have."""


def decode_request(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the decoded body. Raises BadRequestError."""
    try:
        if not body.isascii():
            body.decode()  # the decoder does not look into what it skips
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        field = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else None
        raise BadRequestError(message, param=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}", code="invalid_json") from None


@lru_cache(1024)
def check_name(value: str | None, param: str) -> None:
    """Check a name, such as that of a model, that goes into the ledger. Raises BadRequestError.

    Names that passed are remembered: an application uses few of them.
    """
    try:
        if value is not None:
            check_id(value, param)
    except InvalidIdError as error:
        raise BadRequestError(str(error), param=param) from None


def check_limit(value: int | None, param: str, *, least: int = 1) -> None:
    """Check a limit on tokens, or another count. Raises BadRequestError."""
    if value is not None and not least <= value <= MAX_COUNT:
        raise BadRequestError(f"{param} must be between {least} and {MAX_COUNT}", param=param)


def with_field(body: bytes, path: Sequence[str], value: object) -> bytes:
    """Return a body in which one field has another value; all else is left as it was written.

    >>> with_field(b'{"a": {"x": 1.50}, "b": 2}', ("a", "limit"), 7)
    b'{"a":{"x":1.50,"limit":7},"b":2}'
    """
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    name, *rest = path
    inside = bytes(fields.get(name, NOTHING))
    if rest:
        fields[name] = Raw(with_field(inside if inside not in (b"", b"null") else b"{}", rest, value))
    else:
        fields[name] = Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)
