"""Journal entries made by hand, as the scripts write them."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Engine, create_engine

from ducto_redis.engine.cause import USAGE_FIELDS
from ducto_redis.ledger import RawEntry
from ducto_redis.metrics import UsageMetrics


def cause_of(*usages: dict[str, Any], **others: Any) -> str:
    """A cause with usages by name, whatever their values, and with anything else."""
    silent = msgspec.structs.asdict(UsageMetrics())
    usage = [[(silent | usage)[name] for name in USAGE_FIELDS] for usage in usages]
    return msgspec.json.encode({"usage": usage, **others}).decode()


class Journal:
    """One partition's journal. Its ids count up."""

    def __init__(self, first_ms: int = 1_700_000_000_000) -> None:
        self._ids = itertools.count(first_ms)

    def move_to(self, milliseconds: int) -> None:
        """Let the next entry have this time."""
        self._ids = itertools.count(milliseconds)

    def raw(self, text: bytes) -> RawEntry:
        """An entry with this very text."""
        return f"{next(self._ids)}-0", text

    def entry(
        self,
        account: str,
        seq: int,
        operation: str,
        operation_key: str = "",
        *,
        amount: int = 0,
        balance_change: int = 0,
        shortfall: int = 0,
        epoch: int = 1,
        version: int = 0,
        cause: str = "",
        details: Sequence[tuple[str, str]] = (),
        changes: dict[str, str | int] | None = None,
    ) -> RawEntry:
        """One change."""
        parts = [operation, account, epoch, seq, operation_key or f"call/{epoch}-{seq}", amount, balance_change]
        parts += [shortfall, version, cause, "\x1f".join(part for pair in details for part in pair)]
        for name, value in (changes or {}).items():
            parts += [name, value]
        return self.raw("\t".join(map(str, parts)).encode())


class Account:
    """An account whose changes are journalled, with the values that the engine would have."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal = journal
        self.name = name
        self.epoch = 1
        self.seq = 0
        self.balance = 0
        self.leases: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self._opened: dict[str, str] = {}

    @property
    def held(self) -> int:
        return sum(self.leases.values())

    def add(self, amount: int, key: str = "", *, credits_type: str = "") -> RawEntry:
        self.seq += 1
        self.balance += amount
        cause = f'{{"type":"{credits_type}"}}' if credits_type else ""
        return self._entry("add_credits", key, amount, amount, {"balance": self.balance}, cause=cause)

    def expire_grant(self, amount: int) -> RawEntry:
        self.seq += 1
        self.balance -= amount
        return self._entry("expire_grant", "", amount, -amount, {"balance": self.balance})

    def deduct(self, amount: int, key: str = "", *, cause: str = "", allowance: int = 0, member: str = "") -> RawEntry:
        self.seq += 1
        self.balance -= amount - allowance
        details = _details(allowance, member)
        changes: dict[str, str | int] = {"balance": self.balance}
        return self._entry("deduct", key, amount, allowance - amount, changes, cause=cause, details=details)

    def refund(self, transaction_id: str, amount: int, *, allowance: int = 0, lost: int = 0) -> RawEntry:
        self.seq += 1
        self.balance += amount - allowance - lost
        details = [("refund_of", transaction_id), *_details(allowance, "")]
        details += [("lost", str(lost))] if lost else []
        changes: dict[str, str | int] = {"balance": self.balance}
        return self._entry("refund", "", amount, amount - allowance - lost, changes, details=details)

    def reserve(self, lease: str, amount: int, *, cause: str = "") -> RawEntry:
        self.seq += 1
        self.leases[lease] = amount
        record = lease_record(amount)
        changes: dict[str, str | int] = {"held": self.held, "due": 1_700_000_600_000, f"lease/{lease}": record}
        entry = self._entry("reserve", f"lease/{lease}/reserve", amount, 0, changes, cause=cause)
        self._opened[lease] = entry[0]
        return entry

    def settle(self, lease: str, amount: int, *, cause: str = "", shortfall: int = 0) -> RawEntry:
        self.seq += 1
        late = lease in self.charged
        returned = self.charged.pop(lease, 0)
        self.leases.pop(lease, None)
        change = returned - (amount - shortfall)
        self.balance += change
        changes: dict[str, str | int] = {"balance": self.balance, "held": self.held, f"lease/{lease}": ""}
        details = [("late", "1")] if late else []
        return self._entry(
            "settle",
            f"lease/{lease}/settle",
            amount,
            change,
            changes,
            cause=cause,
            shortfall=shortfall,
            details=details,
        )

    def expire(self, lease: str, *, charge: bool = True) -> RawEntry:
        self.seq += 1
        amount = self.leases.pop(lease)
        charged = amount if charge else 0
        self.charged[lease] = charged
        self.balance -= charged
        record = lease_record(amount, state="expired", charged=charged).replace("*", self._opened[lease])
        changes: dict[str, str | int] = {"balance": self.balance, "held": self.held, f"lease/{lease}": record}
        return self._entry("expire", f"lease/{lease}/expire", amount, -charged, changes)

    def release(self, lease: str) -> RawEntry:
        self.seq += 1
        released, returned = self.leases.pop(lease, 0), self.charged.pop(lease, 0)
        self.balance += returned
        changes: dict[str, str | int] = {"balance": self.balance, "held": self.held, f"lease/{lease}": ""}
        return self._entry("release", f"lease/{lease}/release", released, returned, changes)

    def _entry(
        self,
        operation: str,
        key: str,
        amount: int,
        balance_change: int,
        changes: dict[str, str | int],
        *,
        cause: str = "",
        shortfall: int = 0,
        details: Sequence[tuple[str, str]] = (),
    ) -> RawEntry:
        return self.journal.entry(
            self.name,
            self.seq,
            operation,
            key,
            amount=amount,
            balance_change=balance_change,
            shortfall=shortfall,
            epoch=self.epoch,
            cause=cause,
            details=details,
            changes=changes,
        )


def _details(allowance: int, member: str) -> list[tuple[str, str]]:
    details = [("allowance", f"{allowance} 1")] if allowance else []
    return details + ([("member", member)] if member else [])


def lease_record(amount: int, *, state: str = "open", charged: int = 0, grounds: str = "") -> str:
    """A lease's record; it names the entry that opened it by `*`."""
    parts = (
        state,
        amount,
        charged,
        1_700_000_000_000,
        1_700_000_600_000,
        0,
        0,
        "release",
        "f",
        grounds,
        "chat",
        "host",
        "",
        "*",
    )
    return "\x1f".join(map(str, parts))


def engine_of(url: str) -> Engine:
    """SQLAlchemy's engine for a ledger URL, to look at the database beside the ledger, or to meddle with it."""
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
