"""Charges: in one step, or by a lease that holds first and settles later."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import msgspec

from ducto_redis.engine.operation import PLAIN, Conditions
from tests.model import caps, parents, spending, terms
from tests.model.account import LIMIT, Account, Answer, Lease, Paid, Refused
from tests.model.base import ModelBase


class Charging(ModelBase):
    """What spends, or holds what will be spent."""

    def deduct(
        self, name: str, amount: int, key: str, fingerprint: str, floor: int, version: int, activation: int,
        conditions: Conditions = PLAIN,
    ) -> Answer:  # fmt: skip
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        parts = caps.parts_of(amount, conditions.member, conditions.models)

        def change() -> Answer:
            self._admit(account, amount, floor, activation, conditions, parts)
            before = account.balance
            left = self._left(account, conditions)
            paid = self._pay(account, min(left, amount), amount, lease=False)
            counted, crossed = caps.count(account, parts, self.now)
            self._spend(account, conditions.member, amount)
            low = self._fire(account, conditions, before)
            account.activation = max(account.activation, activation)
            self._journal(
                account, "deduct", key, amount, -paid.from_balance, version=version, paid=paid, counted=counted,
                crossed=crossed, low=low, member=conditions.member, plan=account.plan.id if account.plan else "",
            )  # fmt: skip
            return {
                "amount": amount,
                "allowance_consumed": paid.allowance,
                "warnings": crossed,
                "low_levels": low,
                **account.standing(),
            }

        return self._remember(account, key, fingerprint, self._step(account, change))

    def reserve(
        self, name: str, lease_id: str, wanted: Lease, activation: int, conditions: Conditions = PLAIN,
        dry_run: bool = False,
    ) -> Answer:  # fmt: skip
        account = self.account(name)
        with self._dry(account) if dry_run else nullcontext():
            self._apply_due(account)
            lease = account.leases.get(lease_id)
            if lease is not None:
                if lease.fingerprint != wanted.fingerprint:
                    raise Refused("conflict")
                if not lease.open:
                    raise Refused("closed", "expired")
                return {"replayed": True, "warnings": (), **self._lease_answer(account, lease)}
            if lease_id in account.closed:
                raise Refused("closed", account.closed[lease_id][0])
            if conditions.parent:
                its = parents.to_open_in(account, conditions.parent)
                self._check_price(its, wanted.version, conditions.plan if activation else its.plan)

            def change() -> Answer:
                parent = account.leases[conditions.parent] if conditions.parent else None
                member = conditions.member or (parent.member if parent else "")
                parts = caps.parts_of(wanted.amount, member, conditions.models)
                self._admit(
                    account, wanted.amount, wanted.floor, activation, conditions, parts, wanted.operation_type, member,
                    parent,
                )  # fmt: skip
                if parent is None:
                    self._room_to_hold(account, wanted.amount)
                lease = replace(
                    wanted,
                    member=member,
                    models=conditions.models if account.extras else (),
                    plan=account.plan.id if account.plan else "",
                )
                if parent is not None:
                    lease.parents = ((conditions.parent, parent.created), *parent.parents)
                    lease.floor, lease.version = parent.floor, lease.version or parent.version
                    lease.plan = parent.plan if parent.version else lease.plan
                crossed = self._hold(account, lease, wanted.amount, parts, conditions, parent)
                lease.amount = wanted.amount
                lease.opened = account.next_seq
                account.leases[lease_id] = lease
                self._await(account, lease.expires)
                account.activation = max(account.activation, activation)
                key = f"lease/{lease_id}/reserve"
                self._journal(account, "reserve", key, lease.amount, version=wanted.version, crossed=crossed)
                return {"replayed": False, "warnings": crossed, **self._lease_answer(account, lease)}

            answer = self._make(account, change)
            if dry_run:
                del answer["transaction"], answer["warnings"]  # of an entry and of caps that will never have been
            return answer

    def settle(
        self, name: str, lease_id: str, cost: int, fingerprint: str, version: int, conditions: Conditions = PLAIN
    ) -> Answer:
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
        self._check_price(lease, version, conditions.plan)
        snapshot = account.snapshot()
        change, answer = self._settle(account, lease_id, lease, cost, version, conditions)
        if answer["shortfall"] and self._is_due(account) and lease.due > self.now:
            account.restore(snapshot)
            return self.settle(name, lease_id, cost, fingerprint, version, conditions)
        if account.balance > LIMIT:
            account.restore(snapshot)
            raise Refused("over_limit")
        change()
        answer.update(account.standing())
        answer["transaction"] = account.seq
        self._expire_rests(account)
        answer.update(account.standing())
        account.closed[lease_id] = ("settled", fingerprint, answer)
        return {**answer, "replayed": False}

    def _settle(
        self, account: Account, lease_id: str, lease: Lease, cost: int, version: int, conditions: Conditions
    ) -> tuple[Callable[[], None], Answer]:
        """Close the lease and charge; the journal's entry, still to be made, and the answer."""
        # What the lease may spend beyond what is its own: the others' holds and its floor stay untouched.
        above_floor = max(0, account.available - lease.floor)
        left = self._left(account, conditions)
        before = account.balance
        if lease.open:
            own, back, period = Paid(lease.allowance, pool=lease.on_balance), Paid(), lease.period
        else:
            own, back, period = lease.paid, lease.paid, lease.paid.period
        holder = parents.holder(account, lease)
        payable = min(cost, own.total + parents.reach(account, lease)) if lease.parents else cost
        self._close(account, lease_id, lease)
        now_period = account.period.number if account.period else 0
        if holder is not None:
            period = period or holder.period
            from_allowance = 0 if conditions.skip_allowance else min(payable, back.allowance + holder.allowance)
            from_balance = min(payable - from_allowance, back.from_balance + holder.on_balance)
            taken = parents.spend(account, holder, back, from_allowance, from_balance)
        else:
            if conditions.skip_allowance:
                from_allowance = 0
            elif own.allowance and period != now_period:
                from_allowance = min(payable, own.allowance)
            else:
                from_allowance, period = min(payable, own.allowance + left), now_period
            from_balance = min(payable - from_allowance, own.from_balance + above_floor)
            taken = max(0, from_allowance + from_balance - back.total)
        parents.change_rests(account, lease, -taken)
        paid = spending.both(
            spending.take_from_allowance(account, from_allowance, period),
            spending.take_from_balance(account, from_balance, self.now, lease=True),
        )
        models = _models_of_settle(lease, conditions, paid.total)
        parts = caps.parts_of(paid.total, lease.member, models)
        if holder is not None:
            parents.stop_holding(account, holder, parts)
        counted, crossed = caps.count(account, parts, self.now)
        self._spend(account, lease.member, paid.total)
        low = self._fire(account, conditions, before)
        shortfall = cost - paid.total
        change = account.balance - before

        def journal() -> None:
            self._journal(
                account, "settle", f"lease/{lease_id}/settle", cost, change, shortfall, version, paid=paid,
                counted=counted, crossed=crossed, low=low, member=lease.member, plan=lease.plan,
                operation_type=lease.operation_type, late=not lease.open,
            )  # fmt: skip

        return journal, {
            "amount": paid.total,
            "shortfall": shortfall,
            "late": not lease.open,
            "allowance_consumed": paid.allowance,
            "warnings": crossed,
            "low_levels": low,
        }

    def release(self, name: str, lease_id: str) -> Answer:
        account = self.account(name)
        if lease_id in account.closed:
            how, _, answer = account.closed[lease_id]
            if how == "settled":
                raise Refused("closed", how)
            return {**answer, "replayed": True}
        self._apply_due(account)
        lease = self._lease(account, lease_id)
        before, snapshot = account.balance, account.snapshot()
        released = lease.amount if lease.open else 0
        self._close(account, lease_id, lease)
        if account.balance > LIMIT:
            account.restore(snapshot)
            raise Refused("over_limit")
        key = f"lease/{lease_id}/release"
        self._journal(account, "release", key, released, account.balance - before, version=lease.version)
        answer = {"amount": released, "transaction": account.seq}
        self._expire_rests(account)
        answer.update(account.standing())
        account.closed[lease_id] = ("released", "", answer)
        return {**answer, "replayed": False}

    def renew(self, name: str, lease_id: str, ttl: int, key: str, fingerprint: str) -> Answer:
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        lease = self._open_lease(account, lease_id)
        lease.expires = max(lease.expires, self.now + ttl)
        self._journal(account, "renew", key, lease.amount, version=lease.version)
        return self._remember(account, key, fingerprint, {"expires": lease.expires, "transaction": account.seq})

    def extend(
        self, name: str, lease_id: str, amount: int, key: str, fingerprint: str, version: int,
        conditions: Conditions = PLAIN,
    ) -> Answer:  # fmt: skip
        account = self.account(name)
        if earlier := self._earlier(account, key, fingerprint):
            return earlier
        lease = self._open_lease(account, lease_id)
        self._check_price(lease, version, lease.plan)
        if lease.parents:
            parents.to_extend_from(account, lease)

        def change() -> Answer:
            lease = account.leases[lease_id]
            parent = parents.above(account, lease)[0] if lease.parents else None
            parts = caps.parts_of(amount, lease.member, conditions.models)
            # A lease rests on one period's allowance: one that began in an older one is extended from the balance.
            skip = lease.period > 0 and (
                account.period is None or account.period.number != lease.period or account.period.end <= self.now
            )
            changed = _with(conditions, skip_allowance=skip and parent is None)
            self._admit(account, amount, lease.floor, 0, changed, parts, member=lease.member, parent=parent)
            if parent is None:
                self._room_to_hold(account, amount)
            crossed = self._hold(account, lease, amount, parts, changed, parent)
            lease.amount += amount
            if account.extras:
                models = dict(lease.models)
                for model, part in conditions.models:
                    models[model] = models.get(model, 0) + part
                lease.models = tuple(models.items())
            self._journal(account, "extend", key, amount, version=version, crossed=crossed)
            return {"amount": lease.amount, **account.standing()}

        return self._remember(account, key, fingerprint, self._make(account, change))

    # Admission.

    def _admit(
        self,
        account: Account,
        amount: int,
        floor: int,
        activation: int,
        conditions: Conditions,
        parts: caps.Parts,
        operation_type: str | None = None,
        member: str | None = None,
        parent: Lease | None = None,
    ) -> None:
        if 0 < activation < account.activation:
            raise Refused("stale", account.activation)
        if conditions is PLAIN and account.extras:
            raise terms.ask_again(account, parts, self.now)
        terms.take(account, conditions, parts, self.now)
        if account.frozen:
            raise Refused("frozen", account.frozen)
        member = conditions.member if member is None else member
        if member:
            self._check_member(account, member)
        if operation_type is not None and conditions.max_concurrent is not None and parent is None:
            running = sum(
                lease.open and lease.expires > self.now and lease.operation_type == operation_type and not lease.parents
                for lease in account.leases.values()
            )
            if running >= conditions.max_concurrent:
                raise Refused("concurrency", conditions.max_concurrent, running)
        caps.check(account, parts, self.now, parent)
        if parent is not None:
            left = parent.on_balance if conditions.skip_allowance else parent.amount
            if amount > left:
                parent_id = next(lease_id for lease_id, lease in account.leases.items() if lease is parent)
                held = parents.held_inside(account, parent_id, parent.created)
                raise Refused("budget", parent_id, amount, left, held)
            return
        left = self._left(account, conditions)
        if left + account.available - amount < floor:
            raise Refused("insufficient", amount, account.available, account.held, floor, left)

    def _check_price(self, lease: Lease, version: int, plan: str) -> None:
        if version and lease.version and (version, plan) != (lease.version, lease.plan):
            raise Refused("reprice", lease.version, lease.plan)

    def _left(self, account: Account, conditions: Conditions) -> int:
        """What the allowance can pay."""
        if conditions.skip_allowance or account.period is None:
            return 0
        return account.period.left(self.now)

    def _room_to_hold(self, account: Account, amount: int) -> None:
        if account.held + amount > LIMIT:
            raise Refused("over_limit")

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

    # Moving credits.

    def _pay(self, account: Account, from_allowance: int, amount: int, *, lease: bool) -> Paid:
        period = account.period.number if account.period else 0
        return spending.both(
            spending.take_from_allowance(account, from_allowance, period),
            spending.take_from_balance(account, amount - from_allowance, self.now, lease=lease),
        )

    def _hold(
        self, account: Account, lease: Lease, amount: int, parts: caps.Parts, conditions: Conditions,
        parent: Lease | None,
    ) -> tuple[caps.Crossed, ...]:  # fmt: skip
        """Let a lease hold so much more, of the allowance first."""
        if parent is not None:
            skip = conditions.skip_allowance
            return parents.take(account, parent, lease, amount, parts, skip_allowance=skip, now=self.now)
        allowance = min(amount, self._left(account, conditions))
        if allowance:
            assert account.period is not None
            account.period.held += allowance
            lease.period = account.period.number
        lease.allowance += allowance
        held, crossed = caps.hold(account, parts, self.now)
        lease.caps += held
        return crossed

    def _close(self, account: Account, lease_id: str, lease: Lease) -> None:
        """The lease holds nothing any more; what its expiry charged goes back to where it came from."""
        del account.leases[lease_id]
        if lease.open:
            parents.give_up(account, lease)
        else:
            spending.give_back(account, lease.paid, self.now, in_ended_period=True)
            self._await_grants(account)
            caps.uncount(account, [(c, c.amount) for c in lease.counted], lease.paid_at, self.now)
            self._spend(account, lease.member, -lease.charged)

    def _fire(self, account: Account, conditions: Conditions, before: int) -> tuple[int, ...]:
        """The low-balance levels that a charge took the balance to, or below, for the first time."""
        if account.balance >= before:
            return ()
        fired = tuple(level for level in conditions.low_levels if account.balance <= level and level not in account.low)
        account.low.update(fired)
        account.extras |= bool(fired)
        return fired

    def _lease_answer(self, account: Account, lease: Lease) -> Answer:
        return {
            "amount": lease.amount,
            "allowance_consumed": lease.allowance,
            "expires": lease.expires,
            "version": lease.version,
            "transaction": lease.opened,
            **account.standing(),
        }


def _with(conditions: Conditions, *, skip_allowance: bool) -> Conditions:
    return conditions if conditions is PLAIN else msgspec.structs.replace(conditions, skip_allowance=skip_allowance)


def _models_of_settle(lease: Lease, conditions: Conditions, charged: int) -> list[tuple[str, int]]:
    """What each model's part of the charge is: those that were named, the first first; else those of the lease, the
    last of which has the rest."""
    models = list(conditions.models or lease.models)
    if models and not conditions.models:
        models[-1] = (models[-1][0], charged)
    return caps.within(models, charged)
