"""The ledger: a copy of the journal in a SQL database, and the proof of every balance."""

from ducto_redis.ledger.ledger import Ledger
from ducto_redis.ledger.reports import (
    AccountFailure,
    LedgerAccount,
    LedgerEntry,
    Position,
    RawEntry,
    VerifyReport,
    WriteReport,
)

__all__ = [
    "AccountFailure",
    "Ledger",
    "LedgerAccount",
    "LedgerEntry",
    "Position",
    "RawEntry",
    "VerifyReport",
    "WriteReport",
]
