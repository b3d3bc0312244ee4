"""Everything that ducto_redis raises.

CreditError
├── InsufficientCreditsError    the account cannot pay
├── CapReachedError             a spend cap would be passed
├── ConcurrencyLimitError       too many leases of this operation type are open
├── FeatureNotEntitledError     the account's plan lacks the feature
├── AccountFrozenError          the account is frozen
├── PlanNotFoundError           the pricing document has no such plan
├── TeamNotFoundError           the account is no team
├── MemberNotFoundError         the user is no member of the team
├── CapNotFoundError            the account has no such spend cap
├── TransactionNotFoundError    neither the journal nor the ledger has the transaction
├── NoAccountError              nobody pays for the request
├── LeaseNotFoundError          no such lease, or closed longer ago than closed leases are remembered
├── LeaseExpiredError           the lease's time is over
├── LeaseClosedError            the lease was settled, released or has expired: `how` says which
├── IdempotencyConflictError    the key was used for another request
│   └── AlreadyChargedError    the request with this key was answered and charged already
├── RefundError                 the refund is not possible
├── UnpricedModelError          the document has no price for the model
├── PricingNotLoadedError       no pricing document is active
├── InvalidAmountError          not an amount of credits (also a ValueError)
├── InvalidIdError              not an account, lease, model or key (also a ValueError)
├── InvalidMetadataError        not metadata: no JSON, or more than 1 KiB (also a ValueError)
├── InvalidValueError           not a value to keep beside an account: empty, or more than 1 MiB (also a ValueError)
├── InvalidUsageError           not a usage: negative, too large, not a number (also a ValueError)
├── ExpressionError             a formula is wrong, or cannot be calculated
├── ConfigError                 a setting or a document is wrong
│   └── PricingVersionNotFoundError  the pricing document has no such version
├── LedgerError                 the SQL ledger failed, or does not add up
│   └── LedgerUnavailableError  its database cannot be used now
├── RetryLaterError             a journal handler's own: not the entry's fault, hand it over again
├── GiveUpError                 a journal handler's own: trying again will not help
├── WebhookSignatureError       a webhook that is not what the sender signed, or too old
└── StoreError                  the engine failed
    ├── StoreUnavailableError   the engine cannot be reached in time; `operation_key` is safe to use again
    ├── JournalFullError        the journal waits for a consumer: nothing new is admitted
    ├── PartitionMismatchError  the namespace was created with another number of partitions
    ├── ConsumerGroupLostError  a journal consumer's group is not registered any more
    └── RecoveryNeededError     Redis lost its memory: nothing is admitted until it is restored

A store also asks its manager again by StalePricing, RepriceLease and TermsNeeded, which no caller ever sees.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from ducto_redis.display import format_credits
from ducto_redis.suggestions import there_are


class CreditError(Exception):
    """The base of all errors of ducto_redis. `code` is the same in the library, in HTTP answers and in logs."""

    code = "credit_error"

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, not made anew from its message: so it gets back whole from another process.
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[CreditError], args: tuple[Any, ...]) -> CreditError:
    return kind.__new__(kind, *args)


class InsufficientCreditsError(CreditError):
    """The account, or the lease that a new one was to be opened inside of, cannot pay for what was asked.

    Attributes:
        account: who was to pay.
        needed: credits that were asked for.
        available: credits that are neither spent nor held.
        held: credits that open leases hold.
        floor: how low the balance may go for this request.
        next_expiry: when the first open lease expires and may free credits, or None.
        allowance: credits that are left of the plan's allowance, besides those that are available.
        allowance_ends: when the running period of the allowance ends, and the next one begins; None without one.
        parent: the lease whose hold is too small: `available` is what it has left, `held` and `next_expiry` are of the
            leases inside of it. None where it is the account that cannot pay.
        max_output_tokens: the largest limit on a model's output with which the request would have passed, 0 where even
            its prompt is too dear; None where nobody worked it out.
    """

    code = "insufficient_credits"
    max_output_tokens: int | None = None

    def __init__(
        self,
        account: str,
        *,
        needed: Decimal,
        available: Decimal,
        held: Decimal,
        floor: Decimal = Decimal(0),
        next_expiry: datetime | None = None,
        allowance: Decimal = Decimal(0),
        allowance_ends: datetime | None = None,
        parent: str | None = None,
    ) -> None:
        self.account = account
        self.needed = needed
        self.available = available
        self.held = held
        self.floor = floor
        self.next_expiry = next_expiry
        self.allowance = allowance
        self.allowance_ends = allowance_ends
        self.parent = parent
        who = f"account {account!r}" if parent is None else f"what is inside lease {parent!r} of account {account!r}"
        more = f" and {format_credits(allowance)} of its allowance" if allowance else ""
        below = f", the balance may not fall below {format_credits(floor)}" if floor else ""
        super().__init__(
            f"{who} needs {format_credits(needed)} credits and has {format_credits(available)} available"
            f" ({format_credits(held)} held){more}{below}"
        )


class CapReachedError(CreditError):
    """A spend cap would be passed.

    Attributes:
        account: who was to pay.
        cap_id: the cap that refused.
        scope: what it counts: `account`, `member/<id>` or `model/<name>`.
        window: minute, hour, day, week, month or total.
        limit: credits that may be spent in the window.
        used: credits that were spent in it.
        held: credits that open leases may still spend.
        needed: credits that were asked for.
        window_end: when the window ends; None for a total, and where it rolls.
        max_output_tokens: as that of InsufficientCreditsError.
    """

    code = "spend_cap_reached"
    max_output_tokens: int | None = None

    def __init__(
        self,
        account: str,
        *,
        cap_id: str,
        scope: str,
        window: str,
        limit: Decimal,
        used: Decimal,
        held: Decimal,
        needed: Decimal,
        window_end: datetime | None = None,
    ) -> None:
        self.account = account
        self.cap_id = cap_id
        self.scope = scope
        self.window = window
        self.limit = limit
        self.used = used
        self.held = held
        self.needed = needed
        self.window_end = window_end
        until = f"; the window ends at {window_end.isoformat()}" if window_end else ""
        super().__init__(
            f"account {account!r} would pass its spend cap for {scope} per {window} ({cap_id}): the limit is"
            f" {format_credits(limit)} credits, {format_credits(used)} are used and {format_credits(held)} held,"
            f" {format_credits(needed)} more are needed{until}"
        )


class ConcurrencyLimitError(CreditError):
    """Too many leases of this operation type are open. `limit` is how many may be, `running` how many are."""

    code = "concurrency_limit"

    def __init__(self, account: str, operation_type: str, *, limit: int, running: int) -> None:
        self.account = account
        self.operation_type = operation_type
        self.limit = limit
        self.running = running
        super().__init__(
            f"account {account!r} may have {limit} open leases of type {operation_type!r} and has {running}; settle or"
            " release one, or wait"
        )


class FeatureNotEntitledError(CreditError):
    """The account's plan does not have the feature. `plan` is None for an account without one.

    `features` are those that the plan has.
    """

    code = "feature_not_entitled"

    def __init__(self, account: str, feature: str, *, plan: str | None, features: Sequence[str] = ()) -> None:
        self.account = account
        self.feature = feature
        self.plan = plan
        self.features = tuple(features)
        has = "which has no plan" if plan is None else f"on plan {plan!r}"
        its = "" if plan is None else f"; it has {there_are(feature, self.features)}"
        super().__init__(f"account {account!r}, {has}, does not have the feature {feature!r}{its}")


class AccountFrozenError(CreditError):
    """The account is frozen: nothing new is admitted. `reason` says who froze it and why."""

    code = "account_frozen"

    def __init__(self, account: str, reason: str) -> None:
        self.account = account
        self.reason = reason
        super().__init__(f"account {account!r} is frozen ({reason}); `ducto unfreeze` lets it spend again")


class PlanNotFoundError(CreditError):
    """The pricing document has no such plan. `plans` are those that it has."""

    code = "plan_not_found"

    def __init__(self, plan: str, plans: Sequence[str]) -> None:
        self.plan = plan
        self.plans = tuple(plans)
        super().__init__(f"the pricing document has no plan {plan!r}; it has {there_are(plan, self.plans)}")


class TeamNotFoundError(CreditError):
    """The account is no team.

    Attributes:
        team: the account.
        exists: whether anything ever happened to an account of that name; None where nobody looked.
    """

    code = "team_not_found"

    def __init__(self, team: str, *, exists: bool | None = None) -> None:
        self.team = team
        self.exists = exists
        if exists is None:
            what = f"account {team!r} is no team"
        elif exists:
            what = f"account {team!r} is no team: it is an account without members"
        else:
            what = f"there is no team {team!r}, and no account of that name: nothing ever happened to it"
        super().__init__(f"{what}; `create_team` (`ducto team create`) makes one")


class MemberNotFoundError(CreditError):
    """The user is no member of the team, or not any more.

    Attributes:
        team: the team.
        member: who was asked for.
        members: those that it has; None where nobody looked.
        removed: whether they were a member once.
    """

    code = "member_not_found"

    def __init__(self, team: str, member: str, members: Sequence[str] | None = None, *, removed: bool = False) -> None:
        self.team = team
        self.member = member
        self.members = None if members is None else tuple(members)
        self.removed = removed
        what = f"{member!r} was removed from team" if removed else f"{member!r} is no member of team"
        who = "`get_team` lists those that it has" if members is None else f"it has {there_are(member, members)}"
        super().__init__(f"{what} {team!r}; {who}")


class CapNotFoundError(CreditError):
    """The account has no such spend cap. `caps` are those that it has."""

    code = "cap_not_found"

    def __init__(self, account: str, cap: str, caps: Sequence[str] = ()) -> None:
        self.account = account
        self.cap = cap
        self.caps = tuple(caps)
        super().__init__(f"account {account!r} has no spend cap {cap!r}; it has {there_are(cap, self.caps)}")


class TransactionNotFoundError(CreditError):
    """Neither the journal nor the ledger has the transaction."""

    code = "transaction_not_found"

    def __init__(self, transaction_id: str) -> None:
        self.transaction_id = transaction_id
        super().__init__(
            f"there is no transaction {transaction_id!r:.80}, neither in the journal nor in the ledger;"
            " `ducto analytics transactions ACCOUNT` lists those of an account"
        )


class NoAccountError(CreditError):
    """Nobody pays for the request: `account(scope)` of the middleware said None."""

    code = "no_account"

    def __init__(self, message: str = "there is no account to charge for this request") -> None:
        super().__init__(message)


class LeaseNotFoundError(CreditError):
    """No such lease, or it was closed longer ago than closed leases are remembered (24 hours)."""

    code = "lease_not_found"

    def __init__(self, account: str, lease_id: str) -> None:
        self.account = account
        self.lease_id = lease_id
        super().__init__(f"account {account!r} has no lease {lease_id!r}; `list_leases` shows those that are open")


class LeaseExpiredError(CreditError):
    """The lease's time is over, so that it can neither be renewed nor extended. It can still be settled."""

    code = "lease_expired"

    def __init__(self, account: str, lease_id: str) -> None:
        self.account = account
        self.lease_id = lease_id
        super().__init__(f"lease {lease_id!r} of account {account!r} has expired; settle charges it all the same")


