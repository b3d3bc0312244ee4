"""Credits that come in, corrections, refunds."""

from ducto_redis.engine.operation import DEFAULT_PRIORITY, Conditions, NewGrant
from tests.model import caps, spending, terms
from tests.model.account import LIMIT, Account, Answer, Entry, Grant, Paid, Refused
from tests.model.base import ModelBase


class Incoming(ModelBase):
    """What raises a balance, or corrects it."""

    def add_credits(self, name: str, grant: NewGrant, key: str, fingerprint: str, conditions: Conditions) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier

        def change() -> Answer:
            terms.take(account, conditions, (), self.now)
            if 0 < grant.expires_ms <= self.now:
                raise Refused("past")
            if account.balance + grant.amount > LIMIT:
                raise Refused("over_limit")
            debt = max(0, -account.pool)
            account.balance += grant.amount
            remaining = max(0, grant.amount - debt)
            if (grant.expires_ms or grant.priority != DEFAULT_PRIORITY) and remaining:
                number = account.next_seq
                self._have(
                    account,
                    Grant(number, remaining, grant.expires_ms, grant.priority, grant.type, grant.amount, self.now),
                )
            self._arm(account)
            self._journal(account, "add_credits", key, grant.amount, grant.amount)
            return {"amount": grant.amount, **account.standing()}

        return self._remember(account, key, fingerprint, self._step(account, change))

    def adjust_credits(
        self, name: str, amount: int, key: str, fingerprint: str, force: bool, conditions: Conditions
    ) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier

        def change() -> Answer:
            terms.take(account, conditions, (), self.now)
            if amount < 0 and not force and account.available + amount < 0:
                raise Refused("insufficient", -amount, account.available, account.held, 0, 0)
            if abs(account.balance + amount) > LIMIT:
                raise Refused("over_limit")
            paid = Paid()
            if amount < 0:
                paid = spending.take_from_balance(account, -amount, self.now, lease=False)
            else:
                account.balance += amount
                self._arm(account)
            self._journal(account, "adjust_credits", key, amount, amount, paid=paid)
            return {"amount": amount, **account.standing()}

        return self._remember(account, key, fingerprint, self._step(account, change))

    def refund(
        self, name: str, charge: Entry, at: int, amount: int | None, key: str, fingerprint: str, to_balance: bool
    ) -> Answer:
        """Give a charge back, all that is left of it or a part."""
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        charged = charge.paid.total

        def change() -> Answer:
            before = account.refunded.get(charge.seq, 0)
            given = charged - before if amount is None else amount
            if given <= 0 or before + given > charged:
                raise Refused("refund_exceeds")
            if account.balance + given > LIMIT:
                raise Refused("over_limit")
            part = spending.part_to_return(charge.paid, before, given)
            returned = spending.give_back(account, part, self.now, expired_to_balance=to_balance)
            self._await_grants(account)
            shares = [
                (c, caps.share(c.amount, before + given, charged) - caps.share(c.amount, before, charged))
                for c in charge.counted
            ]
            caps.uncount(account, shares, at, self.now)
            self._spend(account, charge.member, -given)
            self._arm(account)
            account.refunded[charge.seq] = before + given
            self._journal(
                account, "refund", key, given, returned.to_balance, paid=returned.paid, member=charge.member,
                refund_of=charge.seq, lost=returned.lost,
            )  # fmt: skip
            return {
                "amount": given,
                "refunded": before + given,
                "allowance_restored": returned.paid.allowance,
                "lost": returned.lost,
                **account.standing(),
            }

        return self._remember(account, key, fingerprint, self._step(account, change))

    def _have(self, account: Account, grant: Grant) -> None:
        account.grants[grant.number] = grant
        account.extras = True
        self._await_grants(account)
