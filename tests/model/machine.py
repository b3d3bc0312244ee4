"""Random operations on a few accounts: credits that come in, charges, leases, refunds, and time."""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ducto_redis.engine.operation import Charge, Conditions, LeaseTerms, NewGrant, OperationKey, Price
from ducto_redis.money import to_signed_micro
from ducto_redis.run_sync import run_sync
from tests.model.account import DAY, LIMIT, Lease
from tests.model.driver import CHARGES, Call, Driver, in_milliseconds
from tests.model.plans import plans

SECOND = 1000
HOUR = 3600 * SECOND

USER, PLAIN_USER, TEAM = "u1", "{u}:2", "t1"
"""An account that may have everything, one that has nothing special and huge amounts, and a team."""

ACCOUNTS = st.sampled_from([USER, USER, USER, TEAM, TEAM, PLAIN_USER])
NEW_LEASES = st.integers(0, 20)
"""The lease's number: a few come again, the others are new ones."""
NO_LEASE = 15
LEASES = st.integers(0, NO_LEASE)
"""Which lease, see `pick`."""
PARENTS = st.one_of(st.none(), LEASES)
"""Which lease one is opened inside of, see `pick`; none half of the time."""
KEYS = st.integers(0, 150).map("key/{}".format)
FINGERPRINTS = st.sampled_from(["this"] * 7 + ["that"])
AMOUNTS = st.integers(0, 999)
HUGE = 970
"""Of 1000 amounts, those from here on are next to the limit, on the plain account."""
FLOORS = st.sampled_from([0] * 6 + [10, -20, -20, -LIMIT])
BEHIND = st.sampled_from([0, 0, 0, 0, 0, 1])
TTLS = st.sampled_from([1, 10 * SECOND, 60 * SECOND, HOUR, DAY, 5 * DAY])
STEPS = st.sampled_from(
    [1, 1, 10 * SECOND, 10 * SECOND, 60 * SECOND, HOUR, HOUR, DAY, DAY + 60 * SECOND, 3 * DAY, 16 * DAY]
)
MEMBERS = st.sampled_from(["m1", "m1", "m2", "m2", "nobody"])
CALLS = st.builds(
    Call,
    plain=st.sampled_from([False, False, False, True]),
    plan=st.sampled_from([None] * 6 + ["", "pro"]),
    behind=BEHIND,
    member=st.sampled_from(["m1", "m2", "nobody", "", ""]),
    models=st.integers(0, 3),
    max_concurrent=st.sampled_from([None, None, 1, 2]),
    low_levels=st.sampled_from([(), (), (10,), (5, 25)]),
    skip_allowance=st.sampled_from([False, False, False, True]),
)
SCOPES = st.sampled_from(["account", "account", "member/m1", "model/gpt"])


def small(number: int, account: str, lowest: int = 0) -> int:
    """An amount: a small one mostly, and some next to the limit."""
    if number >= HUGE and account == PLAIN_USER:
        return LIMIT - number + HUGE
    return (number % 32 if number % 3 else number % 11) + lowest


def has_leases(machine: Driver) -> bool:
    """Whether some account has or had a lease: most steps on none would be the same refusal."""
    return any(account.leases or account.closed for account in machine.model.accounts.values())


def now_and_then(machine: Driver) -> bool:
    """What must not happen so often that charges are rare."""
    return machine.steps % 3 == 0


def has_charges(machine: Driver) -> bool:
    return any(entry.operation in CHARGES for entry in machine.model.journal)