class LeaseClosedError(CreditError):
    """The lease is closed. `how` is "settled", "released" or "expired"; "closed" where it is not known which."""

    code = "lease_closed"

    def __init__(self, account: str, lease_id: str, how: str) -> None:
        self.account = account
        self.lease_id = lease_id
        self.how = how
        was = "" if how == "closed" else f": it was {how}"
        super().__init__(f"lease {lease_id!r} of account {account!r} is closed{was}")


class IdempotencyConflictError(CreditError):
    """The key, or the lease id, was used for another request. `running` is True while the first one still runs."""

    code = "idempotency_conflict"

    def __init__(self, account: str, key: str, *, running: bool = False) -> None:
        self.account = account
        self.key = key
        self.running = running
        super().__init__(
            f"{key!r} of account {account!r} was used for "
            + ("a request that still runs" if running else "another request; use a new one")
        )


class AlreadyChargedError(IdempotencyConflictError):
    """The request with this idempotency key was answered and charged already, by this transaction."""

    code = "already_charged"

    def __init__(self, account: str, key: str, transaction_id: str) -> None:
        super().__init__(account, key)
        self.transaction_id = transaction_id
        self.args = (f"the request {key!r} of account {account!r} was charged already, as {transaction_id}",)


class RefundError(CreditError):
    """The refund is not possible. `account` is whose charge it was; empty where that is not known."""

    code = "refund_error"

    def __init__(self, message: str, *, account: str = "") -> None:
        self.account = account
        super().__init__(message)


