"""Leases inside leases: what they hold and are charged comes out of their parent's hold, and nothing beyond it."""

import pytest

from ducto_redis.engine.entry import LeaseGrounds, LeaseRecord
from ducto_redis.engine.operation import Conditions, Price
from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConfigError,
    CreditError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    RepriceLease,
)
from ducto_redis.results import SettleResult
from ducto_redis.store.contract import CreditStore
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    add,
    deduct,
    entry_of,
    extend,
    key,
    micro,
    numbers_of,
    release,
    renew,
    reserve,
    settle,
    terms,
)
from ducto_redis.testing.opening import ConformanceTests, OpenStore

RUN, CALL = "run", "call"
LONG = terms(ttl_ms=10 * DAY_MS)


def inside(parent: str = RUN) -> Conditions:
    """Return the conditions of a lease inside another."""
    return Conditions(parent=parent)


async def held_by(store: CreditStore) -> dict[str, int]:
    """Return the hold of each open lease."""
    return {lease.lease_id: micro(lease.amount) for lease in (await store.list_leases(ACCOUNT)).leases}


async def funded(open_store: OpenStore, *, credits: int = 100, run: int = 50) -> CreditStore:
    """Return a store with an account and a run that holds a part of its credits."""
    store = await open_store()
    await add(store, credits)
    await reserve(store, RUN, run, LONG)
    return store


def outcome(settled: SettleResult) -> tuple[int, int, bool]:
    """Return the charge, the shortfall, and whether it was late."""
    return micro(settled.amount), micro(settled.shortfall), settled.late


