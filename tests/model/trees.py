"""Random trees of leases: runs, and what they open inside of them, to any depth, while time passes."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ducto_redis.engine.operation import LeaseTerms
from tests.model.account import DAY, Entry, Lease
from tests.model.account_rules import SideBySide
from tests.model.driver import Call
from tests.model.machine import HOUR, SECOND, TEAM, USER, has_leases

ANY = st.integers(0, 30)
SMALL = st.integers(0, 40).map(lambda number: number // 4)
"""A few credits, seldom many."""
LIVES = st.sampled_from([10 * SECOND, 60 * SECOND, 60 * SECOND, HOUR, DAY])
WAITS = st.sampled_from([0, 0, 0, SECOND, 10 * SECOND, 60 * SECOND, HOUR])
"""How long after the step before: also where no other rule lets time pass."""
ENDS = st.sampled_from(["release", "release", "charge"])
INSIDE = st.builds(
    Call,
    member=st.sampled_from(["", "", "", "m2"]),
    models=st.integers(0, 3),
    skip_allowance=st.sampled_from([False] * 5 + [True]),
)


def has_open_leases(machine: SideBySide) -> bool:
    return any(lease.open for account in machine.model.accounts.values() for lease in account.leases.values())


def has_leases_inside(machine: SideBySide) -> bool:
    return any(lease.parents for account in machine.model.accounts.values() for lease in account.leases.values())


class Trees(SideBySide):
    """Holds, and holds inside of them; all else happens rarely or never."""

    reserve: Any = None
    settle: Any = None
    release: Any = None
    renew: Any = None
    extend: Any = None
    time_passes: Any = None
    adjust_credits: Any = None
    refund: Any = None
    publish: Any = None
    freeze: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str, int], int] = {}
        """What each lease ever held."""
        self.lives: dict[tuple[str, str], tuple[tuple[str, int], ...]] = {}
        """What the lease of that id is inside of."""
        self.charged: dict[tuple[str, str, int], dict[str, int]] = {}
        """What each lease inside of a lease was charged, by the operation key of its reserve."""
        self.looked_at = 0

    @precondition(lambda machine: not has_leases_inside(machine) or machine.steps % 5 == 0)
    @rule(
        account=st.sampled_from([USER, USER, TEAM]),
        number=ANY,
        amount=st.integers(15, 40),
        ttl=LIVES,
        on_expiry=ENDS,
        floor=st.sampled_from([0, 0, -20]),
        priced=st.booleans(),
    )
    def open_run(
        self, account: str, number: int, amount: int, ttl: int, on_expiry: str, floor: int, priced: bool
    ) -> None:
        call = Call(member="m1" if account == TEAM and number % 2 else "", models=number % 4)
        terms = LeaseTerms(floor, ttl, on_expiry, "agent", "owner", b"", "this")
        self.hold(account, f"run {self.steps}", amount, terms, call, priced=priced)

    @precondition(has_open_leases)
    @rule(number=ANY, amount=SMALL, ttl=LIVES, on_expiry=ENDS, call=INSIDE, priced=st.booleans(), told=st.booleans())
    def open_inside(
        self, number: int, amount: int, ttl: int, on_expiry: str, call: Call, priced: bool, told: bool
    ) -> None:
        account, parent = self.among(number, lambda lease: lease.open)
        terms = LeaseTerms(0, ttl, on_expiry, "chat", "owner", b"", "this")
        self.hold(account, f"call {self.steps}", amount, terms, call, priced=priced, parent=parent, told=told)

    @precondition(has_open_leases)
    @rule(number=ANY, amount=SMALL, ttl=LIVES, call=INSIDE)
    def open_another_inside(self, number: int, amount: int, ttl: int, call: Call) -> None:
        self.open_inside(number, amount, ttl, "release", call, False, False)

    @precondition(has_leases_inside)
    @rule(number=ANY, cost=st.integers(0, 30), call=INSIDE, waits=WAITS)
    def settle_inside(self, number: int, cost: int, call: Call, waits: int) -> None:
        self.wait(waits)
        self.settle_lease(*self.among(number, lambda lease: bool(lease.parents)), cost, "this", call, priced=False)

    @precondition(has_leases_inside)
    @rule(number=ANY, what=st.sampled_from(["release", "renew", "settle its parent"]), ttl=LIVES, waits=WAITS)
    def end_inside(self, number: int, what: str, ttl: int, waits: int) -> None:
        self.wait(waits)
        account, lease_id = self.among(number, lambda lease: bool(lease.parents))
        match what:
            case "release":
                self.release_lease(account, lease_id)
            case "renew":
                self.renew_lease(account, lease_id, ttl, f"key/{self.steps}", "this")
            case _:
                parent, _ = self.model.account(account).leases[lease_id].parents[0]
                self.settle_lease(account, parent, number % 13, "this", Call(), priced=False)

    @precondition(has_leases_inside)
    @rule(number=ANY, amount=SMALL, call=INSIDE)
    def extend_inside(self, number: int, amount: int, call: Call) -> None:
        account, lease_id = self.among(number, lambda lease: bool(lease.parents))
        self.extend_lease(account, lease_id, amount, f"key/{self.steps}", "this", call, priced=False)

    @precondition(has_leases)
    @rule(milliseconds=st.sampled_from([60 * SECOND, HOUR, DAY]))
    def time_passes_inside(self, milliseconds: int) -> None:
        self.wait(milliseconds)

    def wait(self, milliseconds: int) -> None:
        self.model.now += milliseconds
        self.set_clock()

    def among(self, number: int, wanted: Callable[[Lease], bool]) -> tuple[str, str]:
        """One of the leases that are there, the last ones first."""
        there = sorted(
            (-lease.opened, account.name, lease_id)
            for account in self.model.accounts.values()
            for lease_id, lease in account.leases.items()
            if wanted(lease)
        )
        _, account, lease_id = there[number % len(there)]
        return account, lease_id

    @invariant()
    def nothing_inside_spends_more_than_it_held(self) -> None:
        """What all leases inside of a lease were charged together is at most what it ever held."""
        for entry in self.model.journal[self.looked_at :]:
            self.note(entry)
        self.looked_at = len(self.model.journal)
        for lease, charged in self.charged.items():
            assert sum(charged.values()) <= self.held[lease], (lease, charged, self.held[lease])

    def note(self, entry: Entry) -> None:
        lease_id, _, _ = entry.operation_key.removeprefix("lease/").rpartition("/")
        leases = self.model.account(entry.account).leases
        if entry.operation == "reserve" and lease_id in leases:
            lease = leases[lease_id]
            self.lives[entry.account, lease_id] = lease.parents
            self.held[entry.account, lease_id, lease.created] = entry.amount
        elif entry.operation == "extend":
            lease_id = self.extended
            self.held[entry.account, lease_id, leases[lease_id].created] += entry.amount
        elif entry.operation in ("settle", "expire"):
            for parent, created in self.lives.get((entry.account, lease_id), ()):
                inside = self.charged.setdefault((entry.account, parent, created), {})
                inside[lease_id] = entry.paid.total
        elif entry.operation == "release":
            for parent, created in self.lives.get((entry.account, lease_id), ()):
                self.charged.get((entry.account, parent, created), {}).pop(lease_id, None)

    def extend_lease(self, account: str, lease_id: str, *arguments: Any, **options: Any) -> None:
        self.extended = lease_id
        super().extend_lease(account, lease_id, *arguments, **options)
