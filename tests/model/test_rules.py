"""The model itself, by a few examples that a reader can check by hand: it judges the scripts, so it must be right."""

from typing import Any

import pytest

from ducto_redis.engine.operation import PLAIN, Bounds, CapRule, Conditions, NewGrant, Terms
from tests.model.account import DAY, Lease, Refused
from tests.model.model import Model

NOW = 1000 * DAY
HOUR = DAY // 24


def model(*, bonus: int = 0, **grants: tuple[int, int, int]) -> Model:
    """A model with an account `u`: `bonus` in its pool, and grants by name of (amount, expires in, priority)."""
    made = Model(NOW)
    if bonus:
        made.add_credits("u", NewGrant(bonus, "bonus"), "pool", "", PLAIN)
    for name, (amount, lives, priority) in grants.items():
        grant = NewGrant(amount, name, NOW + lives if lives else 0, priority)
        made.add_credits("u", grant, name, "", Conditions())
    return made


def grants_of(made: Model) -> dict[str, int]:
    return {grant.type: grant.remaining for grant in made.account("u").grants.values()}


def charge(made: Model, amount: int, key: str = "charge", **conditions: Any) -> Any:
    return made.deduct("u", amount, key, "", 0, 0, 0, Conditions(**conditions))


def hold(made: Model, amount: int, lease_id: str = "lease", *, lives: int = HOUR, on_expiry: str = "release") -> Any:
    known = made.account("u").plan
    conditions = Conditions(plan=known.id if known else "")
    lease = Lease(amount, made.now, made.now + lives, 0, 0, on_expiry, "")
    return made.reserve("u", lease_id, lease, 0, conditions)


def plan(name: str, allowance: int, *, starts: int = NOW, lasts: int = DAY, rollover: int = 0) -> Conditions:
    return Conditions(plan=name, terms=Terms(name, 1, "UTC", allowance, rollover, Bounds(starts, starts + lasts)))


def test_spending_order() -> None:
    """Priority first, then soonest expiry, then oldest; the pool stands at 50 and never expires."""
    made = model(bonus=10, later=(10, 2 * DAY, 50), last=(10, 0, 60), soon=(10, DAY, 50), first=(10, 3 * DAY, 10))
    seen = []
    for step in range(5):
        charge(made, 10, f"charge {step}")
        seen.append((grants_of(made), made.account("u").pool))
    assert seen == [
        ({"later": 10, "soon": 10, "last": 10}, 10),
        ({"later": 10, "last": 10}, 10),
        ({"last": 10}, 10),
        ({"last": 10}, 0),
        ({}, 0),
    ]


def test_expiry_leaves_what_leases_rest_on() -> None:
    """Of a grant of 100, 60 of it held, 40 expire at once; of the rest a settle takes 25, and 35 expire."""
    made = model(grant=(100, HOUR, 50))
    hold(made, 60, lives=DAY)
    made.now += HOUR
    assert made.sweep()["credits_expired"] == 40
    assert made.get_balance("u", Conditions())["balance"] == 60
    made.settle("u", "lease", 25, "", 0)
    assert made.account("u").balance == 0
    assert [entry.amount for entry in made.journal if entry.operation == "expire_grant"] == [40, 35]


def test_credits_pay_debts_first() -> None:
    """A grant that comes in, or comes back, while the pool is in debt is smaller by the debt."""
    made = model(old=(30, DAY, 50))
    charge(made, 30)
    made.deduct("u", 20, "overdraft", "", -20, 0, 0, Conditions())
    made.refund("u", made.journal[1], NOW, None, "refund", "", True)
    assert (made.account("u").balance, made.account("u").pool, grants_of(made)) == (10, 0, {"old": 10})