@pytest.mark.asyncio
class BudgetConformance(ConformanceTests):
    """A run, and calls inside of it."""

    async def test_hold_is_taken_out_of_the_parent_s(self, open_store: OpenStore) -> None:
        """The parent holds less by what is opened inside of it, and the account as much as before."""
        store = await funded(open_store)
        call = await reserve(store, CALL, 20, terms(floor=-5), conditions=inside())
        assert (micro(call.amount), micro(call.balance_after), micro(call.available)) == (20, 100, 50)
        assert await held_by(store) == {RUN: 30, CALL: 20}
        assert await numbers_of(store) == (100, 50, 50)
        entry = await entry_of(store, call)
        assert (entry.operation, entry.operation_key, entry.amount) == ("reserve", f"lease/{CALL}/reserve", 20)
        assert entry.lease is not None
        assert entry.lease[0] == CALL, "the lease that the entry is about comes first"
        leases = {name: LeaseRecord.decode(text).amount for name, text in entry.changes if name.startswith("lease/")}
        assert leases == {f"lease/{CALL}": 20, f"lease/{RUN}": 30}
        record = LeaseRecord.decode(entry.lease[1])
        assert (LeaseGrounds.decode(record.grounds).parent, record.floor) == (RUN, 0)

    async def test_what_is_not_spent_goes_back_to_the_parent(self, open_store: OpenStore) -> None:
        """Settled for less or released, a lease gives its rest back to what it is inside of."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        settled = await settle(store, CALL, 5)
        assert (outcome(settled), micro(settled.available)) == ((5, 0, False), 50)
        assert await held_by(store) == {RUN: 45}
        await reserve(store, "another", 45, conditions=inside())
        assert await held_by(store) == {RUN: 0, "another": 45}
        assert micro((await release(store, "another")).amount) == 45
        assert await numbers_of(store) == (95, 45, 50)

    async def test_settle_above_the_hold_takes_of_the_parent_s(self, open_store: OpenStore) -> None:
        """A cost above the hold is paid by the parent's, and beyond that by nobody, whatever the account has."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        await reserve(store, "another", 10, conditions=inside())
        assert outcome(await settle(store, CALL, 30)) == (30, 0, False)
        assert await held_by(store) == {RUN: 10, "another": 10}
        assert outcome(await settle(store, "another", 25)) == (20, 5, False)
        assert await numbers_of(store) == (50, 0, 50)

    @pytest.mark.parametrize(("on_expiry", "run", "balance"), [("release", 50, 100), ("charge", 30, 80)])
    async def test_expiry(self, open_store: OpenStore, on_expiry: str, run: int, balance: int) -> None:
        """An expired lease's hold goes back to its parent, unless it is charged."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, terms(on_expiry=on_expiry), conditions=inside())
        later = await open_store(clock_offset_ms=MINUTE_MS)
        await later.sweep_partition(later.namespace.partition_of(ACCOUNT))
        assert await held_by(later) == {RUN: run}
        assert await numbers_of(later) == (balance, run, 50)

    @pytest.mark.parametrize("how", ["settled", "released", "expired"])
    async def test_parent_that_ends_first(self, open_store: OpenStore, how: str) -> None:
        """It gives back what it has left; what is inside of it keeps its hold, and can be charged that and no more."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, RUN, 50)
        await reserve(store, CALL, 20, LONG, conditions=inside())
        await reserve(store, "another", 10, LONG, conditions=inside())
        if how == "settled":
            assert outcome(await settle(store, RUN, 5)) == (5, 0, False)
        elif how == "released":
            assert micro((await release(store, RUN)).amount) == 20
        else:
            store = await open_store(clock_offset_ms=MINUTE_MS)
        balance = 95 if how == "settled" else 100
        assert await numbers_of(store) == (balance, 30, balance - 30)
        left = 20 if how == "expired" else 0
        assert outcome(await settle(store, CALL, 60)) == (20 + left, 40 - left, False)
        assert micro((await release(store, "another")).amount) == 10
        assert await numbers_of(store) == (balance - 20 - left, 0, balance - 20 - left)

    @pytest.mark.parametrize("how", ["missing", "settled", "released", "expired"])
    async def test_parent_that_is_not_open(self, open_store: OpenStore, how: str) -> None:
        """Nothing is opened inside a lease that is not open, nor extended from it; the error names the parent."""
        store = await open_store()
        await add(store, 100)
        kind: type[CreditError] = LeaseClosedError
        if how != "missing":
            await reserve(store, RUN, 50)
            await reserve(store, CALL, 5, LONG, conditions=inside())
        if how == "settled":
            await settle(store, RUN, 1)
        elif how == "released":
            await release(store, RUN)
        elif how == "expired":
            store, kind = await open_store(clock_offset_ms=MINUTE_MS), LeaseExpiredError
        else:
            kind = LeaseNotFoundError
        with pytest.raises(kind) as refused:
            await reserve(store, "another", 1, conditions=inside())
        assert getattr(refused.value, "lease_id", None) == RUN
        assert getattr(refused.value, "how", how) == how
        if how != "missing":
            with pytest.raises(kind) as refused:
                await extend(store, CALL, 1)
            assert getattr(refused.value, "lease_id", None) == RUN

    async def test_refusal_for_want_of_the_parent_s_hold(self, open_store: OpenStore) -> None:
        """It names the parent, what it has left, and what is held inside of it and until when."""
        store = await funded(open_store, run=10)
        first = await reserve(store, CALL, 4, conditions=inside())
        await reserve(store, "inside the call", 1, LONG, conditions=inside(CALL))
        for refuse in (lambda: reserve(store, "another", 7, conditions=inside()), lambda: extend(store, CALL, 7)):
            with pytest.raises(InsufficientCreditsError) as refused:
                await refuse()
            assert refused.value.parent == RUN
            numbers = (refused.value.needed, refused.value.available, refused.value.held)
            assert [micro(number) for number in numbers] == [7, 6, 4]
            assert refused.value.next_expiry == first.expires_at
        await reserve(store, "another", 6, conditions=inside())
        assert await held_by(store) == {RUN: 0, CALL: 3, "inside the call": 1, "another": 6}

    async def test_extend_takes_of_the_parent_s_hold(self, open_store: OpenStore) -> None:
        """A lease that is inside another is extended out of that one's hold."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        extended = await extend(store, CALL, 30)
        assert (micro(extended.amount), micro(extended.available)) == (50, 50)
        assert (await extend(store, CALL, 30)).replayed
        assert await held_by(store) == {RUN: 0, CALL: 50}
        assert (await entry_of(store, extended)).amount == 30

    async def test_parent_is_extended_from_the_account(self, open_store: OpenStore) -> None:
        """A budget can be enlarged while something runs inside of it."""
        store = await funded(open_store)
        await reserve(store, CALL, 50, conditions=inside())
        assert micro((await extend(store, RUN, 30)).amount) == 30
        await reserve(store, "another", 30, conditions=inside())
        assert await numbers_of(store) == (100, 80, 20)

    async def test_any_depth(self, open_store: OpenStore) -> None:
        """A lease spends of the one that it is directly inside of, and gives back to the nearest open one."""
        store = await funded(open_store)
        await reserve(store, "step", 30, LONG, conditions=inside())
        await reserve(store, CALL, 10, LONG, conditions=inside("step"))
        await reserve(store, "another", 10, LONG, conditions=inside("step"))
        assert await held_by(store) == {RUN: 20, "step": 10, CALL: 10, "another": 10}
        assert outcome(await settle(store, CALL, 25)) == (20, 5, False), "of the step's hold, and not of the run's"
        assert outcome(await settle(store, "step", 5)) == (5, 0, False), "and the step itself of the run's"
        assert await held_by(store) == {RUN: 15, "another": 10}
        assert outcome(await settle(store, "another", 4)) == (4, 0, False)
        assert await held_by(store) == {RUN: 21}, "the step is closed: the run has back what is left"
        assert await numbers_of(store) == (71, 21, 50)

    async def test_depth_is_limited(self, open_store: OpenStore) -> None:
        """Sixteen leases deep, and no deeper."""
        store = await funded(open_store)
        parent = RUN
        for depth in range(15):
            await reserve(store, f"{depth}", 1, conditions=inside(parent))
            parent = f"{depth}"
        with pytest.raises(ConfigError, match="16 deep"):
            await reserve(store, "too deep", 1, conditions=inside(parent))

    async def test_again_inside(self, open_store: OpenStore) -> None:
        """A repeated step inside a lease takes effect once; the lease id is the key, as of any lease."""
        store = await funded(open_store)
        first = await reserve(store, CALL, 20, conditions=inside())
        again = await reserve(store, CALL, 20, conditions=inside())
        assert (again.replayed, again.transaction_id, again.amount) == (True, first.transaction_id, first.amount)
        with pytest.raises(IdempotencyConflictError):
            await reserve(store, CALL, 20, terms(fingerprint="another parent"), conditions=inside("another"))
        settled = await settle(store, CALL, 5)
        assert (await settle(store, CALL, 5)).transaction_id == settled.transaction_id
        assert await held_by(store) == {RUN: 45}
        with pytest.raises(LeaseClosedError) as closed:
            await reserve(store, CALL, 20, conditions=inside())
        assert (closed.value.lease_id, closed.value.how) == (CALL, "settled")

    async def test_dry_run_inside(self, open_store: OpenStore) -> None:
        """A dry run tells the outcome, of expired leases too, and does nothing."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        with pytest.raises(InsufficientCreditsError):
            await reserve(store, "another", 31, conditions=inside(), dry_run=True)
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert micro((await reserve(later, "another", 50, conditions=inside(), dry_run=True)).amount) == 50
        with pytest.raises(InsufficientCreditsError):
            await reserve(later, "another", 51, conditions=inside(), dry_run=True)
        assert await held_by(store) == {RUN: 30, CALL: 20}

    @pytest.mark.parametrize(("cost", "charged"), [(15, 15), (60, 45)])
    async def test_late_settle_inside(self, open_store: OpenStore, cost: int, charged: int) -> None:
        """A lease that expired and gave its hold back is charged late, as far as its parent's hold goes."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        later = await open_store(clock_offset_ms=MINUTE_MS)
        await reserve(later, "another", 5, LONG, conditions=inside())
        assert outcome(await settle(later, CALL, cost)) == (charged, cost - charged, True)
        assert await held_by(later) == {RUN: 45 - charged, "another": 5}

    @pytest.mark.parametrize(("cost", "charged"), [(15, 15), (60, 50)])
    @pytest.mark.parametrize("first", [RUN, CALL])
    async def test_late_settle_after_the_parent_expired_too(
        self, open_store: OpenStore, first: str, cost: int, charged: int
    ) -> None:
        """It is charged what was left of the parent when that expired, from wherever it went, and never more."""
        store = await open_store()
        await add(store, 100)
        ttls = (MINUTE_MS, HOUR_MS) if first == RUN else (HOUR_MS, MINUTE_MS)
        await reserve(store, RUN, 50, terms(ttl_ms=ttls[0]))
        await reserve(store, CALL, 20, terms(ttl_ms=ttls[1]), conditions=inside())
        await reserve(store, "another", 5, terms(ttl_ms=ttls[1]), conditions=inside())
        later = await open_store(clock_offset_ms=HOUR_MS)
        assert outcome(await settle(later, CALL, cost)) == (charged, cost - charged, True)
        assert outcome(await settle(later, "another", 60)) == (50 - charged, 10 + charged, True)
        assert await numbers_of(later) == (50, 0, 50)

    async def test_late_settle_in_the_depth(self, open_store: OpenStore) -> None:
        """A lease inside an expired step is charged the rest of the step, of the run that has it back."""
        store = await funded(open_store)
        await reserve(store, "step", 20, conditions=inside())
        await reserve(store, CALL, 5, conditions=inside("step"))
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert outcome(await settle(later, CALL, 40)) == (20, 20, True)
        assert await held_by(later) == {RUN: 30}

    async def test_late_settle_and_a_parent_whose_expiry_was_charged(self, open_store: OpenStore) -> None:
        """The parent's hold was charged with it: nothing of it is left for the lease inside."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, RUN, 50, terms(on_expiry="charge"))
        await reserve(store, CALL, 20, terms(on_expiry="charge"), conditions=inside())
        await reserve(store, "another", 5, LONG, conditions=inside())
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert await numbers_of(later) == (55, 5, 50)
        assert outcome(await settle(later, CALL, 30)) == (20, 10, True)
        assert outcome(await settle(later, "another", 30)) == (5, 25, False)
        assert await numbers_of(later) == (50, 0, 50)

    async def test_late_settle_for_less_than_its_expiry_was_charged(self, open_store: OpenStore) -> None:
        """The difference comes back to the account: it was charged already, and is nobody's hold any more."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, terms(on_expiry="charge"), conditions=inside())
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert outcome(await settle(later, CALL, 5)) == (5, 0, True)
        assert await held_by(later) == {RUN: 30}
        assert await numbers_of(later) == (95, 30, 65)

    async def test_id_that_is_used_again(self, open_store: OpenStore) -> None:
        """A lease with the id of a forgotten parent has nothing to do with what was inside that one."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, RUN, 50)
        await reserve(store, CALL, 20, LONG, conditions=inside())
        await reserve(store, "another", 5, LONG, conditions=inside())
        expired = await open_store(clock_offset_ms=MINUTE_MS)
        await expired.sweep_partition(expired.namespace.partition_of(ACCOUNT))
        later = await open_store(clock_offset_ms=2 * DAY_MS)
        assert not (await reserve(later, RUN, 10, LONG)).replayed
        assert outcome(await settle(later, CALL, 30)) == (20, 10, False)
        with pytest.raises(LeaseClosedError) as refused:
            await extend(later, "another", 1)
        assert (refused.value.lease_id, refused.value.how) == (RUN, "closed")
        await release(later, "another")
        assert await held_by(later) == {RUN: 10}
        assert await numbers_of(later) == (80, 10, 70)

    async def test_floor_is_the_parent_s(self, open_store: OpenStore) -> None:
        """A lease inside another needs no floor of its own: it was admitted with its parent."""
        store = await open_store()
        await add(store, 10)
        await reserve(store, RUN, 30, terms(floor=-20))
        await reserve(store, CALL, 30, terms(floor=0), conditions=inside())
        assert outcome(await settle(store, CALL, 30)) == (30, 0, False)
        assert await numbers_of(store) == (-20, 0, -20)

    async def test_late_settle_goes_to_the_parent_s_floor(self, open_store: OpenStore) -> None:
        """Late, where all has expired, it is charged down to the floor that its parent was admitted under."""
        store = await open_store()
        await add(store, 10)
        await reserve(store, RUN, 30, terms(floor=-20))
        await reserve(store, CALL, 30, terms(floor=0), conditions=inside())
        later = await open_store(clock_offset_ms=MINUTE_MS)
        assert outcome(await settle(later, CALL, 40)) == (30, 10, True)

    async def test_prices_are_the_parent_s(self, open_store: OpenStore) -> None:
        """A run that was priced by a document goes on by it: what is priced otherwise is asked for again."""
        store = await open_store()
        await add(store, 100)
        await reserve(store, RUN, Price(50, version=2, activation=2), LONG)
        with pytest.raises(RepriceLease) as asked:
            await reserve(store, CALL, Price(5, version=3, activation=3), conditions=inside())
        assert (asked.value.version, asked.value.plan) == (2, "")
        call = await reserve(store, CALL, Price(4, version=2), conditions=inside())
        other = await reserve(store, "in credits", 4, conditions=inside())
        assert (call.version, other.version) == (2, 2)
        with pytest.raises(RepriceLease):
            await settle(store, "in credits", Price(3, version=3))
        await reserve(store, "free of prices", 10)
        later = await reserve(store, "later", Price(5, version=3, activation=3), conditions=inside("free of prices"))
        assert later.version == 3, "credits promise no prices"

    async def test_frozen_account(self, open_store: OpenStore) -> None:
        """Nothing is opened in a run of an account that was frozen; what is open is settled."""
        caller = Caller(await funded(open_store))
        await caller.reserve(CALL, 5, parent=RUN)
        await caller.store.freeze(ACCOUNT, "unpaid", key("freeze"), cause=b"")
        with pytest.raises(AccountFrozenError):
            await caller.reserve("another", 5, parent=RUN)
        assert micro((await caller.settle(CALL, 5)).amount) == 5

    async def test_what_is_inside_does_not_run_beside_it(self, open_store: OpenStore) -> None:
        """A limit on leases counts the run, and nothing inside of it."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.reserve(RUN, 50, LONG, max_concurrent=1)
        for number in range(3):
            await caller.reserve(f"{number}", 5, LONG, max_concurrent=1, parent=RUN)
        await caller.release(RUN)
        await caller.reserve("another run", 5, LONG, max_concurrent=1)

    async def test_renew_inside(self, open_store: OpenStore) -> None:
        """A lease that is inside another is renewed by itself."""
        store = await funded(open_store)
        await reserve(store, CALL, 5, conditions=inside())
        await renew(store, CALL, HOUR_MS)
        later = await open_store(clock_offset_ms=2 * MINUTE_MS)
        assert await held_by(later) == {RUN: 45, CALL: 5}

    async def test_allowance(self, open_store: OpenStore) -> None:
        """A lease takes the allowance of its parent first, pays with it first, and gives it back as such."""
        caller = Caller(await open_store(), Document({"pro": Plan(30)}))
        await caller.add(100)
        await caller.set_plan("pro")
        await caller.reserve(RUN, 50, LONG)
        call = await caller.reserve(CALL, 20, LONG, parent=RUN)
        other = await caller.reserve("another", 20, LONG, parent=RUN)
        assert [micro(lease.allowance_consumed) for lease in (call, other)] == [20, 10]
        assert (await caller.numbers(), await caller.allowance()) == ((100, 20, 80), (0, 30, 0))
        await caller.release(CALL)
        settled = await caller.settle("another", 25)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (25, 25)
        assert (await caller.numbers(), await caller.allowance()) == ((100, 20, 80), (25, 5, 0))
        settled = await caller.settle(RUN, 25)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (25, 5)
        assert (await caller.numbers(), await caller.allowance()) == ((80, 0, 80), (30, 0, 0))

    async def test_allowance_of_an_older_period(self, open_store: OpenStore) -> None:
        """Inside a run the allowance that the run took is spent, also after its period; the new one is not touched."""
        caller = Caller(await open_store(), Document({"pro": Plan(30, period_ms=DAY_MS)}))
        await caller.add(100)
        await caller.set_plan("pro")
        await caller.reserve(RUN, 40, LONG)
        await caller.reserve("first", 30, LONG, parent=RUN)
        later = caller.at(await open_store(clock_offset_ms=2 * DAY_MS))
        await later.extend(RUN, 5)
        assert await later.allowance() == (0, 0, 30)
        await later.release("first")
        settled = await later.ask(
            lambda c: reserve(later.store, CALL, 35, LONG, conditions=c), parent=RUN
        ) and await later.settle(CALL, 35)
        assert (micro(settled.amount), micro(settled.allowance_consumed)) == (35, 30)
        assert (await later.numbers(), await later.allowance()) == ((95, 10, 85), (0, 0, 30))

    async def test_caps_that_the_parent_is_held_in(self, open_store: OpenStore) -> None:
        """The parent's hold in a cap is not held twice there, nor refused; charges use it up."""
        caller = Caller(await open_store())
        await caller.add(1000)
        await caller.set_cap("total", 100)
        await caller.reserve(RUN, 100, LONG)
        await caller.reserve(CALL, 60, LONG, parent=RUN)
        assert await caller.cap("total") == (0, 100)
        await caller.settle(CALL, 70)
        assert await caller.cap("total") == (70, 30)
        await caller.reserve(CALL + "2", 20, LONG, parent=RUN)
        await caller.release(CALL + "2")
        assert await caller.cap("total") == (70, 30)
        await caller.release(RUN)
        assert await caller.cap("total") == (70, 0)

    async def test_caps_that_the_parent_is_not_held_in(self, open_store: OpenStore) -> None:
        """A model's or a member's cap that the parent is no part of holds for what is inside of it as for any lease."""
        caller = Caller(await open_store())
        await caller.store.create_team(ACCOUNT, "a team", "ann", key("founded"), cause=b"")
        await caller.store.set_member(ACCOUNT, "bob", "member", key("bob"), cause=b"")
        await caller.add(1000)
        await caller.set_cap("total", 10, scope="model/gpt")
        await caller.set_cap("total", 20, scope="member/bob")
        await caller.reserve(RUN, 100, LONG, member="ann")
        with pytest.raises(CapReachedError) as refused:
            await caller.reserve(CALL, 11, LONG, parent=RUN, models=(("gpt", 11),))
        assert (refused.value.scope, micro(refused.value.needed)) == ("model/gpt", 11)
        await caller.reserve(CALL, 10, LONG, parent=RUN, models=(("gpt", 10),))
        assert await caller.cap("total", "model/gpt") == (0, 10)
        with pytest.raises(CapReachedError):
            await caller.reserve("of bob", 21, LONG, parent=RUN, member="bob")
        await caller.reserve("of bob", 20, LONG, parent=RUN, member="bob")
        assert await caller.cap("total", "member/bob") == (0, 20)
        await caller.settle(CALL, 4)
        await caller.release("of bob")
        assert await caller.cap("total", "model/gpt") == (4, 0)
        assert await caller.cap("total", "member/bob") == (0, 0)

    async def test_member_is_the_parent_s(self, open_store: OpenStore) -> None:
        """The member of a run spends inside of it, unless another one is named; a stranger does not."""
        caller = Caller(await open_store())
        await caller.store.create_team(ACCOUNT, "a team", "ann", key("founded"), cause=b"")
        await caller.add(100)
        await caller.reserve(RUN, 50, LONG, member="ann")
        await caller.reserve(CALL, 5, LONG, parent=RUN)
        await caller.settle(CALL, 5)
        team = (await caller.describe()).team
        assert team is not None
        assert [(member.user, micro(member.spent)) for member in team.members] == [("ann", 5)]
        with pytest.raises(MemberNotFoundError):
            await caller.reserve("of a stranger", 5, LONG, parent=RUN, member="zoe")

    async def test_others_cannot_take_of_it(self, open_store: OpenStore) -> None:
        """The hold of a run is safe from everybody outside of it, whatever happens inside."""
        store = await funded(open_store)
        await reserve(store, CALL, 20, conditions=inside())
        await deduct(store, 50)
        with pytest.raises(InsufficientCreditsError):
            await deduct(store, 1, "refused")
        assert outcome(await settle(store, CALL, 50)) == (50, 0, False)
        assert await numbers_of(store) == (0, 0, 0)
