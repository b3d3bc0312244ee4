"""The rules for names of accounts, leases, keys and models.

Any Unicode but control characters: the journal separates its fields by them. Ids are refused before anything is sent.
"""

import re
from binascii import b2a_base64
from os import urandom

from ducto_redis.errors import InvalidIdError

ACCOUNT_BYTES = 256
KEY_BYTES = 256
NAME_BYTES = 128
METADATA_BYTES = 1024
VALUE_BYTES = 2**20
"""Of a value that is kept beside an account."""

RESERVED_ACCOUNT = "@ducto"
"""The account under which pricing documents are journalled."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_id(value: str, what: str, limit: int = NAME_BYTES) -> str:
    """Return `value`, an id of at most `limit` bytes.

    Args:
        value: the id.
        what: what it names, for the message.
        limit: bytes of UTF-8 that it may have.

    Raises:
        InvalidIdError: if it is no text, is empty, too long, or holds control characters.
    """
    if isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= limit:
        return value  # most are, and this is quick
    if not isinstance(value, str):
        raise InvalidIdError(f"{what} must be text, not {type(value).__name__}")
    if not value:
        raise InvalidIdError(f"{what} must not be empty")
    if _CONTROL.search(value):
        raise InvalidIdError(f"{what} must not hold control characters: {value!r:.80}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidIdError(f"{what} must be valid Unicode: {value!r:.80}") from None
    if size > limit:
        raise InvalidIdError(f"{what} must have at most {limit} bytes, got {size}: {value!r:.80}")
    return value


def check_account(account: str) -> str:
    """Return `account`, an account id. Raises InvalidIdError as `check_id` does, and for the reserved account."""
    check_id(account, "an account id", ACCOUNT_BYTES)
    if account == RESERVED_ACCOUNT:
        raise InvalidIdError(f"{RESERVED_ACCOUNT!r} is reserved for the namespace's own records")
    return account


def new_id() -> str:
    """Return a random id, for a lease or a call."""
    return b2a_base64(urandom(12), newline=False).translate(_URL_SAFE).decode()
