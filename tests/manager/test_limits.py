"""How much may run at once, and which features an account must have."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, MemoryStore, UsageMetrics
from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConcurrencyLimitError,
    ConfigError,
    CreditError,
    FeatureNotEntitledError,
    InsufficientCreditsError,
    InvalidIdError,
    MemberNotFoundError,
    TeamNotFoundError,
    UnpricedModelError,
)
from ducto_redis.store import RedisStore
from tests.manager.clock import Clock
from tests.manager.conftest import DOCUMENT as PRICES

DOCUMENT = {
    **PRICES,
    "plans": {
        "free": {
            "max_concurrent": 2,
            "per_operation": {"agent": {"max_concurrent": 1}},
            "features": {"chat": True, "seats": 0, "label": "", "agentic": False, "context": None},
        },
        "pro": {"features": {"agentic": True}},
    },
}
USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    """A manager on a store of the test's own time, with an account on the plan `free`."""
    with CreditManager(clock.store, max_concurrent=3) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 100)
        manager.set_user_plan("u1", "free")
        yield manager


def open_all(manager: CreditManager, account: str, operation_type: str) -> list[str]:
    """Open leases until one is refused; their ids."""
    leases: list[str] = []
    while len(leases) < 20:
        try:
            leases.append(manager.reserve(account, 1, operation_type=operation_type).lease_id)
        except ConcurrencyLimitError:
            break
    return leases


@pytest.mark.parametrize(
    ("plan", "operation_type", "of_manager", "limit"),
    [
        ("free", "agent", 3, 1),
        ("free", "chat", 3, 2),
        ("free", "chat", None, 2),
        ("pro", "chat", 3, 3),
        (None, "chat", 3, 3),
        ("pro", "agent", None, 20),
        (None, "chat", None, 20),
    ],
)
def test_the_most_specific_limit_wins(
    plan: str | None, operation_type: str, of_manager: int | None, limit: int
) -> None:
    """The operation type's in the plan, the plan's, the manager's, else any number."""
    with CreditManager(MemoryStore(), max_concurrent=of_manager) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.add_credits("u1", 100)
        if plan is not None:
            manager.set_user_plan("u1", plan)
        assert len(open_all(manager, "u1", operation_type)) == limit


def test_each_operation_type_has_a_limit_of_its_own(credits: CreditManager) -> None:
    """What runs of one type leaves the others alone; charges without a lease count nowhere."""
    assert len(open_all(credits, "u1", "chat")) == 2
    assert len(open_all(credits, "u1", "batch")) == 2
    assert len(open_all(credits, "u1", "agent")) == 1
    assert credits.deduct("u1", 1, operation_type="agent").amount == 1


def test_only_live_leases_count(credits: CreditManager, clock: Clock) -> None:
    """A lease that was settled, released, or has expired frees its place; one that was renewed keeps it."""
    first, second = open_all(credits, "u1", "chat")
    credits.settle("u1", first, 1)
    (third,) = open_all(credits, "u1", "chat")
    credits.release("u1", third)
    (fourth,) = open_all(credits, "u1", "chat")
    credits.renew("u1", fourth, ttl=3600)
    clock.move(seconds=601)
    assert len(open_all(credits, "u1", "chat")) == 1  # `second` has expired
    credits.settle("u1", second, 1)
    assert open_all(credits, "u1", "chat") == []


def test_a_repeated_reserve_takes_no_second_place(credits: CreditManager) -> None:
    """The lease id is the key, at the limit too; an extended lease is one lease."""
    credits.reserve("u1", 1, operation_type="agent", lease_id="l")
    assert credits.reserve("u1", 1, operation_type="agent", lease_id="l").replayed
    assert credits.extend("u1", "l", 1).amount == 2


def test_a_refusal_changes_nothing(credits: CreditManager) -> None:
    """Neither the account nor its leases; it says what the limit is, and how many run."""
    open_all(credits, "u1", "chat")
    before = credits.describe("u1")
    with pytest.raises(ConcurrencyLimitError) as refused:
        credits.reserve("u1", 1, operation_type="chat")
    assert credits.describe("u1") == before
    assert (refused.value.account, refused.value.operation_type) == ("u1", "chat")
    assert (refused.value.limit, refused.value.running) == (2, 2)


