"""Operations that change what an account is, plan, spend caps, members, freezing, or keep values beside it. No I/O.

Every amount here is in micro-credits and every time in milliseconds; ids and amounts have been checked by who calls.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from ducto_redis.engine.conditions import encode_conditions
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import CapRule, Conditions, Operation, OperationKey
from ducto_redis.engine.results import read_change, read_kept, read_value
from ducto_redis.engine.scripts import Scripts
from ducto_redis.results import AccountChange

R = TypeVar("R")


class Administration:
    """Makes the operations that move no credits."""

    def __init__(self, namespace: Namespace, scripts: Scripts) -> None:
        self.namespace = namespace
        self.scripts = scripts

    def set_plan(
        self,
        account: str,
        plan: str,
        time_zone: str,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AccountChange]:
        """Assign a plan. Errors: IdempotencyConflict, RecoveryNeeded, StalePricing, TermsNeeded, JournalFull."""
        args = (
            account,
            plan,
            time_zone,
            key.text,
            key.kept_ms,
            key.fingerprint,
            journal_limit,
            cause,
            encode_conditions(conditions),
        )
        return self._change("set_plan", account, key, args, read_change)

    def set_cap(
        self,
        account: str,
        rule: CapRule,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AccountChange]:
        """Set a spend cap. Errors: those of set_plan, MemberNotFound, InvalidAmount (too many of a scope)."""
        args = (
            account,
            rule.scope,
            rule.window,
            int(rule.rolling),
            rule.action,
            rule.time_zone,
            rule.limit,
            key.text,
            key.kept_ms,
            key.fingerprint,
            journal_limit,
            cause,
            encode_conditions(conditions),
        )
        return self._change("set_cap", account, key, args, read_change)

    def remove_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, cause: bytes, journal_limit: int
    ) -> Operation[AccountChange]:
        """Remove a spend cap.

        Errors: IdempotencyConflict, RecoveryNeeded, CapNotFound, Config (a plan's), JournalFull.
        """
        args = (account, scope, cap_id, key.text, key.kept_ms, key.fingerprint, journal_limit, cause)
        return self._change("remove_cap", account, key, args, read_change)

    def raise_cap(
        self,
        account: str,
        scope: str,
        cap_id: str,
        limit: int,
        until_ms: int,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AccountChange]:
        """Raise a spend cap for a time. Errors: those of clear_cap, Config (the time is over)."""
        kept = (key.text, key.kept_ms, key.fingerprint, journal_limit, cause, encode_conditions(conditions))
        return self._change("raise_cap", account, key, (account, scope, cap_id, limit, until_ms, *kept), read_change)

    def clear_cap(
        self,
        account: str,
        scope: str,
        cap_id: str,
        key: OperationKey,
        *,
        conditions: Conditions,
        cause: bytes,
        journal_limit: int,
    ) -> Operation[AccountChange]:
        """Forget what was used of a spend cap. Errors: those of set_plan, CapNotFound."""
        kept = (key.text, key.kept_ms, key.fingerprint, journal_limit, cause, encode_conditions(conditions))
        return self._change("clear_cap", account, key, (account, scope, cap_id, *kept), read_change)

    def freeze(
        self, account: str, reason: str, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> Operation[AccountChange]:
        """Freeze an account, or, without a reason, let it spend again.

        Errors: IdempotencyConflict, RecoveryNeeded, TermsNeeded (of a new account).
        """
        args = (account, reason, key.text, key.kept_ms, key.fingerprint, cause, encode_conditions(conditions))
        return self._change("freeze", account, key, args, read_change)

    def create_team(
        self, account: str, name: str, owner: str, key: OperationKey, *, cause: bytes, journal_limit: int
    ) -> Operation[AccountChange]:
        """Make an account a team. Errors: IdempotencyConflict, RecoveryNeeded, Config (it is one), JournalFull."""
        args = (account, name, owner, key.text, key.kept_ms, key.fingerprint, journal_limit, cause)
        return self._change("create_team", account, key, args, read_change)

    def set_member(
        self, account: str, member: str, role: str, key: OperationKey, *, cause: bytes, journal_limit: int
    ) -> Operation[AccountChange]:
        """Add a member, change a role, remove a member.

        Errors: IdempotencyConflict, RecoveryNeeded, TeamNotFound, MemberNotFound, Config (the last owner), JournalFull.
        """
        args = (account, member, role, key.text, key.kept_ms, key.fingerprint, journal_limit, cause)
        return self._change("set_member", account, key, args, read_change)

    def keep_value(
        self, account: str | None, name: str, value: bytes, *, ttl_ms: int, replaces: bytes | None
    ) -> Operation[bytes]:
        """Keep a value beside an account, or, with None, beside none of them. The result is what is kept then.

        `replaces` is the value that it takes the place of, empty for none; None: any.
        """
        keys = self.namespace.reserved if account is None else self.namespace.account(account)
        condition = ("always", b"") if replaces is None else ("only_if", replaces)
        return Operation(
            self.scripts["keep_value"], keys.partition, (keys.value(name),), (value, ttl_ms, *condition), read_kept
        )

    def kept_value(self, account: str | None, name: str) -> Operation[bytes | None]:
        """A value that is kept beside an account, or None."""
        keys = self.namespace.reserved if account is None else self.namespace.account(account)
        return Operation(self.scripts["kept_value"], keys.partition, (keys.value(name),), (), read_value)

    def _change(
        self,
        script: str,
        account: str,
        key: OperationKey,
        args: tuple[str | bytes | int, ...],
        read: Callable[[Operation[R], Any], R],
    ) -> Operation[R]:
        keys = self.namespace.account(account)
        return Operation(
            self.scripts[script],
            keys.partition,
            (*keys.keys, keys.operation(key.text)),
            args,
            read,
            account=account,
            operation_key=key.for_callers,
        )
