"""A store of dictionaries: every operation of a `CreditStore`, each of them one step.

    pytest --ducto-store=dict_store:make_store

`dict_steps` has the dictionaries, the lock and the journal, `dict_account` the rules by which an account is spent.
"""

from typing import Any, TypeVar

from dict_account import Account
from dict_parts import Cap, Counted, Lease, Member, counted_scopes, time_of
from dict_steps import Data, DictSteps
from msgspec import structs

from ducto_redis import errors, results
from ducto_redis.engine.entry import Details
from ducto_redis.engine.ids import check_account
from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operation import PLAIN, CapRule, Charge, Conditions, LeaseTerms, NewGrant, OperationKey, Price
from ducto_redis.money import from_micro

GRANTS_AN_ACCOUNT = 256
CAPS_A_SCOPE = 16

C = TypeVar("C", bound=results.Change)

_namespaces: dict[str, Data] = {}


def make_store(namespace: str, *, partitions: int = 1, clock_offset_ms: int = 0) -> "DictStore":
    """A store of the namespace, in this process."""
    return DictStore(_namespaces.setdefault(namespace, Data()), Namespace(namespace, partitions), clock_offset_ms)


class DictStore(DictSteps):
    """Accounts in dictionaries, for as long as the process lives."""

    # Credits in and back

    async def add_credits(
        self, account: str, grant: NewGrant, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> results.AddResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AddResult):
                return earlier
            self._begin(state, conditions)
            if grant.expires_ms and grant.expires_ms <= state.now:
                raise errors.ConfigError(f"these credits have expired already, at {time_of(grant.expires_ms)}")
            state.add(grant)
            if len(state.grants) > GRANTS_AN_ACCOUNT:
                raise errors.InvalidAmountError(f"account {account!r} can have no more than {GRANTS_AN_ACCOUNT} grants")
            state.check_limits()
            transaction = self._write(state, "add_credits", key.text, grant.amount, grant.amount, cause=cause)
            expires_at = time_of(grant.expires_ms) if grant.expires_ms else None
            return state.remember(
                key, _change(results.AddResult, state, transaction, grant.amount, expires_at=expires_at)
            )

    async def adjust_credits(
        self, account: str, amount: int, key: OperationKey, *, force: bool, conditions: Conditions, cause: bytes
    ) -> results.AdjustResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AdjustResult):
                return earlier
            self._begin(state, conditions)
            if amount < 0 and not force:
                state.check_funds(-amount, 0, skip_allowance=True)
            details = Details(grants=state.take(-amount))
            if amount > 0:
                state.arm()
            state.check_limits()
            transaction = self._write(state, "adjust_credits", key.text, amount, amount, cause=cause, details=details)
            return state.remember(key, _change(results.AdjustResult, state, transaction, amount))

    async def refund(
        self,
        account: str,
        charge: Charge,
        amount: int | None,
        key: OperationKey,
        *,
        expired_to_balance: bool,
        cause: bytes,
    ) -> results.RefundResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.RefundResult):
                return earlier
            done = state.refunded.get(charge.transaction_id, 0)
            wanted = charge.amount - done if amount is None else amount
            if wanted <= 0 or done + wanted > charge.amount:
                raise errors.RefundError(
                    f"{from_micro(done)} of {from_micro(charge.amount)} credits are refunded already"
                )
            before = state.balance
            details = state.give_back(charge, done, wanted, to_pool=expired_to_balance)
            details = structs.replace(details, refund_of=charge.transaction_id)
            state.refunded[charge.transaction_id] = done + wanted
            state.check_limits()
            change = state.balance - before
            transaction = self._write(state, "refund", key.text, wanted, change, cause=cause, details=details)
            result = _change(
                results.RefundResult,
                state,
                transaction,
                wanted,
                refund_of=charge.transaction_id,
                refunded=from_micro(done + wanted),
                allowance_restored=from_micro(details.allowance),
                lost=from_micro(details.lost),
            )
            return state.remember(key, result)

    # Charges and leases

    def _admit(self, state: Account, price: Price, conditions: Conditions, member: str, counted: Counted) -> None:
        """What stands before every deduct, reserve and extend, in the order in which it is refused."""
        if 0 < price.activation < state.activation:
            raise errors.StalePricing(state.activation)
        self._begin(state, conditions, tuple(scope for scope, _ in counted))
        if state.frozen:
            raise errors.AccountFrozenError(state.name, state.frozen)
        state.check_member(member)

    async def deduct(
        self, account: str, price: Price, key: OperationKey, *, floor: int, conditions: Conditions, cause: bytes
    ) -> results.DeductResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.DeductResult):
                return earlier
            member = conditions.member
            counted = counted_scopes(price.amount, member, conditions.models)
            self._admit(state, price, conditions, member, counted)
            state.check_caps(counted)
            allowance = state.check_funds(price.amount, floor, skip_allowance=conditions.skip_allowance)
            state.activation = max(state.activation, price.activation)
            rest = price.amount - allowance
            details = state.charge(allowance, rest, counted, member, conditions.low_levels)
            details = structs.replace(details, plan=state.plan)
            transaction = self._write(
                state, "deduct", key.text, price.amount, -rest, version=price.version, cause=cause, details=details
            )
            return state.remember(key, _charged(results.DeductResult, state, transaction, price.amount, details))

    async def reserve(
        self,
        account: str,
        lease_id: str,
        price: Price,
        terms: LeaseTerms,
        *,
        conditions: Conditions,
        cause: bytes,
        dry_run: bool = False,
    ) -> results.ReserveResult:
        with self._changing(check_account(account), keep=not dry_run) as state:
            if lease := state.leases.get(lease_id):
                if lease.terms.fingerprint != terms.fingerprint:
                    raise errors.IdempotencyConflictError(account, lease_id)
                if not lease.open:
                    raise errors.LeaseClosedError(account, lease_id, "expired")
                return _opened(state, lease, replayed=True)
            state.check_not_closed(lease_id)
            counted = counted_scopes(price.amount, conditions.member, conditions.models)
            self._admit(state, price, conditions, conditions.member, counted)
            kind, limit = terms.operation_type, conditions.max_concurrent
            running = sum(lease.terms.operation_type == kind for lease in state.open_leases)
            if limit is not None and running >= limit:
                raise errors.ConcurrencyLimitError(account, kind, limit=limit, running=running)
            state.check_caps(counted)
            allowance = state.check_funds(price.amount, terms.floor, skip_allowance=conditions.skip_allowance)
            state.activation = max(state.activation, price.activation)
            lease = state.leases[lease_id] = Lease(
                lease_id,
                terms,
                price,
                created=state.now,
                expires=state.now + terms.ttl_ms,
                plan=state.plan,
                member=conditions.member,
            )
            crossed = state.hold(lease, price.amount, allowance, counted, conditions.models)
            lease.transaction_id = self._write(
                state,
                "reserve",
                f"lease/{lease_id}/reserve",
                price.amount,
                version=price.version,
                cause=cause,
                details=crossed,
            )
            return _opened(state, lease, warnings=_warnings(crossed))

    async def extend(
        self, account: str, lease_id: str, price: Price, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> results.ExtendResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.ExtendResult):
                return earlier
            lease = state.open_lease(lease_id)
            _check_priced_alike(lease, price, lease.plan)
            counted = counted_scopes(price.amount, lease.member, conditions.models)
            self._admit(state, Price(0), conditions, lease.member, counted)
            state.check_caps(counted)
            # A lease rests on one period's allowance: what began in an older one is extended from the balance.
            skip = conditions.skip_allowance or (lease.allowance > 0 and not state.runs(lease.period))
            allowance = state.check_funds(price.amount, lease.terms.floor, skip_allowance=skip)
            crossed = state.hold(lease, price.amount, allowance, counted, conditions.models)
            transaction = self._write(
                state, "extend", key.text, price.amount, version=price.version, cause=cause, details=crossed
            )
            result = _change(results.ExtendResult, state, transaction, lease.amount, lease_id=lease_id)
            return state.remember(key, result)

    async def settle(
        self, account: str, lease_id: str, price: Price, *, conditions: Conditions, fingerprint: str, cause: bytes
    ) -> results.SettleResult:
        with self._changing(check_account(account)) as state:
            if closed := state.closed_lease(lease_id):
                if closed.how == "released":
                    raise errors.LeaseClosedError(account, lease_id, "released")
                if closed.fingerprint != fingerprint:
                    raise errors.IdempotencyConflictError(account, lease_id)
                return closed.answer(results.SettleResult)
            lease, before = state.lease(lease_id), state.balance
            _check_priced_alike(lease, price, conditions.plan)
            above_floor = max(0, state.balance - state.held - lease.terms.floor)
            payable = above_floor + state.let_go(lease)
            # Of an allowance whose period is over a lease can spend what it took of it, and nothing else.
            old = lease.own_allowance if not state.is_of_this_period(lease.period) else 0
            allowance = (
                0
                if conditions.skip_allowance
                else min(price.amount, old or max(lease.own_allowance, state.allowance_left))
            )
            rest = min(price.amount - allowance, payable)
            charged = allowance + rest
            counted = counted_scopes(charged, lease.member, lease.shares(conditions.models, charged))
            details = state.charge(
                allowance, rest, counted, lease.member, conditions.low_levels, before=before, lease=lease
            )
            state.check_limits()
            late, shortfall = not lease.open, price.amount - charged
            details = structs.replace(details, plan=lease.plan, operation_type=lease.kind, late=late)
            transaction = self._write(
                state,
                "settle",
                f"lease/{lease_id}/settle",
                price.amount,
                state.balance - before,
                shortfall=shortfall,
                version=price.version,
                cause=cause,
                details=details,
            )
            self._expire_rests(state)
            more = {"lease_id": lease_id, "late": late, "shortfall": from_micro(shortfall)}
            result = _charged(results.SettleResult, state, transaction, charged, details, **more)
            return state.close_lease(lease_id, "settled", fingerprint, result)

    async def release(self, account: str, lease_id: str, *, cause: bytes) -> results.ReleaseResult:
        with self._changing(check_account(account)) as state:
            if closed := state.closed_lease(lease_id):
                if closed.how == "settled":
                    raise errors.LeaseClosedError(account, lease_id, "settled")
                return closed.answer(results.ReleaseResult)
            lease, before = state.lease(lease_id), state.balance
            state.let_go(lease)
            state.check_limits()
            amount, change = lease.amount if lease.open else 0, state.balance - before
            transaction = self._write(state, "release", f"lease/{lease_id}/release", amount, change, cause=cause)
            self._expire_rests(state)
            result = _change(results.ReleaseResult, state, transaction, amount, lease_id=lease_id)
            return state.close_lease(lease_id, "released", "", result)

    async def renew(self, account: str, lease_id: str, key: OperationKey, *, ttl_ms: int) -> results.RenewResult:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.RenewResult):
                return earlier
            lease = state.open_lease(lease_id)
            lease.expires = max(lease.expires, state.now + ttl_ms)
            result = results.RenewResult(
                transaction_id=self._write(state, "renew", key.text),
                account=account,
                lease_id=lease_id,
                expires_at=time_of(lease.expires),
            )
            return state.remember(key, result)

    # Plan, caps, members

    async def set_plan(
        self, account: str, plan: str, time_zone: str, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            opens = conditions.opens and not state.seq
            same_zone = not plan or time_zone in ("", state.time_zone)
            if state.plan == plan and same_zone and not opens:
                return self._was_so(state)
            state.take_plan(plan, time_zone, conditions.terms)
            if opens:
                self._begin(state, structs.replace(conditions, plan=plan))
            return self._account_change(state, "set_plan", key, cause)

    async def set_cap(
        self, account: str, rule: CapRule, key: OperationKey, *, conditions: Conditions, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            self._begin(state, conditions)
            kind, member = rule.scope.partition("/")[::2]
            state.check_member(member if kind == "member" else "")
            caps = state.caps.setdefault(rule.scope, [])
            same = [cap for cap in caps if cap.source == "own" and cap.measures_like(rule)]
            for cap in same:
                cap.rule = rule
            if not same:
                caps.append(Cap(str(state.seq + 1), "own", rule))
            if len(caps) > CAPS_A_SCOPE:
                raise errors.InvalidAmountError(f"account {account!r} can have no more than {CAPS_A_SCOPE} caps there")
            state.take_terms(conditions, (rule.scope,))
            return self._account_change(state, "set_cap", key, cause)

    async def remove_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            cap = state.cap(scope, cap_id)
            if cap.source == "plan":
                raise errors.ConfigError(f"cap {cap_id!r} of account {account!r} comes from its plan; change the plan")
            state.caps[scope].remove(cap)
            return self._account_change(state, "remove_cap", key, cause)

    async def raise_cap(
        self,
        account: str,
        scope: str,
        cap_id: str,
        limit: int,
        until_ms: int,
        key: OperationKey,
        *,
        conditions: Conditions = PLAIN,
        cause: bytes,
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            if conditions != PLAIN:
                self._begin(state, conditions)
                state.take_terms(conditions, (scope,))
            cap = state.cap(scope, cap_id)
            if until_ms <= state.now:
                raise errors.ConfigError(f"the time is over already: it is {time_of(state.now)}")
            cap.raised, cap.raised_until = limit, until_ms
            return self._account_change(state, "raise_cap", key, cause)

    async def clear_cap(
        self, account: str, scope: str, cap_id: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            if conditions != PLAIN:
                self._begin(state, conditions)
                state.take_terms(conditions, (scope,))
            cap = state.cap(scope, cap_id)
            cap.used, cap.crossed, cap.buckets = 0, False, {}
            return self._account_change(state, "clear_cap", key, cause)

    async def freeze(
        self, account: str, reason: str, key: OperationKey, *, conditions: Conditions = PLAIN, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            if bool(state.frozen) == bool(reason):
                return self._was_so(state)
            if not state.seq:
                self._begin(state, conditions)
            state.frozen = reason
            return self._account_change(state, "freeze" if reason else "unfreeze", key, cause)

    async def create_team(
        self, account: str, name: str, owner: str, key: OperationKey, *, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            if state.team is not None:
                raise errors.ConfigError(f"account {account!r} is a team already: {state.team!r}")
            state.team = name
            if owner:
                state.members[owner] = Member("owner", state.now)
            return self._account_change(state, "create_team", key, cause)

    async def set_member(
        self, account: str, member: str, role: str, key: OperationKey, *, cause: bytes
    ) -> results.AccountChange:
        with self._changing(check_account(account)) as state:
            if earlier := state.earlier(key, results.AccountChange):
                return earlier
            if state.team is None:
                raise errors.TeamNotFoundError(account)
            known = state.members.get(member)
            gone = known is None or known.role == "removed"
            if role == "removed" and gone:
                raise errors.MemberNotFoundError(account, member)
            if known is not None and known.role == role:
                return self._was_so(state)
            if [name for name, each in state.members.items() if each.role == "owner"] == [member]:
                raise errors.ConfigError(
                    f"{member!r} is the last owner of team {account!r}; make somebody else one first"
                )
            joined = state.now if known is None or gone else known.joined
            state.members[member] = Member(role, joined, known.spent if known else 0)
            return self._account_change(state, "set_member", key, cause)

    def _account_change(self, state: Account, operation: str, key: OperationKey, cause: bytes) -> results.AccountChange:
        transaction = self._write(state, operation, key.text, cause=cause)
        return state.remember(key, results.AccountChange(transaction_id=transaction, account=state.name))

    def _was_so(self, state: Account) -> results.AccountChange:
        transaction = f"{self.namespace.partition_of(state.name)}-1-"
        return results.AccountChange(transaction_id=transaction, account=state.name, replayed=True)


def _check_priced_alike(lease: Lease, price: Price, plan: str) -> None:
    if price.version and lease.price.version and (price.version, plan) != (lease.price.version, lease.plan):
        raise errors.RepriceLease(lease.price.version, lease.plan)


def _change(kind: type[C], state: Account, transaction: str, amount: int, **more: Any) -> C:
    return kind(
        transaction_id=transaction,
        account=state.name,
        amount=from_micro(amount),
        balance_after=from_micro(state.balance),
        available=from_micro(state.balance - state.held),
        **more,
    )


def _charged(kind: type[C], state: Account, transaction: str, amount: int, details: Details, **more: Any) -> C:
    return _change(
        kind,
        state,
        transaction,
        amount,
        allowance_consumed=from_micro(details.allowance),
        warnings=_warnings(details),
        low_levels=tuple(from_micro(level) for level in details.low),
        **more,
    )


def _opened(state: Account, lease: Lease, **more: Any) -> results.ReserveResult:
    return _change(
        results.ReserveResult,
        state,
        lease.transaction_id,
        lease.amount,
        lease_id=lease.lease_id,
        expires_at=time_of(lease.expires),
        version=lease.price.version,
        allowance_consumed=from_micro(lease.allowance),
        **more,
    )


def _warnings(details: Details) -> tuple[results.CapWarning, ...]:
    return tuple(
        results.CapWarning(cap_id=crossing.cap_id, scope=crossing.scope, action=crossing.action)
        for crossing in details.crossed
    )
