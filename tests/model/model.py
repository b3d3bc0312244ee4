"""What each operation should do, in plain Python: written from the rules of DESIGN, not from the scripts.

Amounts are micro-credits. Time is a number that the test moves. What an operation answers is a dictionary; a refusal is
`Refused`, with the word for it and its details. Two things are left out: answers that the server forgets by its own
clock, and more than 64 leases that fall due at once, of which no rule says which come first.
"""

from contextlib import nullcontext

from ducto_redis.engine.operation import PLAIN, Conditions
from tests.model import terms
from tests.model.account import Answer
from tests.model.charging import Charging
from tests.model.incoming import Incoming
from tests.model.standing import Standing


class Model(Incoming, Charging, Standing):
    """Accounts, their leases, and the journal of all changes."""

    def get_balance(self, name: str, conditions: Conditions = PLAIN) -> Answer:
        account = self.account(name)
        with self._dry(account):
            seq = account.seq
            self._apply_all_due(account)
            terms.take(account, conditions, (), self.now)
            left = account.period.left(self.now) if account.period else 0
            return {"held": account.held, "seq": seq, "allowance": left, **account.standing()}

    def list_leases(self, name: str) -> dict[str, tuple[int, int]]:
        leases = self.account(name).leases.items()
        return {
            lease_id: (lease.amount, lease.expires)
            for lease_id, lease in leases
            if lease.open and lease.expires > self.now
        }

    def sweep(self, *, dry_run: bool = False) -> Answer:
        due = [account for account in self.accounts.values() if self._is_due(account)]
        swept = {"accounts": len(due), "leases_expired": 0, "grants_expired": 0, "credits_expired": 0}
        for account in due:
            with self._dry(account) if dry_run else nullcontext():
                before = len(self.journal)
                swept["grants_expired"] += self._apply_all_due(account)
                for entry in self.journal[before:]:
                    swept["leases_expired"] += entry.operation == "expire"
                    swept["credits_expired"] += entry.amount if entry.operation == "expire_grant" else 0
        return swept
