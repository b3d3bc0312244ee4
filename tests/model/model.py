"""What each operation should do, in plain Python: written from the rules of DESIGN, not from the scripts.

Amounts are micro-credits. Time is a number that the test moves. What an operation answers is a dictionary; a refusal is
`Refused`, with the word for it and its details. Two things are left out: answers that the server forgets by its own
clock, and more than 64 leases that fall due at once, of which no rule says which come first.
"""

from dataclasses import dataclass, field, replace
from typing import Any

LIMIT = 2**53 - 1
DAY = 24 * 3600 * 1000

Answer = dict[str, Any]


class Refused(Exception):
    """The operation was refused, and changed nothing."""


@dataclass(frozen=True)
class Entry:
    """A change, as it must stand in the journal."""

    operation: str
    account: str
    seq: int
    operation_key: str
    amount: int = 0
    balance_change: int = 0
    shortfall: int = 0
    version: int = 0


@dataclass
class Lease:
    amount: int
    created: int
    expires: int
    floor: int
    version: int
    on_expiry: str
    fingerprint: str
    opened: int = 0
    """The seq of the change that opened it."""
    open: bool = True
    charged: int = 0

    @property
    def due(self) -> int:
        """When something happens to it by itself: it expires, or is forgotten a day later."""
        return self.expires if self.open else self.expires + DAY


