"""What another process did holds for the next call of this one, and nobody is charged old prices."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, MemoryStore, UsageMetrics
from ducto_redis.engine.operation import PLAIN, Conditions
from ducto_redis.errors import CapReachedError, InsufficientCreditsError, StalePricing, StoreError, TermsNeeded
from ducto_redis.manager import pricing_book
from ducto_redis.manager.arguments import fingerprint
from ducto_redis.manager.repricing import AccountBook
from ducto_redis.money import from_micro
from ducto_redis.results import Balance
from ducto_redis.testing import read_journal
from tests.manager.clock import Clock
from tests.manager.conftest import DOCUMENT as PRICES

DOCUMENT = {
    **PRICES,
    "plans": {
        "free": {"free_allowance": 1},
        "half": {"rate_overrides": {"gpt-4o": "input_tokens * 0.0005"}},
        "double": {"rate_overrides": {"gpt-4o": "input_tokens * 0.002"}},
    },
}
USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)  # one credit, by the document's own rates

HALF = Decimal("0.5")


@pytest.fixture
async def ours(valkey_url: str, namespace: str) -> AsyncIterator[AsyncCreditManager]:
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.publish_pricing(DOCUMENT)
        await manager.add_credits("u1", 100)
        yield manager


@pytest.fixture
async def theirs(valkey_url: str, namespace: str, ours: AsyncCreditManager) -> AsyncIterator[AsyncCreditManager]:
    """Another process, so to speak, that has priced by the document already."""
    async with AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager:
        await manager.load_pricing()
        yield manager


def let_a_second_pass(manager: AsyncCreditManager) -> None:
    """As if the manager had asked for the document a second ago."""
    manager.pricing._known_at -= 1.0
    manager.pricing._asked_at -= 1.0


async def test_a_second_after_activation_no_call_uses_what_was_before(
    ours: AsyncCreditManager, theirs: AsyncCreditManager
) -> None:
    """Neither the first call nor those beside it, for accounts that nobody has charged since."""
    accounts = [f"u{number}" for number in range(10)]
    await asyncio.gather(*(ours.add_credits(account, 10) for account in accounts))
    await ours.publish_pricing({**PRICES, "models": {"gpt-4o": "input_tokens * 0.003"}})
    let_a_second_pass(theirs)
    charges = await asyncio.gather(*(theirs.deduct(account, USAGE) for account in accounts))
    assert {charge.amount for charge in charges} == {3}


async def test_a_busy_process_asks_once(ours: AsyncCreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the second is over one call asks, and those beside it go on with what is known."""
    asked = 0
    read_pricing = ours.store.read_pricing

    async def counting(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read_pricing(*args, **options)

    monkeypatch.setattr(ours.store, "read_pricing", counting)
    now = max(ours.pricing._known_at, ours.pricing._asked_at) + 0.6
    monkeypatch.setattr(pricing_book, "monotonic", lambda: now)
    await asyncio.gather(*(ours.deduct("u1", USAGE) for _ in range(10)))
    assert asked == 1


async def test_plans_price_what_they_override(ours: AsyncCreditManager, theirs: AsyncCreditManager) -> None:
    """A charge is priced under the plan that the account has, whichever process assigned it, and says so."""
    assert (await theirs.deduct("u1", USAGE)).amount == 1
    for plan, cost in (("half", HALF), ("double", 2), ("free", 1)):
        await ours.set_user_plan("u1", plan)
        for manager in (theirs, ours):
            assert (await manager.deduct("u1", USAGE)).amount == cost
    await ours.unset_user_plan("u1")
    assert (await theirs.reserve("u1", USAGE)).amount == 1


async def test_a_lease_is_charged_under_the_plan_that_it_was_reserved_under(
    ours: AsyncCreditManager, theirs: AsyncCreditManager
) -> None:
    """In whichever process, whatever the account's plan is since, and whatever was published."""
    await ours.set_user_plan("u1", "half")
    leases = [await ours.reserve("u1", USAGE) for _ in range(4)]
    assert {lease.amount for lease in leases} == {HALF}
    assert (await theirs.settle("u1", leases[0].lease_id, USAGE)).amount == HALF
    await ours.set_user_plan("u1", "double")
    assert (await ours.settle("u1", leases[1].lease_id, USAGE)).amount == HALF
    await ours.publish_pricing({**PRICES, "plans": {"double": {}}, "models": {"gpt-4o": "input_tokens"}})
    let_a_second_pass(theirs)
    assert (await theirs.settle("u1", leases[2].lease_id, USAGE)).amount == HALF
    await theirs.publish_pricing({**PRICES, "models": {"newer": "input_tokens"}})
    assert (await theirs.settle("u1", leases[3].lease_id, USAGE)).amount == HALF


async def test_every_charge_is_priced_under_the_plan_that_it_names(
    ours: AsyncCreditManager, theirs: AsyncCreditManager
) -> None:
    """Two processes charge while plans and documents change under them: no price and plan come from two times."""
    await ours.add_credits("u1", 10_000)
    prices = {"": 1, "free": 1, "half": HALF, "double": 2}

    async def charge(manager: AsyncCreditManager) -> None:
        for _ in range(40):
            await manager.deduct("u1", USAGE)

    async def work(manager: AsyncCreditManager) -> None:
        for _ in range(20):
            lease = await manager.reserve("u1", USAGE)
            await asyncio.sleep(0)
            await manager.settle("u1", lease.lease_id, USAGE)

    async def change(manager: AsyncCreditManager) -> None:
        for plan in ("half", "double", None, "free") * 3:
            await manager.set_user_plan("u1", plan)
            await manager.publish_pricing(DOCUMENT)

    await asyncio.gather(*(each(manager) for manager in (ours, theirs) for each in (charge, charge, work, change)))
    charged = []
    for entry in read_journal(ours.store, "u1"):
        if entry.operation in ("deduct", "settle"):
            charged.append(entry.read_details().plan)
            assert from_micro(entry.amount) == prices[charged[-1]], entry
    assert len(charged) == 200
    assert len(set(charged)) > 1


async def test_an_extended_lease_keeps_its_prices(ours: AsyncCreditManager, theirs: AsyncCreditManager) -> None:
    """Its plan's and its document's, though it is admitted under what the account has now."""
    await ours.set_user_plan("u1", "half")
    lease = await ours.reserve("u1", USAGE)
    await ours.set_user_plan("u1", "double")
    await ours.publish_pricing({**DOCUMENT, "models": {"gpt-4o": "input_tokens"}})
    assert (await theirs.extend("u1", lease.lease_id, USAGE)).amount == 1
    assert (await theirs.settle("u1", lease.lease_id, USAGE)).amount == HALF


async def test_a_repeated_call_replays_whatever_changed(ours: AsyncCreditManager, theirs: AsyncCreditManager) -> None:
    """Keys cover what the caller passed, never the plan, the price or the time."""
    first = await ours.deduct("u1", USAGE, idempotency_key="k")
    lease = await ours.reserve("u1", USAGE, lease_id="l")
    await theirs.set_user_plan("u1", "double")
    await theirs.publish_pricing({**PRICES, "models": {"gpt-4o": "input_tokens"}})
    let_a_second_pass(ours)
    again = await ours.deduct("u1", USAGE, idempotency_key="k")
    assert (again.transaction_id, again.amount, again.replayed) == (first.transaction_id, 1, True)
    assert (await ours.reserve("u1", USAGE, lease_id="l")).transaction_id == lease.transaction_id


async def test_a_spend_cap_of_a_model_counts_at_once(ours: AsyncCreditManager, theirs: AsyncCreditManager) -> None:
    """A process that took the account for a plain one says from then on what each model costs."""
    await theirs.deduct("u1", USAGE)
    await ours.set_spend_cap("u1", 3, window="total", model="gpt-4o")
    await theirs.deduct("u1", USAGE)
    lease = await theirs.reserve("u1", USAGE)
    await theirs.settle("u1", lease.lease_id, USAGE)
    await theirs.deduct("u1", [USAGE, UsageMetrics(model="render", measures={"gpu_seconds": 10})])
    with pytest.raises(CapReachedError) as refused:
        await theirs.deduct("u1", USAGE)
    assert (refused.value.scope, refused.value.limit, refused.value.used) == ("model/gpt-4o", 3, 3)
    await theirs.deduct("u1", UsageMetrics(model="render", measures={"gpu_seconds": 1}))
    await theirs.deduct("u1", 5)


async def test_accounts_that_were_forgotten_are_asked_about_again(ours: AsyncCreditManager) -> None:
    """A book that is too small costs round trips, and changes no charge."""
    ours._repricer._accounts = AccountBook(limit=1)
    for account in ("a", "b"):
        await ours.add_credits(account, 10)
        await ours.set_user_plan(account, "half")
    for _ in range(2):
        for account in ("a", "b"):
            assert (await ours.deduct(account, USAGE)).amount == HALF


def test_a_period_that_ends_is_asked_about() -> None:
    """The first call of a new month gets the new allowance, a read as well as a charge."""
    clock = Clock()
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.set_user_plan("u1", "free")
        manager.deduct("u1", 1)
        for _ in range(2):
            clock.move(days=31)
            assert manager.get_balance("u1").allowance == 1
            assert manager.deduct("u1", 1).allowance_consumed == 1
            with pytest.raises(InsufficientCreditsError):
                manager.deduct("u1", 1)


class Recording(MemoryStore):
    """A store that remembers under which conditions it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.conditions: list[Conditions] = []

    async def deduct(self, *args: Any, conditions: Conditions, **options: Any) -> Any:
        self.conditions.append(conditions)
        return await super().deduct(*args, conditions=conditions, **options)

    async def reserve(self, *args: Any, conditions: Conditions, **options: Any) -> Any:
        self.conditions.append(conditions)
        return await super().reserve(*args, conditions=conditions, **options)

    async def settle(self, *args: Any, conditions: Conditions, **options: Any) -> Any:
        self.conditions.append(conditions)
        return await super().settle(*args, conditions=conditions, **options)


def test_a_plain_account_costs_nothing_more() -> None:
    """Its calls are made once, under conditions that are not even made; those of another are asked about once."""
    store = Recording()
    with CreditManager(store) as manager:
        manager.publish_pricing(DOCUMENT)
        for account in ("plain", "planned"):
            manager.add_credits(account, 100)
        for cost in (USAGE, 1):
            manager.deduct("plain", cost)
            lease = manager.reserve("plain", cost)
            manager.settle("plain", lease.lease_id, cost)
        assert len(store.conditions) == 6
        assert all(conditions is PLAIN for conditions in store.conditions)
        with CreditManager(store) as other:
            other.set_user_plan("planned", "half")
            store.conditions.clear()
            manager.deduct("planned", USAGE)
            assert [conditions.plan for conditions in store.conditions] == ["", "half"]
            assert store.conditions[1].terms is not None
            manager.deduct("planned", USAGE)
            assert [conditions.terms for conditions in store.conditions[2:]] == [None]
            assert store.conditions[2].models == (("gpt-4o", 500_000),)


class Asking(MemoryStore):
    """A store that always asks, and never does anything."""

    def __init__(self, question: Callable[[], Exception]) -> None:
        super().__init__()
        self.question = question
        self.asked = 0

    async def get_balance(self, account: str, *, conditions: Conditions) -> Balance:
        self.asked += 1
        raise self.question()

    async def deduct(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        raise self.question()

    async def extend(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        raise self.question()


@pytest.mark.parametrize(
    "question",
    [lambda: StalePricing(9), lambda: TermsNeeded("free", 1, "", 1_700_000_000_000)],
    ids=["stale", "terms"],
)
def test_nobody_is_asked_for_ever(question: Callable[[], Exception]) -> None:
    """A question that no answer ends becomes an error; no caller sees the question."""
    store = Asking(question)
    with CreditManager(store) as manager:
        manager.publish_pricing(DOCUMENT)
        for call in (
            lambda: manager.get_balance("u1"),
            lambda: manager.deduct("u1", 1),
            lambda: manager.extend("u1", "lease", USAGE),
        ):
            store.asked = 0
            with pytest.raises(StoreError, match="try again"):
                call()
            assert 1 < store.asked < 50


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        (("add_credits", 10_000_000, "purchase", None), "6Nl/tI1Nh1bX"),
        (("deduct", 1_000_000, "default", None, None), "maEkCDtUNnhb"),
        (("deduct", (USAGE,), "chat", "strict", {"a": 1}), "WWditaDPYGha"),
        (("reserve", 5_000_000, "default", None, None, None), "h3bPuN99U9uX"),
        (("settle", (USAGE,)), "uw/eHq5P0lom"),
        (("extend", "l", 1_000_000), "CXNGLbepngOB"),
    ],
)
def test_fingerprints_outlive_versions_of_this_library(passed: tuple[Any, ...], expected: str) -> None:
    """A call that passes nothing new has the fingerprint that it always had: keys are kept for 35 days."""
    unused = {"member": None, "required_feature": None, "skip_allowance": False, "priority": None, "expires_ms": None}
    assert fingerprint(*passed, **unused) == expected
    others = {fingerprint(*passed, **{name: value}) for name, value in (("member", "a"), ("priority", 0), ("x", "a"))}
    assert len(others | {expected}) == 4
