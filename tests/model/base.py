"""What all operations of the model share: what time does, steps that are whole or not at all, answers and entries."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.model import caps, parents, spending
from tests.model.account import Account, Answer, Entry, Grant, Lease, Paid, Part, Refused


class ModelBase:
    """Accounts, and the journal of all changes."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.accounts: dict[str, Account] = {}
        self.journal: list[Entry] = []

    def account(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account(name))

    def _apply_due(self, account: Account) -> int:
        """What time has done to the account, journalled in the order in which it fell due, leases before grants.

        A lease that expired more than a day ago expires first: it is forgotten a millisecond later.

        Returns:
            How many grants expired.
        """
        if not self._is_due(account):
            return 0
        assert account.due is not None
        seq, since, expired = account.seq, account.due, 0
        grants = [grant for grant in spending.expired_grants(account, self.now) if grant.expires >= since]
        awaited = [grant.expires for grant in account.grants.values() if grant.expires > self.now]
        leases = [(lease.due, lease_id, lease) for lease_id, lease in account.leases.items() if lease.due <= self.now]
        leases.sort(key=lambda each: each[:2])
        for grant in grants:
            while leases and leases[0][0] <= grant.expires:
                self._apply_lease(account, *leases.pop(0)[1:])
            if grant.remaining:
                expired += 1
                if part := min(grant.remaining, max(0, account.available)):
                    self._expire_grant(account, grant, part, f"grant/{grant.number}/expire")
        for _, lease_id, lease in leases:
            self._apply_lease(account, lease_id, lease)
        self._expire_rests(account)
        if account.seq == seq:
            self._journal(account, "sweep", f"sweep/{account.seq + 1}")
        account.due = None
        for lease in account.leases.values():
            self._await(account, max(lease.due, self.now + 1))
        for expires in awaited:  # also of a grant that an expiry just used up: coming for nothing changes nothing
            self._await(account, expires)
        return expired

    def _apply_lease(self, account: Account, lease_id: str, lease: Lease) -> None:
        if lease.open:
            self._expire_lease(account, lease_id, lease)
        else:
            del account.leases[lease_id]
            self._journal(account, "forget", f"lease/{lease_id}/forget", version=lease.version)

    def _apply_all_due(self, account: Account) -> int:
        grants = 0
        while self._is_due(account):
            grants += self._apply_due(account)
        return grants

    def _expire_lease(self, account: Account, lease_id: str, lease: Lease) -> None:
        lease.open = False
        crossed: tuple[caps.Crossed, ...] = ()
        details: dict[str, Any] = {}
        if lease.on_expiry != "charge":
            parents.give_up(account, lease)
        else:
            parents.give_to_account(account, lease)
            lease.paid = spending.both(
                spending.take_from_allowance(account, lease.allowance, lease.period),
                spending.take_from_balance(account, lease.on_balance, self.now, lease=True),
            )
            lease.paid_at = self.now
            parts = caps.parts_of(lease.amount, lease.member, caps.within(lease.models, lease.amount))
            lease.counted, crossed = caps.count(account, parts, self.now)
            self._spend(account, lease.member, lease.amount)
            details = {"counted": lease.counted, "crossed": crossed, "member": lease.member, "plan": lease.plan}
            details |= {"paid": lease.paid, "operation_type": lease.operation_type}
        lease.caps = lease.lent = ()
        change, key = -lease.paid.from_balance, f"lease/{lease_id}/expire"
        self._journal(account, "expire", key, lease.amount, change, version=lease.version, **details)

    def _expire_grant(self, account: Account, grant: Grant, amount: int, key: str) -> None:
        part = Part(grant.number, amount, grant.expires, grant.priority, grant.type)
        spending.expire(account, grant, amount)
        self._journal(account, "expire_grant", key, amount, -amount, paid=Paid(grants=(part,)))

    def _expire_rests(self, account: Account) -> None:
        """What no lease rests on any more of grants that expired under leases goes too."""
        expired = spending.expired_grants(account, self.now)
        excess = sum(grant.remaining for grant in expired) - account.held
        for grant in expired:
            part = min(excess, grant.remaining)
            if part > 0:
                excess -= part
                self._expire_grant(account, grant, part, f"grant/{grant.number}/expire/{account.seq + 1}")

    def _is_due(self, account: Account) -> bool:
        return account.due is not None and account.due <= self.now

    def _await(self, account: Account, time: int) -> None:
        account.due = time if account.due is None else min(account.due, time)

    def _await_grants(self, account: Account) -> None:
        for grant in account.grants.values():
            if grant.expires > self.now:
                self._await(account, grant.expires)

    def _dry(self, account: Account) -> AbstractContextManager[None]:
        """Whatever is done inside has not been done afterwards."""
        return _undone(account, self.journal)

    def _step(self, account: Account, change: Callable[[], Answer]) -> Answer:
        """Apply what is due, then make the change whole or not at all."""
        self._apply_due(account)
        return self._make(account, change)

    def _make(self, account: Account, change: Callable[[], Answer]) -> Answer:
        """Make a change whole or not at all. A refusal for want of room is the last word only once nothing is due."""
        snapshot = account.snapshot()
        try:
            answer = change()
        except Refused as refused:
            account.restore(snapshot)
            if refused.word in ("insufficient", "cap", "over_limit") and self._is_due(account):
                return self._step(account, change)
            raise
        answer["transaction"] = account.seq
        return answer

    def _spend(self, account: Account, user: str, amount: int) -> None:
        """What a member spent of the team's."""
        if user in account.members:
            account.members[user].spent = max(0, account.members[user].spent + amount)

    def _arm(self, account: Account) -> None:
        account.low = {level for level in account.low if level >= account.balance}

    def _check_member(self, account: Account, user: str) -> None:
        member = account.members.get(user)
        if account.team is None or member is None or member.role == "removed":
            raise Refused("not_member", user)

    def _journal(
        self, account: Account, operation: str, key: str, amount: int = 0, change: int = 0, shortfall: int = 0,
        version: int = 0, **details: Any,
    ) -> None:  # fmt: skip
        if account.opening is not None:
            bonus, account.opening = account.opening, None
            self._append(account, "open_account", "open", bonus, bonus)
        self._append(account, operation, key, amount, change, shortfall, version, **details)

    def _append(self, account: Account, operation: str, key: str, *numbers: int, **details: Any) -> None:
        account.seq += 1
        self.journal.append(Entry(operation, account.name, account.seq, key, *numbers, **details, at=self.now))

    def _earlier(self, account: Account, key: str, fingerprint: str) -> Answer | None:
        if key not in account.answers:
            return None
        first_fingerprint, answer = account.answers[key]
        if first_fingerprint != fingerprint:
            raise Refused("conflict")
        return {**answer, "replayed": True}

    def _remember(self, account: Account, key: str, fingerprint: str, answer: Answer) -> Answer:
        account.answers[key] = (fingerprint, answer)
        return {**answer, "replayed": False}


@contextmanager
def _undone(account: Account, journal: list[Entry]) -> Iterator[None]:
    snapshot, length = account.snapshot(), len(journal)
    try:
        yield
    finally:
        account.restore(snapshot)
        del journal[length:]
