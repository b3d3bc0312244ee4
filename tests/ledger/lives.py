"""Lives: entries of some accounts over time, and what they are to count as in analytics."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from ducto_redis.analytics_results import Spend
from ducto_redis.ledger import Ledger, RawEntry
from ducto_redis.ledger.analytics import Analytics
from ducto_redis.money import from_micro
from tests.ledger.entries import Account, Journal, cause_of

NAMESPACE = "n"
# The night in which Berlin's clocks are set back, at 01:00 UTC.
NIGHT = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)


class Moved(Struct, frozen=True):
    """What an entry of a life is to count as."""

    at: datetime
    account: str
    model: str | None = None
    member: str | None = None
    charges: int = 0
    charged: int = 0
    allowance: int = 0
    refunded: int = 0
    shortfall: int = 0
    tokens: int = 0


class Life:
    """Entries of some accounts in one journal, and what they are to count as."""

    def __init__(self, start: datetime = NIGHT) -> None:
        self.now = start
        self.raw: list[RawEntry] = []
        self.moved: list[Moved] = []
        self._journal = Journal()
        self._accounts: dict[str, Account] = {}
        self._charges: dict[str, list[tuple[str, int, str | None, str | None]]] = {}
        self._lease_numbers = 0

    def account(self, name: str) -> Account:
        return self._accounts.setdefault(name, Account(self._journal, name))

    def wait(self, milliseconds: int) -> None:
        self.now += timedelta(milliseconds=milliseconds + 1)
        self._journal.move_to(milliseconds_of(self.now))

    def deduct(
        self, name: str, amount: int, model: str | None = None, member: str = "", allowance: int = 0, tokens: int = 0
    ) -> None:
        cause = usage_of(model, tokens)
        entry = self.account(name).deduct(amount, cause=cause, allowance=allowance, member=member)
        self._take(entry, name, model, member or None, charges=1, charged=amount, allowance=allowance, tokens=tokens)
        self._charges.setdefault(name, []).append((f"0-1-{entry[0]}", amount, model, member or None))

    def add(self, name: str, amount: int) -> None:
        self.raw.append(self.account(name).add(amount, credits_type="purchase"))

    def refund(self, name: str, amount: int) -> None:
        charges = self._charges.get(name, [])
        if charges:
            transaction_id, _, model, member = charges[-1]
            entry = self.account(name).refund(transaction_id, amount)
            self._take(entry, name, model, member, refunded=amount)

    def expire(self, name: str, amount: int, model: str) -> str:
        """A lease whose hold is charged when it expires. Returns its id."""
        self._lease_numbers += 1
        lease = f"l{self._lease_numbers}"
        account = self.account(name)
        self.raw.append(account.reserve(lease, amount, cause=usage_of(model, 999)))
        self.wait(0)
        self._take(account.expire(lease), name, model, charges=1, charged=amount)
        return lease

    def settle_late(self, name: str, lease: str, amount: int, model: str, shortfall: int, tokens: int) -> None:
        account = self.account(name)
        before = account.charged[lease]
        entry = account.settle(lease, amount, cause=usage_of(model, tokens), shortfall=shortfall)
        charged = amount - shortfall - before
        self._take(entry, name, model, charges=int(not before), charged=charged, shortfall=shortfall, tokens=tokens)

    def release_late(self, name: str, lease: str) -> None:
        charged = self.account(name).charged[lease]
        entry = self.account(name).release(lease)
        self._take(entry, name, None, charges=-1 if charged else 0, charged=-charged)

    def _take(self, entry: RawEntry, name: str, model: str | None, member: str | None = None, **moved: int) -> None:
        self.raw.append(entry)
        self.moved.append(Moved(at_of(entry), name, model, member, **moved))


def usage_of(model: str | None, tokens: int) -> str:
    return cause_of({"model": model, "input_tokens": tokens})


def milliseconds_of(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def at_of(entry: RawEntry) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(entry[0].split("-")[0]))


def summed(moved: Sequence[Moved]) -> dict[str, Any]:
    charged, refunded = sum(it.charged for it in moved), sum(it.refunded for it in moved)
    return {
        "charges": sum(it.charges for it in moved),
        "charged": from_micro(charged),
        "allowance": from_micro(sum(it.allowance for it in moved)),
        "refunded": from_micro(refunded),
        "net": from_micro(charged - refunded),
        "shortfall": from_micro(sum(it.shortfall for it in moved)),
    }


def parts(spend: Spend) -> dict[str, Any]:
    return {name: getattr(spend, name) for name in summed([])}


def grouped(moved: Sequence[Moved], key: Any) -> dict[Any, dict[str, Any]]:
    return {group: summed([it for it in moved if key(it) == group]) for group in {key(it) for it in moved}}


def written(ledger: Ledger, raw: Sequence[RawEntry], batch: int = 7, namespace: str = NAMESPACE) -> Analytics:
    for first in range(0, len(raw), batch):
        ledger.write(namespace, 0, raw[first : first + batch])
    return ledger.analytics(namespace)


def without_nothing(groups: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {group: its for group, its in groups.items() if any(its.values())}
