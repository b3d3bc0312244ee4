"""The proof: every balance again from the SQL ledger alone, beside what the engine says.

It reads the ledger's file with plain SQL, which anybody can check, and lets `Ledger.verify` look deeper.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from ducto_redis.ledger import Ledger, VerifyReport
from ducto_redis.manager import CreditManager
from ducto_redis.money import to_signed_micro
from ducto_redis.store.contract import journalled

SUMS = """\
SELECT account, COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq),
       SUM(balance_change),
       SUM(CASE WHEN operation = 'add_credits' THEN balance_change ELSE 0 END)
  FROM ducto_entries WHERE namespace = ? GROUP BY account"""


class AccountProof(Struct, frozen=True, kw_only=True):
    """One account, as its entries add up and as the engine has it. Amounts are micro-credits.

    Attributes:
        entries: how many the ledger holds.
        gapless: whether their seq counts from 1 to `last_seq` without a gap or a double.
        added: credits that came in.
        recomputed: the sum of all entries' changes.
        balance, held: the engine's.
        engine_seq: the engine's count of changes.
    """

    account: str
    entries: int
    gapless: bool
    last_seq: int
    added: int
    recomputed: int
    balance: int
    held: int
    engine_seq: int

    @property
    def charged(self) -> int:
        """Credits that went out."""
        return self.added - self.recomputed

    @property
    def holds(self) -> bool:
        """True where ledger and engine agree to the last micro-credit, and nothing is missing."""
        return self.gapless and self.recomputed == self.balance and self.last_seq == self.engine_seq


class Proof(Struct, frozen=True, kw_only=True):
    """All accounts, and what `Ledger.verify` says."""

    accounts: tuple[AccountProof, ...]
    report: VerifyReport

    @property
    def holds(self) -> bool:
        """True where everything adds up, and no hold was forgotten."""
        return (
            all(account.holds and account.held == 0 for account in self.accounts)
            and self.report.ok
            and self.report.behind == 0
        )


def prove(manager: CreditManager, ledger: Ledger, ledger_file: Path, accounts: Sequence[str]) -> Proof:
    """Recompute the accounts, once the ledger has read everything.

    Args:
        manager: asks the engine.
        ledger, ledger_file: the ledger, and the SQLite file that holds it.
        accounts: whose balances to prove.

    Raises:
        LedgerError: if the ledger's worker does not catch up.
    """
    manager.wait_for_ledger()
    namespace = manager.store.namespace.name
    with closing(sqlite3.connect(ledger_file)) as connection:
        sums = {row[0]: row[1:] for row in connection.execute(SUMS, (namespace,))}
    return Proof(
        accounts=tuple(_prove_account(manager, account, sums.get(account)) for account in accounts),
        report=ledger.verify(namespace, store=journalled(manager.store, "the proof")),
    )


def _prove_account(manager: CreditManager, account: str, sums: tuple[int, ...] | None) -> AccountProof:
    entries, distinct, first, last, recomputed, added = sums or (0, 0, 1, 0, 0, 0)
    balance = manager.get_balance(account)
    return AccountProof(
        account=account,
        entries=entries,
        gapless=first == 1 and entries == distinct == last,
        last_seq=last,
        added=added,
        recomputed=recomputed,
        balance=to_signed_micro(balance.balance),
        held=to_signed_micro(balance.held),
        engine_seq=balance.seq,
    )
