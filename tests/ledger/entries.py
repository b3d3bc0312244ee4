"""Journal entries made by hand, as the scripts write them."""

import itertools

from sqlalchemy import Engine, create_engine

from ducto_redis.ledger import RawEntry


class Journal:
    """One partition's journal. Its ids count up."""

    def __init__(self, first_ms: int = 1_700_000_000_000) -> None:
        self._ids = itertools.count(first_ms)

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
        changes: dict[str, str | int] | None = None,
    ) -> RawEntry:
        """One change."""
        parts = [operation, account, epoch, seq, operation_key or f"call/{epoch}-{seq}", amount, balance_change]
        parts += [shortfall, version, cause]
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

    @property
    def held(self) -> int:
        return sum(self.leases.values())

    def add(self, amount: int, key: str = "") -> RawEntry:
        self.seq += 1
        self.balance += amount
        return self._entry("add_credits", key, amount, amount, {"balance": self.balance})

    def deduct(self, amount: int, key: str = "", *, cause: str = "") -> RawEntry:
        self.seq += 1
        self.balance -= amount
        return self._entry("deduct", key, amount, -amount, {"balance": self.balance}, cause=cause)

    def reserve(self, lease: str, amount: int) -> RawEntry:
        self.seq += 1
        self.leases[lease] = amount
        record = lease_record(amount)
        changes: dict[str, str | int] = {"held": self.held, "due": 1_700_000_600_000, f"lease/{lease}": record}
        return self._entry("reserve", f"lease/{lease}/reserve", amount, 0, changes)

    def settle(self, lease: str, amount: int) -> RawEntry:
        self.seq += 1
        del self.leases[lease]
        self.balance -= amount
        changes: dict[str, str | int] = {"balance": self.balance, "held": self.held, f"lease/{lease}": ""}
        return self._entry("settle", f"lease/{lease}/settle", amount, -amount, changes)

    def _entry(
        self,
        operation: str,
        key: str,
        amount: int,
        balance_change: int,
        changes: dict[str, str | int],
        *,
        cause: str = "",
    ) -> RawEntry:
        return self.journal.entry(
            self.name,
            self.seq,
            operation,
            key,
            amount=amount,
            balance_change=balance_change,
            epoch=self.epoch,
            cause=cause,
            changes=changes,
        )


def lease_record(amount: int, *, state: str = "open", charged: int = 0) -> str:
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
        "chat",
        "host",
        "",
        "*",
    )
    return "\x1f".join(map(str, parts))


def engine_of(url: str) -> Engine:
    """SQLAlchemy's engine for a ledger URL, to look at the database beside the ledger, or to meddle with it."""
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
