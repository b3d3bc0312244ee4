"""The charge of an answer whose reader hung up, from the ledger."""

from msgspec import Struct

from ducto_redis.engine.cause import decode_cause
from ducto_redis.ledger import Ledger

_INTERRUPTED = "interrupted"
_ENTRIES = 1000


class Interruption(Struct, frozen=True):
    """An interrupted answer. Amounts are micro-credits.

    Attributes:
        held: what was held for it.
        charged: what it cost.
        flags: how the charge came about.
    """

    held: int
    charged: int
    flags: tuple[str, ...]


def find_interruption(ledger: Ledger, namespace: str, account: str) -> Interruption | None:
    """Return the account's newest charge for an interrupted answer, or None."""
    entries = ledger.entries(namespace, account, limit=_ENTRIES)
    for entry in entries:
        flags = tuple(decode_cause(entry.cause).flags)
        if entry.operation == "settle" and _INTERRUPTED in flags:
            lease = entry.operation_key.rpartition("/")[0]
            held = (it.amount for it in entries if it.operation == "reserve" and it.operation_key.startswith(lease))
            return Interruption(next(held, 0), entry.amount, flags)
    return None
