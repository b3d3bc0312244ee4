"""Freezing accounts: nothing new is admitted until they are let go."""

from ducto_redis.manager.arguments import GRANT_KEY_KEPT_MS, journal_cause, operation_key
from ducto_redis.manager.auditing import check_actor, check_reason
from ducto_redis.manager.base import ManagerBase
from ducto_redis.results import AccountChange


class Freezing(ManagerBase):
    """The part of a manager that freezes accounts."""

    async def freeze(
        self, account: str, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> AccountChange:
        """Refuse an account's reserve, deduct and extend from now on, with AccountFrozenError.

        What runs goes on: settle and release, and so do credits that come in, refunds, adjustments and expiry. An
        account that is frozen stays so, for the first reason: the result is `replayed`.

        Args:
            account: a user or a team.
            actor: who does it.
            reason: why; both stay in the ledger, and in the error.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError, StoreUnavailableError
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
        """Let a frozen account spend again. One that is not frozen changes nothing: the result is `replayed`.

        Args and errors are those of `freeze`.
        """
        await self._ready()
        cause = journal_cause(actor=check_actor(actor), reason=check_reason(reason))
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "unfreeze", actor, reason)
        return await self._conditioned(
            account, lambda conditions: self.store.freeze(account, "", key, conditions=conditions, cause=cause)
        )