def test_racing_threads_never_pass_the_limit(valkey_url: str, namespace: str) -> None:
    """16 threads reserve and close without pause: at no moment does the engine list more than may run."""
    with CreditManager(RedisStore(valkey_url, namespace=namespace, blocking=True), max_concurrent=3) as manager:
        manager.add_credits("u1", 10_000)
        most: list[int] = []
        refused: list[int] = []
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(25):
                    try:
                        lease = manager.reserve("u1", 1).lease_id
                    except ConcurrencyLimitError as error:
                        refused.append(error.running)
                        continue
                    most.append(len(manager.list_leases("u1")))
                    if number % 2:
                        manager.settle("u1", lease, 1)
                    else:
                        manager.release("u1", lease)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert max(most) == 3
        assert set(refused) == {3}
        assert manager.list_leases("u1") == []


@pytest.mark.parametrize("feature", ["chat", "seats", "label"])
def test_features_that_the_plan_has(credits: CreditManager, feature: str) -> None:
    """0 and "" are values: they count as present."""
    assert credits.deduct("u1", 1, required_feature=feature).amount == 1
    assert credits.reserve("u1", 1, required_feature=feature).amount == 1
    assert credits.can_afford("u1", 1, required_feature=feature)


@pytest.mark.parametrize("feature", ["agentic", "context", "unheard of"])
def test_features_that_the_plan_lacks(credits: CreditManager, feature: str) -> None:
    """False, None and absence refuse, say which features there are, and change nothing."""
    credits.add_credits("u2", 5)
    for account, plan in (("u1", "free"), ("u2", None), ("nobody", None)):
        before = credits.describe(account)
        for call in (credits.deduct, credits.reserve):
            with pytest.raises(FeatureNotEntitledError) as refused:
                call(account, 1, required_feature=feature)
            assert (refused.value.account, refused.value.feature, refused.value.plan) == (account, feature, plan)
            assert refused.value.features == (("chat", "label", "seats") if plan else ())
        assert not credits.can_afford(account, 1, required_feature=feature)
        assert credits.describe(account).balance == before.balance


def test_what_a_process_knew_refuses_nothing(valkey_url: str, namespace: str) -> None:
    """The plan changed in another process: the feature that it brings is there at once, and gone at once."""
    with (
        CreditManager.from_url(valkey_url, namespace=namespace) as ours,
        CreditManager.from_url(valkey_url, namespace=namespace) as theirs,
    ):
        ours.publish_pricing(DOCUMENT)
        theirs.load_pricing()
        ours.add_credits("u1", 100)
        ours.set_user_plan("u1", "free")
        theirs.set_user_plan("u1", "pro")
        assert ours.deduct("u1", 1, required_feature="agentic").amount == 1
        theirs.set_user_plan("u1", "free")
        with pytest.raises(FeatureNotEntitledError) as refused:
            ours.reserve("u1", 1, required_feature="agentic")
        assert refused.value.plan == "free"
        theirs.unset_user_plan("u1")
        with pytest.raises(FeatureNotEntitledError):
            ours.deduct("u1", 1, required_feature="chat")


def test_the_new_documents_features(valkey_url: str, namespace: str) -> None:
    """A document that gives the plan a feature gives it to accounts that have the plan already."""
    with (
        CreditManager.from_url(valkey_url, namespace=namespace) as ours,
        CreditManager.from_url(valkey_url, namespace=namespace) as theirs,
    ):
        ours.publish_pricing(DOCUMENT)
        ours.add_credits("u1", 100)
        ours.set_user_plan("u1", "free")
        theirs.publish_pricing({**DOCUMENT, "plans": {"free": {"features": {"agentic": True}}}})
        theirs.deduct("u1", 1, required_feature="agentic")
        assert ours.deduct("u1", 1).amount == 1  # the engine says that there is a newer one
        assert ours.deduct("u1", 1, required_feature="agentic").amount == 1