@pytest.mark.parametrize(("expired_to_balance", "back"), [(True, 60), (False, 40)])
def test_refund_gives_back_in_reverse(expired_to_balance: bool, back: int) -> None:
    """The pool's part comes first, then the grants that paid last, then the allowance."""
    made = model(bonus=20, late=(20, DAY, 60), soon=(20, HOUR, 10))
    made.set_plan("u", "p", "", "plan", "", plan("p", 15))
    charge(made, 75, plan="p")
    charged = made.journal[-1]
    made.now += HOUR
    first = made.refund("u", charged, NOW, 30, "first", "", expired_to_balance)
    assert (first["balance"], grants_of(made), first["allowance_restored"]) == (30, {"late": 10}, 0)
    rest = made.refund("u", charged, NOW, None, "rest", "", expired_to_balance)
    assert (rest["balance"], grants_of(made), rest["allowance_restored"]) == (back, {"late": 20}, 15)
    assert rest["lost"] == 60 - back
    with pytest.raises(Refused, match="refund_exceeds"):
        made.refund("u", charged, NOW, 1, "more", "", expired_to_balance)


def test_allowance_is_spent_first_and_rolls_over() -> None:
    """3 of 10 are used, 4 held: 3 roll over, and 10 for each period in between, up to the limit."""
    made = model(bonus=100)
    made.set_plan("u", "p", "", "plan", "", plan("p", 10))
    charge(made, 3, plan="p")
    hold(made, 4, lives=9 * DAY)
    made.now += 3 * DAY
    charge(made, 0, "asks", **vars_of(plan("p", 10, starts=made.now, rollover=18)))
    period = made.account("u").period
    assert period is not None
    assert (period.limit, period.rolled, period.used, period.held) == (10, 18, 0, 0)
    made.settle("u", "lease", 6, "", 0)
    assert (period.used, made.account("u").balance) == (0, 98), "4 of the period that is over, 2 of the balance"


def test_plan_change_keeps_what_was_used() -> None:
    """8 of 10 used: the larger plan leaves 12, the smaller none, and credits stay as they are."""
    made = model(bonus=100)
    made.set_plan("u", "p", "", "plan", "", plan("p", 10))
    charge(made, 8, plan="p")
    made.set_plan("u", "large", "", "large", "", plan("large", 20))
    assert made.get_balance("u", Conditions(plan="large"))["allowance"] == 12
    made.set_plan("u", "small", "", "small", "", plan("small", 5))
    seen = made.get_balance("u", Conditions(plan="small"))
    assert (seen["balance"], seen["allowance"]) == (100, 0)


def test_caps_count_what_is_held() -> None:
    """A cap of 10 with 4 used and 5 held admits 1; the lease's settle counts what it cost."""
    made = model(bonus=100)
    made.set_cap("u", CapRule("account", "total", 10), "cap", "", Conditions())
    charge(made, 4)
    hold(made, 5)
    with pytest.raises(Refused) as refused:
        charge(made, 2, "too much")
    assert refused.value.args == ("cap", 1, "account", "total", 10, 4, 5, 0, 2)
    charge(made, 1, "fits")
    made.settle("u", "lease", 2, "", 0)
    cap = made.account("u").caps[0]
    assert (cap.used, cap.held) == (7, 0)


def test_late_settle_of_what_expiry_charged() -> None:
    """What the expiry charged goes back to where it came from before the work is charged: nothing is paid twice."""
    made = model(bonus=10, grant=(20, 2 * DAY, 50))
    made.set_cap("u", CapRule("account", "total", 100), "cap", "", Conditions())
    hold(made, 25, lives=HOUR, on_expiry="charge")
    made.now += HOUR
    made.sweep()
    assert (made.account("u").balance, made.account("u").caps[0].used) == (5, 25)
    made.settle("u", "lease", 12, "", 0)
    assert (made.account("u").balance, grants_of(made), made.account("u").caps[0].used) == (18, {"grant": 8}, 12)


def vars_of(conditions: Conditions) -> dict[str, Any]:
    return {"plan": conditions.plan, "terms": conditions.terms}