@dataclass
class Account:
    name: str
    balance: int = 0
    seq: int = 0
    activation: int = 0
    due: int | None = None
    leases: dict[str, Lease] = field(default_factory=dict)
    answers: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    closed: dict[str, tuple[str, str, Answer]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(lease.amount for lease in self.leases.values() if lease.open)

    @property
    def available(self) -> int:
        return self.balance - self.held

    def standing(self) -> Answer:
        return {"balance": self.balance, "available": self.available}


class Model:
    """Accounts, their leases, and the journal of all changes."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.accounts: dict[str, Account] = {}
        self.journal: list[Entry] = []

    def account(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account(name))

    def add_credits(self, name: str, amount: int, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        while account.balance + amount > LIMIT:
            self._refuse_unless_more_is_due(account, Refused("over_limit"))
        account.balance += amount
        self._journal(account, "add_credits", key, amount, amount)
        return self._remember(account, key, fingerprint, {"amount": amount, **account.standing()})

    def deduct(
        self, name: str, amount: int, key: str, fingerprint: str, floor: int, version: int, activation: int
    ) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        self._apply_due(account)
        self._admit(account, amount, floor, activation)
        account.balance -= amount
        account.activation = max(account.activation, activation)
        self._journal(account, "deduct", key, amount, -amount, version=version)
        return self._remember(account, key, fingerprint, {"amount": amount, **account.standing()})

    def reserve(self, name: str, lease_id: str, wanted: Lease, activation: int) -> Answer:
        account = self.account(name)
        self._apply_due(account)
        lease = account.leases.get(lease_id)
        if lease is not None:
            if lease.fingerprint != wanted.fingerprint:
                raise Refused("conflict")
            if not lease.open:
                raise Refused("closed", "expired")
            return {"replayed": True, **self._lease_answer(account, lease)}
        if lease_id in account.closed:
            raise Refused("closed", account.closed[lease_id][0])
        self._admit(account, wanted.amount, wanted.floor, activation)
        self._hold(account, wanted.amount)
        lease = account.leases[lease_id] = replace(wanted, opened=account.seq + 1)
        account.due = lease.expires if account.due is None else min(account.due, lease.expires)
        account.activation = max(account.activation, activation)
        self._journal(account, "reserve", f"lease/{lease_id}/reserve", lease.amount, version=lease.version)
        return {"replayed": False, **self._lease_answer(account, lease)}

    def settle(self, name: str, lease_id: str, cost: int, fingerprint: str, version: int) -> Answer:
        account = self.account(name)
        if lease_id in account.closed:
            how, first_fingerprint, answer = account.closed[lease_id]
            if how == "released":
                raise Refused("closed", how)
            if first_fingerprint != fingerprint:
                raise Refused("conflict")
            return {**answer, "replayed": True}
        self._apply_due(account)
        lease = self._lease(account, lease_id)
        self._check_version(lease, version)
        # What the lease may spend beyond what is its own: the others' holds and its floor stay untouched.
        own = lease.amount if lease.open else lease.charged
        charged = min(cost, own + max(0, account.available - lease.floor))
        if charged < cost and self._is_due(account) and lease.due > self.now:
            return self.settle(name, lease_id, cost, fingerprint, version)
        change = lease.charged - charged
        if account.balance + change > LIMIT:
            raise Refused("over_limit")
        account.balance += change
        del account.leases[lease_id]
        shortfall = cost - charged
        self._journal(account, "settle", f"lease/{lease_id}/settle", cost, change, shortfall, version)
        answer = {
            "amount": charged,
            "shortfall": shortfall,
            "late": not lease.open,
            "transaction": account.seq,
            **account.standing(),
        }
        account.closed[lease_id] = ("settled", fingerprint, answer)
        return {**answer, "replayed": False}

    def release(self, name: str, lease_id: str) -> Answer:
        account = self.account(name)
        if lease_id in account.closed:
            how, _, answer = account.closed[lease_id]
            if how == "settled":
                raise Refused("closed", how)
            return {**answer, "replayed": True}
        self._apply_due(account)
        lease = self._lease(account, lease_id)
        if account.balance + lease.charged > LIMIT:
            raise Refused("over_limit")
        account.balance += lease.charged
        del account.leases[lease_id]
        released = lease.amount if lease.open else 0
        key = f"lease/{lease_id}/release"
        self._journal(account, "release", key, released, lease.charged, version=lease.version)
        answer = {"amount": released, "transaction": account.seq, **account.standing()}
        account.closed[lease_id] = ("released", "", answer)
        return {**answer, "replayed": False}

    def renew(self, name: str, lease_id: str, ttl: int, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        lease = self._open_lease(account, lease_id)
        lease.expires = max(lease.expires, self.now + ttl)
        self._journal(account, "renew", key, lease.amount, version=lease.version)
        return self._remember(account, key, fingerprint, {"expires": lease.expires})

    def extend(self, name: str, lease_id: str, amount: int, key: str, fingerprint: str, version: int) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        lease = self._open_lease(account, lease_id)
        self._check_version(lease, version)
        self._admit(account, amount, lease.floor, 0)
        self._hold(account, amount)
        lease.amount += amount
        self._journal(account, "extend", key, amount, version=version)
        return self._remember(account, key, fingerprint, {"amount": lease.amount, **account.standing()})

    def get_balance(self, name: str) -> Answer:
        account = self.account(name)
        gone = [lease for lease in account.leases.values() if lease.open and lease.expires <= self.now]
        balance = account.balance - sum(lease.amount for lease in gone if lease.on_expiry == "charge")
        held = account.held - sum(lease.amount for lease in gone)
        return {"balance": balance, "held": held, "available": balance - held, "seq": account.seq}

    def list_leases(self, name: str) -> dict[str, tuple[int, int]]:
        leases = self.account(name).leases.items()
        return {
            lease_id: (lease.amount, lease.expires)
            for lease_id, lease in leases
            if lease.open and lease.expires > self.now
        }

    def sweep(self) -> Answer:
        due = [account for account in self.accounts.values() if self._is_due(account)]
        expired = 0
        for account in due:
            while self._is_due(account):
                expired += self._apply_due(account)
        return {"accounts": len(due), "leases_expired": expired}

    def _apply_due(self, account: Account) -> int:
        """What time has done to the account, journalled; how many leases expired.

        A lease that expired more than a day ago expires first: it is forgotten by whatever touches the account next.
        """
        if not self._is_due(account):
            return 0
        due = {lease_id: lease for lease_id, lease in account.leases.items() if lease.due <= self.now}
        expired = 0
        for lease_id, lease in due.items():
            if lease.open:
                lease.open = False
                lease.charged = lease.amount if lease.on_expiry == "charge" else 0
                account.balance -= lease.charged
                key = f"lease/{lease_id}/expire"
                self._journal(account, "expire", key, lease.amount, -lease.charged, version=lease.version)
                expired += 1
            else:
                del account.leases[lease_id]
                self._journal(account, "forget", f"lease/{lease_id}/forget", version=lease.version)
        if not due:
            self._journal(account, "sweep", f"sweep/{account.seq + 1}")
        account.due = min((lease.due for lease in account.leases.values()), default=None)
        return expired

    def _is_due(self, account: Account) -> bool:
        return account.due is not None and account.due <= self.now

    def _refuse_unless_more_is_due(self, account: Account, refused: Refused) -> None:
        """A refusal for want of room is the last word only when nothing more is due."""
        if not self._is_due(account):
            raise refused
        self._apply_due(account)

    def _lease(self, account: Account, lease_id: str) -> Lease:
        if lease_id not in account.leases:
            raise Refused("not_found")
        return account.leases[lease_id]

    def _open_lease(self, account: Account, lease_id: str) -> Lease:
        self._apply_due(account)
        if lease_id in account.closed:
            raise Refused("closed", account.closed[lease_id][0])
        lease = self._lease(account, lease_id)
        if not lease.open:
            raise Refused("expired")
        return lease

    def _check_version(self, lease: Lease, version: int) -> None:
        if version and lease.version and version != lease.version:
            raise Refused("reprice", lease.version)

    def _admit(self, account: Account, amount: int, floor: int, activation: int) -> None:
        if activation and activation < account.activation:
            raise Refused("stale", account.activation)
        while account.available - amount < floor:
            refused = Refused("insufficient", amount, account.available, account.held, floor)
            self._refuse_unless_more_is_due(account, refused)

    def _hold(self, account: Account, amount: int) -> None:
        while account.held + amount > LIMIT:
            self._refuse_unless_more_is_due(account, Refused("over_limit"))

    def _lease_answer(self, account: Account, lease: Lease) -> Answer:
        return {
            "amount": lease.amount,
            "expires": lease.expires,
            "version": lease.version,
            "transaction": lease.opened,
            **account.standing(),
        }

    def _journal(
        self,
        account: Account,
        operation: str,
        key: str,
        amount: int = 0,
        change: int = 0,
        shortfall: int = 0,
        version: int = 0,
    ) -> None:
        account.seq += 1
        self.journal.append(Entry(operation, account.name, account.seq, key, amount, change, shortfall, version))

    def _earlier(self, account: Account, key: str, fingerprint: str) -> Answer | None:
        if key not in account.answers:
            return None
        first_fingerprint, answer = account.answers[key]
        if first_fingerprint != fingerprint:
            raise Refused("conflict")
        return {**answer, "replayed": True}

    def _remember(self, account: Account, key: str, fingerprint: str, answer: Answer) -> Answer:
        answer["transaction"] = account.seq
        account.answers[key] = (fingerprint, answer)
        return {**answer, "replayed": False}