class UnpricedModelError(CreditError):
    """The pricing document has no price for the model.

    Attributes:
        model: what has none; None for a request that names no model.
        what: what it is: a model, a tool or a fixed job.
        priced: those that the document prices; None where nobody looked.
    """

    code = "model_not_priced"

    def __init__(self, model: str | None, *, what: str = "model", priced: Iterable[str] | None = None) -> None:
        self.model = model
        self.what = what
        self.priced = None if priced is None else tuple(priced)
        super().__init__(model)

    def __str__(self) -> str:
        # Made when it is read: anybody may ask for any model, and comparing its name with all others takes time.
        name = "a request without a model" if self.model is None else f"{self.what} {self.model!r}"
        add = "add one" if self.what == "fixed job" else "add one, or a _default"
        its = "" if self.priced is None else f"; it prices {there_are(self.model or '', self.priced)}"
        return f"the pricing document has no price for {name}: {add}{its}"


class PricingNotLoadedError(CreditError):
    """No pricing document is active."""

    code = "pricing_not_loaded"

    def __init__(
        self, message: str = "no pricing document is active; publish one with `ducto pricing set FILE`"
    ) -> None:
        super().__init__(message)


class InvalidAmountError(CreditError, ValueError):
    """Not an amount of credits, or one that would pass the limit of 2**53 - 1 micro-credits."""

    code = "invalid_amount"