def test_meters_and_billed_work_ask_for_the_feature(credits: CreditManager) -> None:
    """They hold as `reserve` does."""
    with pytest.raises(FeatureNotEntitledError), credits.meter("u1", 1, required_feature="agentic"):
        pytest.fail("the work began")
    with pytest.raises(FeatureNotEntitledError):
        credits.run_billed("u1", 1, lambda: pytest.fail("the work began"), required_feature="agentic")
    with pytest.raises(TeamNotFoundError), credits.meter("u1", 1, member="bob"):
        pytest.fail("the work began")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"required_feature": ""}, InvalidIdError),
        ({"required_feature": 5}, InvalidIdError),
        ({"member": ""}, InvalidIdError),
        ({"member": "x" * 129}, InvalidIdError),
        ({"operation_type": ""}, InvalidIdError),
    ],
)
def test_what_is_no_name(credits: CreditManager, options: dict[str, Any], error: type[CreditError]) -> None:
    """It is refused before anything is asked."""
    for call in (credits.deduct, credits.reserve, credits.can_afford):
        with pytest.raises(error):
            call("u1", 1, **options)


class TestCanAfford:
    """It says what a reserve would say, and holds nothing."""

    @pytest.fixture
    def team(self, credits: CreditManager) -> CreditManager:
        """The manager, with a team whose member `ann` may spend 5 a day of its 50 credits."""
        credits.create_team("acme", owner="ann")
        credits.add_credits("acme", 50)
        credits.set_spend_cap("acme", window="day", limit=5, member="ann")
        return credits

    @pytest.mark.parametrize(
        ("account", "amount", "options"),
        [
            ("u1", "100", {}),
            ("u1", "100.000001", {}),
            ("u1", 1, {"operation_type": "agent"}),
            ("u1", 1, {"operation_type": "full"}),
            ("u1", 1, {"required_feature": "chat"}),
            ("u1", 1, {"required_feature": "agentic"}),
            ("u1", 1, {"member": "ann"}),
            ("u1", USAGE, {}),
            ("acme", 5, {"member": "ann"}),
            ("acme", 6, {"member": "ann"}),
            ("acme", 6, {}),
            ("acme", 1, {"member": "bob"}),
            ("frozen", 1, {}),
            ("nobody", 1, {}),
        ],
    )
    def test_as_a_reserve(self, team: CreditManager, account: str, amount: Any, options: dict[str, Any]) -> None:
        """Balance, caps, concurrency, features, membership and freezing all count."""
        team.add_credits("frozen", 5)
        team.freeze("frozen", actor="ann", reason="chargeback")
        for _ in range(2):
            team.reserve("u1", "0.000001", operation_type="full", ttl=3600)
        team.add_credits("u1", "0.000002")
        before = [team.describe(name) for name in ("u1", "acme", "frozen", "nobody")]
        affordable = team.can_afford(account, amount, **options)
        assert [team.describe(name) for name in ("u1", "acme", "frozen", "nobody")] == before
        try:
            team.reserve(account, amount, **options)
        except (
            AccountFrozenError,
            CapReachedError,
            ConcurrencyLimitError,
            FeatureNotEntitledError,
            InsufficientCreditsError,
            MemberNotFoundError,
            TeamNotFoundError,
        ):
            assert affordable is False
        else:
            assert affordable is True

    def test_what_has_no_price_is_an_error(self, credits: CreditManager) -> None:
        """Nobody can say whether it can be afforded."""
        with pytest.raises(UnpricedModelError):
            credits.can_afford("u1", UsageMetrics(model="unheard of", input_tokens=1))
        with pytest.raises(ConfigError):
            credits.can_afford("u1", 1, billing_mode="free")  # type: ignore[arg-type]


async def test_racing_tasks_never_pass_the_limit(valkey_url: str, namespace: str) -> None:
    """Of 16 reserves at once, from two processes so to speak, exactly the limit is admitted."""
    async with (
        AsyncCreditManager.from_url(valkey_url, namespace=namespace, max_concurrent=5) as ours,
        AsyncCreditManager.from_url(valkey_url, namespace=namespace, max_concurrent=5) as theirs,
    ):
        await ours.add_credits("u1", 100)
        outcomes = await asyncio.gather(
            *((ours, theirs)[number % 2].reserve("u1", 1, operation_type="agent") for number in range(16)),
            return_exceptions=True,
        )
        admitted = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(admitted) == 5
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {ConcurrencyLimitError}
