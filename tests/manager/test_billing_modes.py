"""Billing modes and floors: the most specific that says something wins."""

from decimal import Decimal
from typing import Any

import pytest

from ducto_redis import CreditManager, MemoryStore
from ducto_redis.errors import ConfigError, InsufficientCreditsError
from tests.manager.conftest import DOCUMENT as PRICES

MODES = (None, "strict", "overdraft")


def manager_of(plan: dict[str, Any], *, min_balance: int = 0, **options: Any) -> CreditManager:
    """A manager whose account `u1` has 10 credits and that plan."""
    manager = CreditManager(MemoryStore(), **options)
    manager.publish_pricing({**PRICES, "min_balance": min_balance, "plans": {"p": plan}})
    manager.add_credits("u1", 10)
    manager.set_user_plan("u1", "p")
    return manager


def floor_of(manager: CreditManager, **options: Any) -> Decimal:
    """How low the account may go: a deduct below it is refused with the floor, one to it is admitted."""
    with pytest.raises(InsufficientCreditsError) as refused:
        manager.deduct("u1", 1000, **options)
    with pytest.raises(InsufficientCreditsError) as refused_lease:
        manager.reserve("u1", 1000, **options)
    assert refused_lease.value.floor == refused.value.floor
    charged = manager.deduct("u1", 10 - refused.value.floor, **options)
    assert charged.balance_after == refused.value.floor
    return refused.value.floor


def first(*modes: str | None) -> str:
    """The first mode that is one."""
    return next(mode for mode in modes if mode is not None)


@pytest.mark.parametrize("policy", ["strict_prepaid", "overdraft"])
@pytest.mark.parametrize("of_plan", MODES)
@pytest.mark.parametrize("of_operation", MODES)
@pytest.mark.parametrize("of_call", MODES)
def test_modes(of_call: Any, of_operation: Any, of_plan: Any, policy: Any) -> None:
    """Call, then operation type of the plan, then plan, then manager; only an operation's own type sees its mode."""
    plan: dict[str, Any] = {"per_operation": {"agent": {}}}
    if of_plan is not None:
        plan["default_billing_mode"] = of_plan
    if of_operation is not None:
        plan["per_operation"]["agent"]["billing_mode"] = of_operation
    own = "strict" if policy == "strict_prepaid" else "overdraft"
    for operation_type, mode in (
        ("agent", first(of_call, of_operation, of_plan, own)),
        ("chat", first(of_call, of_plan, own)),
    ):
        with manager_of(plan, policy=policy, overdraft_floor=-7, min_balance=2) as manager:
            floor = floor_of(manager, operation_type=operation_type, billing_mode=of_call)
            assert floor == (2 if mode == "strict" else -7)


@pytest.mark.parametrize(
    ("of_operation", "of_plan", "of_manager", "floor"),
    [
        (-3, -5, -7, -3),
        (0, -5, -7, 0),
        (None, -5, -7, -5),
        (None, 0, -7, 0),
        (None, None, -7, -7),
        (None, None, None, 0),
        (-3, None, None, -3),
    ],
)
def test_floors_of_an_overdraft(
    of_operation: int | None, of_plan: int | None, of_manager: int | None, floor: int
) -> None:
    """The operation type's, the plan's, the manager's, else zero. A call's mode replaces only the mode."""
    plan: dict[str, Any] = {"per_operation": {"agent": {}}}
    if of_plan is not None:
        plan["overdraft_floor"] = of_plan
    if of_operation is not None:
        plan["per_operation"]["agent"]["overdraft_floor"] = of_operation
    with manager_of(plan, overdraft_floor=of_manager) as manager:
        assert floor_of(manager, operation_type="agent", billing_mode="overdraft") == floor
    with manager_of({**plan, "billing_mode": "overdraft"}, overdraft_floor=of_manager) as manager:
        assert floor_of(manager, operation_type="agent") == floor


def test_an_account_without_a_plan_follows_the_manager() -> None:
    """The plans of others do not matter to it."""
    with manager_of({"billing_mode": "overdraft", "overdraft_floor": -5}) as manager:
        manager.add_credits("u2", 1)
        with pytest.raises(InsufficientCreditsError):
            manager.deduct("u2", 2)
        assert manager.deduct("u1", 15).balance_after == -5


def test_a_lease_keeps_the_floor_that_it_was_admitted_under() -> None:
    """Its settle and extend go as low as its reserve could, whatever became of the plan."""
    with manager_of({"per_operation": {"agent": {"billing_mode": "overdraft", "overdraft_floor": -30}}}) as manager:
        lease = manager.reserve("u1", 20, operation_type="agent")
        manager.unset_user_plan("u1")
        assert manager.extend("u1", lease.lease_id, 5).available == -15
        settled = manager.settle("u1", lease.lease_id, 45)
        assert (settled.amount, settled.shortfall, settled.balance_after) == (40, 5, -30)
        with pytest.raises(InsufficientCreditsError):
            manager.reserve("u1", 1, operation_type="agent")


def test_a_mode_that_is_none() -> None:
    """It is refused, whatever the plan says."""
    with manager_of({}) as manager:
        for call in (manager.deduct, manager.reserve, manager.can_afford):
            with pytest.raises(ConfigError, match="billing_mode"):
                call("u1", 1, billing_mode="free")