class InvalidIdError(CreditError, ValueError):
    """Not an account id, lease id, key, operation type or other name."""

    code = "invalid_id"


class InvalidMetadataError(CreditError, ValueError):
    """Not metadata: a mapping of names to JSON values, of at most 1 KiB."""

    code = "invalid_metadata"


class InvalidValueError(CreditError, ValueError):
    """Not a value that can be kept beside an account: 1 byte to 1 MiB."""

    code = "invalid_value"


class InvalidUsageError(CreditError, ValueError):
    """Not a usage: a count below zero, over 2**53 - 1, or not a number."""

    code = "invalid_usage"


class ExpressionError(CreditError):
    """A formula is wrong, or cannot be calculated.

    Attributes:
        path: where the formula stands in the document, such as `models.gpt-4o`.
        position: the character in the formula, from 0, or None where the whole formula is meant.
    """

    code = "expression_error"

    def __init__(self, message: str, *, path: str = "", position: int | None = None) -> None:
        self.path = path
        self.position = position
        self.reason = message
        place = f"{path}: " if path else ""
        where = "" if position is None else f" (at character {position})"
        super().__init__(f"{place}{message}{where}")


class ConfigError(CreditError):
    """A setting or a document is wrong."""

    code = "config_error"


class PricingVersionNotFoundError(ConfigError):
    """No such version of the pricing document was published.

    Attributes:
        version: that was asked for; None where it is not known.
        latest: the highest that there is: they are numbered from 1. 0 where none was published.
    """

    def __init__(self, version: int | None, *, latest: int) -> None:
        self.version = version
        self.latest = latest
        asked = "there is no such version" if version is None else f"there is no version {version}"
        if not latest:
            there_is = "none was published yet; publish one with `ducto pricing set FILE`"
        else:
            there_is = "there is version 1" if latest == 1 else f"there are versions 1 to {latest}"
        super().__init__(f"{asked} of the pricing document; {there_is}")