class MoneyRules(Driver):
    """What moves credits."""

    @initialize(opens=st.booleans(), plan=st.sampled_from(["", *plans(1)]), team=st.booleans())
    def create(self, opens: bool, plan: str, team: bool) -> None:
        run_sync(self.store.create_namespace())
        self.opens = opens
        if team:
            self.make_team(TEAM, "key/team")
            self.add_credits(TEAM, 80, "key/first", "this", 0, 50, Call())
        self.add_credits(USER, 95, "key/first", "this", 0, 50, Call())
        if plan:
            self.assign(USER, plan, "", "key/plan", "this", Call())

    def make_team(self, account: str, key: str) -> None:
        raise NotImplementedError

    def assign(self, account: str, plan: str, zone: str, key: str, fingerprint: str, call: Call) -> None:
        raise NotImplementedError

    @rule(milliseconds=STEPS)
    def time_passes(self, milliseconds: int) -> None:
        self.model.now += milliseconds
        self.set_clock()

    @rule(
        account=ACCOUNTS,
        number=AMOUNTS,
        key=KEYS,
        fingerprint=FINGERPRINTS,
        lives=st.sampled_from([0, 0, 10 * SECOND, 60 * SECOND, DAY, -1]),
        priority=st.sampled_from([50, 50, 10, 60]),
        call=CALLS,
    )
    def add_credits(
        self, account: str, number: int, key: str, fingerprint: str, lives: int, priority: int, call: Call
    ) -> None:
        fingerprint = f"add {fingerprint}"
        if account == PLAIN_USER:
            lives, priority = 0, 50
        amount = small(number, account, 1)
        grant = NewGrant(amount, "bonus", self.model.now + lives if lives else 0, priority)
        self.ask(
            lambda conditions: self.model.add_credits(account, grant, key, fingerprint, conditions),
            lambda conditions: self.store.add_credits(
                account, grant, OperationKey(key, DAY, fingerprint), conditions=conditions, cause=b""
            ),
            self.conditions(account, call),
        )

    @precondition(now_and_then)
    @rule(
        account=ACCOUNTS,
        amount=st.integers(-40, 30).filter(bool),
        key=KEYS,
        fingerprint=FINGERPRINTS,
        force=st.booleans(),
        call=CALLS,
    )
    def adjust_credits(self, account: str, amount: int, key: str, fingerprint: str, force: bool, call: Call) -> None:
        fingerprint = f"adjust {fingerprint}"
        answer = self.ask(
            lambda conditions: self.model.adjust_credits(account, amount, key, fingerprint, force, conditions),
            lambda conditions: self.store.adjust_credits(
                account, amount, OperationKey(key, DAY, fingerprint), force=force, conditions=conditions, cause=b""
            ),
            self.conditions(account, call),
        )
        if isinstance(answer, dict) and force:
            self.lowest[account] = min(self.lowest.get(account, 0), answer["available"])

    @rule(
        account=ACCOUNTS, number=AMOUNTS, key=KEYS, fingerprint=FINGERPRINTS, floor=FLOORS, priced=st.booleans(),
        call=CALLS,
    )  # fmt: skip
    def deduct(
        self, account: str, number: int, key: str, fingerprint: str, floor: int, priced: bool, call: Call
    ) -> None:
        fingerprint = f"deduct {fingerprint}"
        amount = small(number, account)
        version = max(1, self.active - call.behind) if priced else 0
        call = self.for_account(account, call)
        answer = self.ask(
            lambda conditions: self.model.deduct(
                account, amount, key, fingerprint, floor, self.now_at(version, conditions),
                self.now_at(version, conditions), conditions,
            ),
            lambda conditions: self.store.deduct(
                account,
                Price(amount, self.now_at(version, conditions), self.now_at(version, conditions)),
                OperationKey(key, DAY, fingerprint),
                floor=floor,
                conditions=conditions,
                cause=b"",
            ),
            self.conditions(account, call, amount),
        )  # fmt: skip
        self.admitted(account, floor, answer)

    @rule(
        account=ACCOUNTS,
        lease_number=NEW_LEASES,
        number=AMOUNTS,
        floor=FLOORS,
        ttl=TTLS,
        on_expiry=st.sampled_from(["release", "charge"]),
        operation_type=st.sampled_from(["default", "chat"]),
        fingerprint=FINGERPRINTS,
        priced=st.booleans(),
        call=CALLS,
        dry_run=st.sampled_from([False, False, False, True]),
        inside=PARENTS,
    )
    def reserve(
        self,
        account: str,
        lease_number: int,
        number: int,
        floor: int,
        ttl: int,
        on_expiry: str,
        operation_type: str,
        fingerprint: str,
        priced: bool,
        call: Call,
        dry_run: bool,
        inside: int | None,
    ) -> None:
        lease_id = f"lease {lease_number if lease_number < 4 else 100 + self.steps}"
        parent = ""
        if inside is not None and has_leases(self):
            account, parent = self.pick(inside)
        terms = LeaseTerms(floor, ttl, on_expiry, operation_type, "owner", b"", fingerprint)
        amount, told = small(number, account), number % 3 > 0
        self.hold(account, lease_id, amount, terms, call, priced=priced, dry_run=dry_run, parent=parent, told=told)

    def hold(
        self,
        account: str,
        lease_id: str,
        amount: int,
        terms: LeaseTerms,
        call: Call,
        *,
        priced: bool,
        dry_run: bool = False,
        parent: str = "",
        told: bool = False,
    ) -> None:
        """Reserve; `told`: the manager knows the parent's prices already."""
        version, now, call = max(1, self.active - call.behind), self.model.now, self.for_account(account, call)
        its = self.model.account(account).leases.get(parent)

        def price(conditions: Conditions) -> Price:
            if not priced:
                return Price(amount)
            if told and its is not None and its.version:
                return Price(amount, its.version)
            at = self.now_at(version, conditions)
            return Price(amount, at, at)

        def lease(version: int) -> Lease:
            return Lease(
                amount, now, now + terms.ttl_ms, terms.floor, version, terms.on_expiry, terms.fingerprint,
                terms.operation_type,
            )  # fmt: skip

        conditions = self.conditions(account, call, amount)
        if parent:
            conditions = msgspec.structs.replace(conditions, parent=parent)
        answer = self.ask(
            lambda conditions: self.model.reserve(
                account, lease_id, lease(price(conditions).version), price(conditions).activation, conditions, dry_run
            ),
            lambda conditions: self.store.reserve(
                account, lease_id, price(conditions), terms, conditions=conditions, cause=b"", dry_run=dry_run
            ),
            conditions,
        )
        if not dry_run and not parent:
            self.admitted(account, terms.floor, answer)

    @precondition(has_leases)
    @rule(number=LEASES, cost=st.integers(0, 45), fingerprint=FINGERPRINTS, priced=st.booleans(), call=CALLS)
    def settle(self, number: int, cost: int, fingerprint: str, priced: bool, call: Call) -> None:
        self.settle_lease(*self.pick(number), cost, fingerprint, call, priced=priced)

    def settle_lease(
        self, account: str, lease_id: str, cost: int, fingerprint: str, call: Call, *, priced: bool
    ) -> None:
        lease = self.model.account(account).leases.get(lease_id)
        version = 0
        if priced and lease is not None:
            version = lease.version or self.active
            call = call if call.plan is not None else _knowing(call, lease.plan)
        conditions = self.conditions(account, self.for_account(account, call), cost)
        self.compare(
            lambda: self.model.settle(account, lease_id, cost, fingerprint, version, conditions),
            self.store.settle(
                account, lease_id, Price(cost, version), conditions=conditions, fingerprint=fingerprint, cause=b""
            ),
        )

    @precondition(has_leases)
    @rule(number=LEASES)
    def release(self, number: int) -> None:
        self.release_lease(*self.pick(number))

    def release_lease(self, account: str, lease_id: str) -> None:
        self.compare(lambda: self.model.release(account, lease_id), self.store.release(account, lease_id, cause=b""))

    @precondition(has_leases)
    @rule(number=LEASES, ttl=TTLS, key=KEYS, fingerprint=FINGERPRINTS)
    def renew(self, number: int, ttl: int, key: str, fingerprint: str) -> None:
        self.renew_lease(*self.pick(number), ttl, key, fingerprint)

    def renew_lease(self, account: str, lease_id: str, ttl: int, key: str, fingerprint: str) -> None:
        fingerprint = f"renew {lease_id} {fingerprint}"
        self.compare(
            lambda: self.model.renew(account, lease_id, ttl, key, fingerprint),
            self.store.renew(account, lease_id, OperationKey(key, DAY, fingerprint), ttl_ms=ttl),
        )

    @precondition(has_leases)
    @rule(number=LEASES, size=AMOUNTS, key=KEYS, fingerprint=FINGERPRINTS, priced=st.booleans(), call=CALLS)
    def extend(self, number: int, size: int, key: str, fingerprint: str, priced: bool, call: Call) -> None:
        account, lease_id = self.pick(number)
        self.extend_lease(account, lease_id, small(size, account), key, fingerprint, call, priced=priced)

    def extend_lease(
        self, account: str, lease_id: str, amount: int, key: str, fingerprint: str, call: Call, *, priced: bool
    ) -> None:
        fingerprint = f"extend {lease_id} {fingerprint}"
        lease = self.model.account(account).leases.get(lease_id)
        version = lease.version + call.behind if priced and lease is not None else 0
        self.ask(
            lambda conditions: self.model.extend(account, lease_id, amount, key, fingerprint, version, conditions),
            lambda conditions: self.store.extend(
                account,
                lease_id,
                Price(amount, version),
                OperationKey(key, DAY, fingerprint),
                conditions=conditions,
                cause=b"",
            ),
            self.conditions(account, self.for_account(account, call), amount),
        )

    @precondition(has_charges)
    @rule(
        number=st.integers(0, 30),
        amount=st.sampled_from([None, None, 1, 3, 7, 20]),
        key=KEYS,
        fingerprint=FINGERPRINTS,
        to_balance=st.booleans(),
    )
    def refund(self, number: int, amount: int | None, key: str, fingerprint: str, to_balance: bool) -> None:
        charges = [entry for entry in self.model.journal if entry.operation in CHARGES]
        charge = charges[-1 - number % len(charges)]
        entry = self.entries[charge.account][charge.seq - 1]
        fingerprint = f"refund {charge.seq} {fingerprint}"
        self.compare(
            lambda: self.model.refund(charge.account, charge, charge.at, amount, key, fingerprint, to_balance),
            self.store.refund(
                charge.account,
                Charge(entry.transaction_id, entry.charged, entry.details, charge.at),
                amount,
                OperationKey(key, DAY, fingerprint),
                expired_to_balance=to_balance,
                cause=b"",
            ),
        )

    @precondition(now_and_then)
    @rule(account=ACCOUNTS, call=CALLS)
    def look(self, account: str, call: Call) -> None:
        self.ask(
            lambda conditions: self.model.get_balance(account, conditions),
            lambda conditions: self.store.get_balance(account, conditions=conditions),
            self.conditions(account, call),
        )
        page = run_sync(self.store.list_leases(account))
        listed = {
            lease.lease_id: (to_signed_micro(lease.amount), in_milliseconds(lease.expires_at)) for lease in page.leases
        }
        assert listed == self.model.list_leases(account)

    @precondition(now_and_then)
    @rule(dry_run=st.booleans())
    def sweep(self, dry_run: bool) -> None:
        expected = self.model.sweep(dry_run=dry_run)
        swept = [
            run_sync(self.store.sweep_partition(partition, dry_run=dry_run)) for partition in self.store.partitions()
        ]
        for what in ("accounts", "leases_expired", "grants_expired"):
            assert sum(getattr(sweep, what) for sweep in swept) == expected[what]
        assert sum(to_signed_micro(sweep.credits_expired) for sweep in swept) == expected["credits_expired"]

    def now_at(self, version: int, conditions: object) -> int:
        """A price's version: of the active document, once its terms were asked for."""
        return self.active if version and getattr(conditions, "terms", None) is not None else version

    def for_account(self, account: str, call: Call) -> Call:
        """Members spend from teams; a stranger does elsewhere, now and then."""
        if account == PLAIN_USER:
            return Call(plain=True)
        return call if account == TEAM or call.member == "nobody" else _alone(call)

    def admitted(self, account: str, floor: int, answer: object) -> None:
        if isinstance(answer, dict):
            self.lowest[account] = min(self.lowest.get(account, 0), floor)

    def pick(self, number: int) -> tuple[str, str]:
        """An account and a lease of its: one that is there, now and then one that was closed, or none."""
        accounts = self.model.accounts.values()
        there = sorted((account.name, lease_id) for account in accounts for lease_id in account.leases)
        closed = sorted((account.name, lease_id) for account in accounts for lease_id in account.closed)
        if number == NO_LEASE:
            return USER, "none"
        known = (there or closed) if number % 4 else (closed or there)
        return known[number % len(known)]


def _knowing(call: Call, plan: str) -> Call:
    return msgspec.structs.replace(call, plan=plan, plain=call.plain and not plan)


def _alone(call: Call) -> Call:
    return msgspec.structs.replace(call, member="")
