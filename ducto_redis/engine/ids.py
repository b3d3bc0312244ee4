"""The rules for names of accounts, leases, keys and models, and the ids of transactions and journal entries.

Any Unicode but control characters: the journal separates its fields by them. Ids are refused before anything is sent.
"""

import re
from binascii import b2a_base64
from datetime import datetime
from os import urandom
from typing import NamedTuple

from ducto_redis.engine.text import time_of
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
_TRANSACTION = re.compile(r"(\d{1,5})-(\d{1,16})-(\d{1,16})-(\d{1,20})", re.ASCII)


class TransactionId(NamedTuple):
    """The place of a journal entry: its partition, its epoch, and the two parts of its stream id.

    The first part is the server's time in milliseconds since 1970, the second a number within that millisecond.

    >>> place = TransactionId.read("3-1-1700000000000-0")
    >>> place.partition, place.entry_id, str(place)
    (3, '1700000000000-0', '3-1-1700000000000-0')
    """

    partition: int
    epoch: int
    entry_ms: int
    entry_seq: int

    @classmethod
    def parse(cls, text: str) -> "TransactionId | None":
        """Return the place that a transaction id names, or None if the text is no transaction id."""
        parts = _TRANSACTION.fullmatch(text)
        return None if parts is None else cls(*map(int, parts.groups()))

    @classmethod
    def read(cls, text: str) -> "TransactionId":
        """Return the place that a transaction id names. Raises ValueError if the text is no transaction id."""
        place = cls.parse(text)
        if place is None:
            raise ValueError(f"{text!r:.80} is no transaction id, such as '3-1-1700000000000-0'")
        return place

    def __str__(self) -> str:
        return format_transaction_id(self.partition, self.epoch, self.entry_id)

    @property
    def entry_id(self) -> str:
        """The id of the entry in its partition's journal: `1700000000000-0`."""
        return f"{self.entry_ms}-{self.entry_seq}"

    @property
    def time(self) -> datetime:
        """The time of the entry, by the server's clock."""
        return time_of(self.entry_ms)


def format_transaction_id(partition: int, epoch: int | str, entry_id: str) -> str:
    """Return the transaction id of the entry of that id: `3-1-1700000000000-0`."""
    return f"{partition}-{epoch}-{entry_id}"


def split_entry_id(entry_id: str) -> tuple[int, int]:
    """Return the milliseconds and the sequence of a stream entry's id. Raises ValueError if it is none."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def entry_ms(entry_id: str) -> int:
    """Return the time in a stream entry's id, in milliseconds since 1970. Raises ValueError if it is none."""
    return int(entry_id.partition("-")[0])


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