class LedgerError(CreditError):
    """The SQL ledger failed, or does not add up."""

    code = "ledger_error"


class LedgerUnavailableError(LedgerError):
    """The ledger's database cannot be used now: it is away, locked, full, or has not been migrated."""

    code = "ledger_unavailable"


class RetryLaterError(CreditError):
    """Raised by a handler of journal entries: what it needs is away, and that is not the entry's fault.

    The entry is handed over again until it succeeds, however often that is; it never becomes a dead letter.
    """

    code = "retry_later"


class GiveUpError(CreditError):
    """Raised by a handler of journal entries: trying again will not help. The entry becomes a dead letter at once."""

    code = "give_up"


class WebhookSignatureError(CreditError):
    """A webhook that is not what the sender signed, or that was signed too long ago."""

    code = "webhook_signature"


class StoreError(CreditError):
    """The engine failed."""

    code = "store_error"


class StoreUnavailableError(StoreError):
    """The engine could not be reached in time.

    Whether the operation took effect is unknown. `operation_key` (None for a read) makes it safe to ask again: given as
    the idempotency key, or as the lease id of a reserve, it never takes effect twice.
    """

    code = "store_unavailable"

    def __init__(self, message: str, *, operation_key: str | None = None) -> None:
        self.operation_key = operation_key
        super().__init__(message)


class JournalFullError(StoreError):
    """The journal waits for a consumer: reserve, deduct and add are refused, settle and release go on."""

    code = "journal_full"


class PartitionMismatchError(StoreError):
    """The namespace was created with another number of partitions."""

    code = "partition_mismatch"


class ConsumerGroupLostError(StoreError):
    """The consumer's group is not registered any more: it was removed, or Redis is older than its registration."""

    code = "consumer_group_lost"


class RecoveryNeededError(StoreError):
    """Redis lost its memory: nothing is admitted until it is restored."""

    code = "recovery_needed"


class StalePricing(Exception):
    """To the manager: the account was charged under a newer pricing document already; load it and price again."""

    def __init__(self, activation: int) -> None:
        self.activation = activation
        super().__init__(f"priced before activation {activation}")


class RepriceLease(Exception):
    """To the manager: the lease was priced under that version and plan of the pricing document; price under it."""

    def __init__(self, version: int, plan: str = "") -> None:
        self.version = version
        self.plan = plan
        super().__init__(f"the lease was priced under version {version}, plan {plan!r}")


class TermsNeeded(Exception):
    """To the manager: the account is under that plan, at that time; send what the plan means now.

    Attributes:
        plan: the account's plan, empty for none.
        assigned_ms: when it was assigned, by the server's clock; 0 where it is to be assigned now.
        time_zone: the account's own, empty where it has none.
        now_ms: the server's time.
        windows: windows of the account's caps whose bounds are needed, as `day@Europe/Berlin`.
    """

    def __init__(self, plan: str, assigned_ms: int, time_zone: str, now_ms: int, windows: Sequence[str] = ()) -> None:
        self.plan = plan
        self.assigned_ms = assigned_ms
        self.time_zone = time_zone
        self.now_ms = now_ms
        self.windows = tuple(windows)
        super().__init__(f"the terms of plan {plan!r} at {now_ms} are needed")
