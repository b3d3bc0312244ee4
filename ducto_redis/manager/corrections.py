"""Refunds, corrections of balances by hand, and freezing of accounts."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.ids import TransactionId
from ducto_redis.engine.operation import Charge
from ducto_redis.errors import ConfigError, InvalidAmountError, RefundError, TransactionNotFoundError
from ducto_redis.manager.arguments import (
    GRANT_KEY_KEPT_MS,
    check_actor,
    check_reason,
    journal_cause,
    operation_key,
)
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import tells_adjusted, tells_refunded
from ducto_redis.manager.options import RefundExpired
from ducto_redis.money import Amount, to_micro
from ducto_redis.results import AccountChange, AdjustResult, RefundResult

_REFUNDABLE = ("deduct", "settle")


class Corrections(ManagerBase):
    """The part of a manager that refunds charges, corrects balances and freezes accounts."""

    @tells_refunded
    async def refund_credits(
        self,
        transaction_id: str,
        amount: Amount | None = None,
        *,
        reason: str | None = None,
        to_expired: RefundExpired | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RefundResult:
        """Refund a charge, whole or in part, to its sources: grants, balance, allowance, spend caps.

        All refunds of a charge together never exceed the charge. An allowance gets back only the part that was taken in
        the running period, and a spend cap the part that was spent in its running window.

        Args:
            transaction_id: the transaction id of the charge, as `deduct` or `settle` returned it.
            amount: credits; by default, all that was not refunded yet.
            reason: journalled with the refund.
            to_expired: the place for the part that was paid by a grant that has expired since: `balance` or `nowhere`;
                the manager's `refund_expired` by default.
            idempotency_key: the same key with the same request refunds once; remembered for 35 days.
            metadata: journalled with the refund; at most 1 KiB of JSON.

        Raises:
            TransactionNotFoundError: if neither the journal nor the ledger has the transaction.
            RefundError: if it is more than the rest of the charge, the transaction is no charge, or its id is not
                valid.
            ConfigError, InvalidAmountError, InvalidIdError, InvalidMetadataError, IdempotencyConflictError,
            JournalFullError, RecoveryNeededError, LedgerError, StoreUnavailableError
        """
        await self._ready()
        micro = None if amount is None else to_micro(amount)
        if to_expired not in (None, "balance", "nowhere"):
            raise ConfigError(f"to_expired is 'balance' or 'nowhere', not {to_expired!r:.40}")
        to_balance = self._expired_refunds_to_balance if to_expired is None else to_expired == "balance"
        cause = journal_cause(metadata=metadata, reason=None if reason is None else check_reason(reason))
        key = operation_key(
            idempotency_key,
            GRANT_KEY_KEPT_MS,
            "refund_credits",
            transaction_id,
            micro,
            reason,
            to_expired,
            metadata or None,
        )
        entry = await self._entry(transaction_id)
        if entry.operation not in _REFUNDABLE:
            raise RefundError(f"transaction {transaction_id!r} {_why_not(entry)}", account=entry.account)
        charge = Charge(transaction_id, entry.charged, entry.details, entry.time_ms)
        return await self.store.refund(entry.account, charge, micro, key, expired_to_balance=to_balance, cause=cause)

    @tells_adjusted
    async def adjust_credits(
        self,
        account: str,
        amount: Amount,
        *,
        actor: str,
        reason: str,
        force: bool = False,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AdjustResult:
        """Correct a balance by hand, even of a frozen account.

        Args:
            account: the account.
            amount: credits, above zero to add, below zero to take.
            actor: the person or program that does it.
            reason: the reason; both stay in the ledger.
            force: takes credits that are not available, too: below zero, and those that leases hold.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.
            metadata: journalled with the change; at most 1 KiB of JSON.

        Raises:
            InsufficientCreditsError: if more is taken than is available, without `force`.
            InvalidAmountError, InvalidIdError, InvalidMetadataError, IdempotencyConflictError, JournalFullError,
            RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        micro = _signed_micro(amount)
        cause = journal_cause(metadata=metadata, actor=check_actor(actor), reason=check_reason(reason))
        key = operation_key(
            idempotency_key, GRANT_KEY_KEPT_MS, "adjust_credits", micro, actor, reason, bool(force), metadata or None
        )
        return await self._conditioned(
            account,
            lambda conditions: self.store.adjust_credits(
                account, micro, key, force=bool(force), conditions=conditions, cause=cause
            ),
        )

    async def freeze(
        self, account: str, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> AccountChange:
        """Refuse reserve, deduct and extend for an account from now on, with AccountFrozenError.

        Running work goes on: leases settle and release, and credits come in, are refunded, adjusted and expire. An
        account that is frozen already stays so, for the first reason: the result is `replayed`.

        Args:
            account: a user or a team.
            actor: the person or program that does it.
            reason: the reason; both stay in the ledger, and in the error.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            InvalidIdError, IdempotencyConflictError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        cause = journal_cause(actor=check_actor(actor), reason=check_reason(reason))
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "freeze", actor, reason)
        return await self._conditioned(
            account,
            lambda conditions: self.store.freeze(
                account, f"{actor}: {reason}", key, conditions=conditions, cause=cause
            ),
        )

    async def unfreeze(
        self, account: str, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> AccountChange:
        """Let a frozen account spend again. An account that is not frozen stays as it is: the result is `replayed`.

        Arguments and errors are those of `freeze`.
        """
        await self._ready()
        cause = journal_cause(actor=check_actor(actor), reason=check_reason(reason))
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "unfreeze", actor, reason)
        return await self._conditioned(
            account, lambda conditions: self.store.freeze(account, "", key, conditions=conditions, cause=cause)
        )

    async def _entry(self, transaction_id: str) -> JournalEntry:
        place = TransactionId.parse(transaction_id) if isinstance(transaction_id, str) else None
        if place is None:
            raise RefundError(
                "a transaction id consists of partition, epoch and journal entry, such as '3-1-1700000000000-0', not"
                f" {transaction_id!r:.80}"
            )
        entry = None
        if place.partition < self.store.namespace.partitions:
            entry = await self.store.read_entry(place.partition, place.entry_id)
        ledger = self.ledger
        if (entry is None or entry.epoch != place.epoch) and ledger is not None:
            namespace = self.store.namespace.name
            entry = await self._in_thread(lambda: ledger.entry(namespace, transaction_id))
        if entry is None or entry.transaction_id != transaction_id:
            raise TransactionNotFoundError(transaction_id)
        return entry


def _why_not(entry: JournalEntry) -> str:
    if entry.operation == "expire":
        return "is the expiry of a lease: its charge comes back when the lease is settled or released"
    if entry.operation == "refund":
        return "is a refund itself: charge again what was refunded in excess"
    return f"is not a charge but {entry.operation!r}: only charges can be refunded"


def _signed_micro(amount: Amount) -> int:
    if isinstance(amount, str) and amount.strip().startswith("-"):
        return -to_micro(amount.strip()[1:])
    if isinstance(amount, Decimal) and amount.is_signed() and amount.is_finite():
        return -to_micro(amount.copy_negate())
    if isinstance(amount, int) and not isinstance(amount, bool) and amount < 0:
        return -to_micro(-amount)
    try:
        return to_micro(amount)
    except InvalidAmountError as error:
        raise InvalidAmountError(str(error).replace("above zero", "above or below zero")) from None
