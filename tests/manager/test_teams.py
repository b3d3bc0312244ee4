"""Teams: members, who spends what, and whose account pays."""

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.errors import (
    AccountFrozenError,
    CapReachedError,
    ConfigError,
    CreditError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidIdError,
    MemberNotFoundError,
    StoreUnavailableError,
    TeamNotFoundError,
    TermsNeeded,
    UnpricedModelError,
)
from ducto_redis.results import PersonalOrTeamCharge
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01"},
    "plans": {
        "free": {"free_allowance": 10},
        "team": {"features": {"agent": True}, "rate_overrides": {"gpt-4o": "output_tokens * 0.005"}},
    },
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        manager.create_team("acme", "Acme Inc.", owner="ana", initial_credits=100)
        manager.add_team_member("acme", "bob")
        yield manager


def spent(credits: CreditManager, team: str = "acme") -> dict[str, Decimal]:
    shown = credits.get_team(team)
    return {member.user: member.spent for member in (*shown.members, *shown.removed)}


def test_a_team_is_created_and_shown(credits: CreditManager, clock: Clock) -> None:
    """A team has a name, a pool, and members with roles, in the order in which they joined."""
    clock.move(seconds=1)
    credits.add_team_member("acme", "aaron", "admin")
    team = credits.get_team("acme")
    assert (team.team, team.name, team.balance, team.held, team.available) == ("acme", "Acme Inc.", 100, 0, 100)
    assert [(member.user, member.role, member.spent) for member in team.members] == [
        ("ana", "owner", 0),
        ("bob", "member", 0),
        ("aaron", "admin", 0),
    ]
    assert team.members[2].joined_at == clock.time
    assert team.removed == ()


def test_a_team_without_anything(credits: CreditManager) -> None:
    """The id is the name where none is given; there may be no member and no credits yet."""
    team = credits.create_team("solo")
    assert (team.name, team.members, team.balance) == ("solo", (), 0)


def test_a_user_becomes_a_team(credits: CreditManager) -> None:
    """Credits that the account has stay its own."""
    credits.add_credits("u1", 7)
    assert credits.create_team("u1", initial_credits=3).balance == 10


def test_a_team_twice(credits: CreditManager) -> None:
    """What is a team already cannot be created again, but for a repeated call with its key."""
    with pytest.raises(ConfigError, match="acme"):
        credits.create_team("acme")
    first = credits.create_team("beta", "Beta", owner="ana", initial_credits=5, idempotency_key="k")
    assert credits.create_team("beta", "Beta", owner="ana", initial_credits=5, idempotency_key="k") == first
    with pytest.raises(IdempotencyConflictError):
        credits.create_team("beta", "Gamma", owner="ana", initial_credits=5, idempotency_key="k")


def test_a_team_gets_no_bonus(credits: CreditManager) -> None:
    """Bonus and default plan of new accounts are for users: a team begins with what it is given."""
    credits.publish_pricing({**DOCUMENT, "signup_bonus": 50, "default_plan": "free"})
    assert credits.create_team("beta", owner="ana", initial_credits=5).balance == 5
    assert credits.get_user_plan("beta") is None
    assert credits.get_balance("u1").balance == 50


def test_members_spend_the_pool(credits: CreditManager) -> None:
    """What a member spends comes from the team's pool and is counted as theirs; their own account is not asked."""
    credits.add_credits("bob", 5)
    charged = credits.deduct_team("acme", "bob", 30)
    assert (charged.account, charged.amount, charged.balance_after) == ("acme", 30, 70)
    credits.deduct_team("acme", "ana", UsageMetrics(model="gpt-4o", output_tokens=200))
    assert spent(credits) == {"ana": 2, "bob": 30}
    assert credits.get_balance("bob").balance == 5


def test_members_hold_leases(credits: CreditManager) -> None:
    """A member's lease counts as spent by them once it is settled, with what it cost."""
    lease = credits.reserve("acme", 20, member="bob")
    assert spent(credits) == {"ana": 0, "bob": 0}
    assert credits.get_team("acme").available == 80
    credits.settle("acme", lease.lease_id, 12)
    assert spent(credits) == {"ana": 0, "bob": 12}


def test_who_is_no_member_spends_nothing(credits: CreditManager) -> None:
    """Neither a stranger nor the member of something that is no team is admitted, and nothing changes."""
    for call in (
        lambda: credits.deduct_team("acme", "zoe", 1),
        lambda: credits.reserve("acme", 1, member="zoe"),
        lambda: credits.deduct("acme", 1, member="zoe"),
    ):
        with pytest.raises(MemberNotFoundError) as refused:
            call()
        assert (refused.value.team, refused.value.member) == ("acme", "zoe")
        assert refused.value.members == ("ana", "bob")
        assert "'ana', 'bob'" in str(refused.value)
    credits.add_credits("u1", 5)
    for team, exists in (("u1", True), ("nobody", False)):
        for call in (
            lambda team=team: credits.deduct_team(team, "bob", 1),
            lambda team=team: credits.deduct(team, 1, member="bob"),
            lambda team=team: credits.reserve(team, 1, member="bob"),
            lambda team=team: credits.deduct_personal_then_team("bob", team, 1),
            lambda team=team: credits.get_team(team),
            lambda team=team: credits.add_team_member(team, "bob"),
            lambda team=team: credits.set_team_role(team, "bob", "admin"),
            lambda team=team: credits.remove_team_member(team, "bob"),
            lambda team=team: credits.set_spend_cap(team, 1, "day", member="bob"),
        ):
            with pytest.raises(TeamNotFoundError) as no_team:
                call()
            assert (no_team.value.team, no_team.value.exists) == (team, exists)
        assert not credits.can_afford(team, 1, member="bob")
    assert [credits.get_balance(account).seq for account in ("u1", "nobody", "bob")] == [1, 0, 0]
    assert (credits.get_team("acme").balance, credits.get_balance("u1").balance) == (100, 5)


def test_a_removed_member(credits: CreditManager) -> None:
    """Leases that a removed member holds settle; nothing new of theirs is admitted; what they spent stays known."""
    lease, other = credits.reserve("acme", 20, member="bob"), credits.reserve("acme", 5, member="bob")
    credits.remove_team_member("acme", "bob")
    for call in (
        lambda: credits.deduct_team("acme", "bob", 1),
        lambda: credits.reserve("acme", 1, member="bob"),
        lambda: credits.extend("acme", other.lease_id, 1),
    ):
        with pytest.raises(MemberNotFoundError):
            call()
    assert credits.settle("acme", lease.lease_id, 25).amount == 25
    credits.release("acme", other.lease_id)
    team = credits.get_team("acme")
    assert [member.user for member in team.members] == ["ana"]
    assert [(member.user, member.role, member.spent) for member in team.removed] == [("bob", "removed", 25)]
    with pytest.raises(MemberNotFoundError):
        credits.remove_team_member("acme", "bob")
    credits.add_team_member("acme", "bob")
    credits.deduct_team("acme", "bob", 1)
    assert spent(credits)["bob"] == 26


def test_a_lease_of_a_removed_member_holds_their_cap(credits: CreditManager) -> None:
    """A cap goes on counting what was begun: who comes back finds it spent."""
    credits.set_spend_cap("acme", 20, "month", member="bob")
    lease = credits.reserve("acme", 15, member="bob")
    credits.remove_team_member("acme", "bob")
    credits.settle("acme", lease.lease_id, 15)
    credits.add_team_member("acme", "bob")
    with pytest.raises(CapReachedError):
        credits.deduct_team("acme", "bob", 6)


def test_a_monthly_cap_with_the_member(credits: CreditManager) -> None:
    """`spend_cap` is a monthly cap of the member; adding them again without one leaves it."""
    member = credits.add_team_member("acme", "carl", spend_cap=10)
    (cap,) = member.caps
    assert (cap.scope, cap.window, cap.limit, cap.action) == ("member/carl", "month", 10, "deny")
    credits.deduct_team("acme", "carl", 10)
    with pytest.raises(CapReachedError):
        credits.deduct_team("acme", "carl", 1)
    (cap,) = credits.add_team_member("acme", "carl", "admin").caps
    assert (cap.limit, cap.used) == (10, 10)
    credits.add_team_member("acme", "carl", "admin", 12)
    credits.deduct_team("acme", "carl", 2)


def test_roles(credits: CreditManager) -> None:
    """A role can be changed; the last owner stays one."""
    assert credits.set_team_role("acme", "bob", "admin").role == "admin"
    with pytest.raises(ConfigError, match="owner"):
        credits.set_team_role("acme", "ana", "member")
    with pytest.raises(ConfigError, match="owner"):
        credits.remove_team_member("acme", "ana")
    credits.set_team_role("acme", "bob", "owner")
    credits.remove_team_member("acme", "ana")
    assert [(member.user, member.role) for member in credits.get_team("acme").members] == [("bob", "owner")]


def test_who_was_removed_is_told_apart(credits: CreditManager) -> None:
    """From somebody who never was a member, also where the work was begun before."""
    lease = credits.reserve("acme", 10, member="bob")
    credits.remove_team_member("acme", "bob")
    for call in (
        lambda: credits.deduct_team("acme", "bob", 1),
        lambda: credits.set_team_role("acme", "bob", "admin"),
        lambda: credits.remove_team_member("acme", "bob"),
    ):
        with pytest.raises(MemberNotFoundError, match="was removed") as refused:
            call()
        assert (refused.value.removed, refused.value.members) == (True, ("ana",))
    credits.settle("acme", lease.lease_id, 10)


def test_a_large_team_is_not_listed_whole(credits: CreditManager) -> None:
    """The message names ten members and the closest; the error has all of them."""
    for number in range(30):
        credits.add_team_member("acme", f"user-{number}")
    with pytest.raises(MemberNotFoundError, match="and 22 more; did you mean 'user-29'") as refused:
        credits.deduct_team("acme", "user-299", 1)
    assert refused.value.members is not None
    assert len(refused.value.members) == 32


def test_a_refusal_stands_though_nobody_can_say_more(credits: CreditManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine goes away between the refusal and the question who the members are."""

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("gone")

    credits.load_pricing()
    monkeypatch.setattr(credits.store, "describe", away)
    with pytest.raises(MemberNotFoundError, match="get_team") as refused:
        credits.deduct_team("acme", "zoe", 1)
    assert refused.value.members is None


def test_wrong_names(credits: CreditManager) -> None:
    """Unknown teams, members and roles are named; nothing is changed by asking."""
    seq = credits.get_balance("acme").seq
    with pytest.raises(TeamNotFoundError):
        credits.get_team("beta")
    with pytest.raises(TeamNotFoundError):
        credits.add_team_member("beta", "bob")
    with pytest.raises(TeamNotFoundError):
        credits.remove_team_member("beta", "bob")
    with pytest.raises(MemberNotFoundError):
        credits.set_team_role("acme", "zoe", "admin")
    with pytest.raises(ConfigError, match=r"'owner'.*'member'"):
        credits.add_team_member("acme", "zoe", "boss")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        credits.set_team_role("acme", "bob", "removed")  # type: ignore[arg-type]
    with pytest.raises(InvalidIdError):
        credits.add_team_member("acme", "")
    with pytest.raises(InvalidAmountError):
        credits.add_team_member("acme", "zoe", spend_cap=-1)
    assert credits.get_balance("acme").seq == seq
    assert credits.get_balance("beta").seq == 0


def test_a_refund_lowers_what_a_member_spent(credits: CreditManager) -> None:
    """What is given back was not spent."""
    charged = credits.deduct_team("acme", "bob", 30)
    credits.refund_credits(charged.transaction_id, 10)
    assert (spent(credits)["bob"], credits.get_team("acme").balance) == (20, 80)


def test_the_teams_prices(credits: CreditManager) -> None:
    """A member pays by the rates of the team's plan, and has its features."""
    credits.set_user_plan("acme", "team")
    usage = UsageMetrics(model="gpt-4o", output_tokens=1000)
    assert credits.deduct_team("acme", "bob", usage, required_feature="agent").amount == 5


def test_a_key_of_a_team(credits: CreditManager) -> None:
    """The same key charges once; the same key of another member conflicts."""
    first = credits.deduct_team("acme", "bob", 5, idempotency_key="k")
    assert credits.deduct_team("acme", "bob", 5, idempotency_key="k").transaction_id == first.transaction_id
    with pytest.raises(IdempotencyConflictError):
        credits.deduct_team("acme", "ana", 5, idempotency_key="k")


class TestPersonalThenTeam:
    """`deduct_personal_then_team`."""

    @staticmethod
    def pay(credits: CreditManager, amount: Any = 10, **options: Any) -> PersonalOrTeamCharge:
        return credits.deduct_personal_then_team("bob", "acme", amount, **options)

    @staticmethod
    def balances(credits: CreditManager) -> tuple[Decimal, Decimal]:
        return credits.get_balance("bob").balance, credits.get_balance("acme").balance

    def test_personal_first(self, credits: CreditManager) -> None:
        """Who can pay from the own account does, and the team is not asked."""
        credits.add_credits("bob", 15)
        paid = self.pay(credits)
        assert (paid.paid_by, paid.account, paid.charge.amount) == ("personal", "bob", 10)
        assert self.balances(credits) == (5, 100)

    def test_the_team_pays_all_of_it(self, credits: CreditManager) -> None:
        """Where the own account lacks a part, the team pays the whole."""
        credits.add_credits("bob", 5)
        paid = self.pay(credits)
        assert (paid.paid_by, paid.account, paid.charge.amount) == ("team", "acme", 10)
        assert self.balances(credits) == (5, 90)
        assert spent(credits)["bob"] == 10

    def test_a_personal_cap_leads_to_the_team(self, credits: CreditManager) -> None:
        """An own cap that is reached, or a feature that only the team has, makes the team pay."""
        credits.add_credits("bob", 100)
        credits.set_spend_cap("bob", 5, "day")
        assert self.pay(credits).paid_by == "team"
        credits.remove_spend_cap("bob", window="day")
        credits.set_user_plan("acme", "team")
        assert self.pay(credits, required_feature="agent").paid_by == "team"
        assert self.pay(credits).paid_by == "personal"

    def test_allowance_is_personal(self, credits: CreditManager) -> None:
        """The own plan's allowance counts as the own account's."""
        credits.set_user_plan("bob", "free")
        paid = self.pay(credits)
        assert (paid.paid_by, paid.charge.allowance_consumed) == ("personal", 10)

    def test_neither_can_pay(self, credits: CreditManager) -> None:
        """Then the team's refusal is raised, nobody pays, and the key is free for another try."""
        with pytest.raises(InsufficientCreditsError) as refused:
            self.pay(credits, 500, idempotency_key="k")
        assert refused.value.account == "acme"
        assert (credits.get_balance("bob").seq, self.balances(credits)) == (0, (0, 100))
        credits.add_credits("bob", 500)
        assert self.pay(credits, 500, idempotency_key="k").paid_by == "personal"

    def test_the_members_cap_in_the_team(self, credits: CreditManager) -> None:
        """The team's caps refuse as they always do."""
        credits.set_spend_cap("acme", 5, "day", member="bob")
        with pytest.raises(CapReachedError) as refused:
            self.pay(credits)
        assert refused.value.scope == "member/bob"

    def test_who_pays_is_decided_once(self, credits: CreditManager) -> None:
        """The same key gives the same answer, though the own account could pay by then."""
        first = self.pay(credits, idempotency_key="k")
        credits.add_credits("bob", 100)
        again = self.pay(credits, idempotency_key="k")
        assert (again.paid_by, again.charge.transaction_id) == ("team", first.charge.transaction_id)
        assert again.charge.replayed
        assert self.balances(credits) == (100, 90)

    def test_personal_stays_personal(self, credits: CreditManager) -> None:
        """A key that the own account was charged under never reaches the team, though the account is empty by then."""
        credits.add_credits("bob", 10)
        self.pay(credits, idempotency_key="k")
        again = self.pay(credits, idempotency_key="k")
        assert (again.paid_by, again.charge.replayed) == ("personal", True)
        assert self.balances(credits) == (0, 100)

    @pytest.mark.parametrize("payer", ["personal", "team"])
    def test_another_request_conflicts(self, payer: str, credits: CreditManager) -> None:
        """The same key for another amount, or another team, is a conflict, whoever paid."""
        if payer == "personal":
            credits.add_credits("bob", 100)
        assert self.pay(credits, idempotency_key="k").paid_by == payer
        with pytest.raises(IdempotencyConflictError):
            self.pay(credits, 11, idempotency_key="k")
        if payer == "team":
            credits.create_team("beta", initial_credits=100)
            credits.add_team_member("beta", "bob")
            with pytest.raises(IdempotencyConflictError):
                credits.deduct_personal_then_team("bob", "beta", 10, idempotency_key="k")
            assert credits.get_team("beta").balance == 100

    CALLS = 4
    """What it takes where the team pays: the own charge, the team's in a trial, the decision, the charge."""

    @pytest.mark.parametrize("calls_before", range(CALLS + 1))
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("keyed", [False, True])
    def test_a_call_that_dies_half_way(
        self, calls_before: int, after: bool, keyed: bool, credits: CreditManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wherever the connection breaks, the same call again makes exactly one charge: that which was decided on.

        In between the own account gets credits, so that a repetition that asked it anew would be charged there.
        """
        store, calls = credits.store, 0
        run = store.run  # type: ignore[attr-defined]

        async def breaking(operation: Any) -> Any:
            nonlocal calls
            if operation.script.name == "signal":  # tells others of the refusal; nobody waits for it
                return await run(operation)
            calls += 1
            if calls - 1 == calls_before:
                if after:
                    with suppress(CreditError):
                        await run(operation)
                raise StoreUnavailableError("the connection broke")
            return await run(operation)

        credits.load_pricing()
        with monkeypatch.context() as broken:
            broken.setattr(store, "run", breaking)
            key = "k" if keyed else None
            if calls_before >= self.CALLS:
                assert self.pay(credits, idempotency_key=key).paid_by == "team"
                assert calls == self.CALLS
                return
            with pytest.raises(StoreUnavailableError) as raised:
                self.pay(credits, idempotency_key=key)
        repeat_with = raised.value.operation_key
        assert repeat_with is not None
        assert not keyed or repeat_with == "k"
        decided = credits.get_balance("bob").seq > 0
        credits.add_credits("bob", 50)
        paid = self.pay(credits, idempotency_key=repeat_with)
        assert paid.paid_by == ("team" if decided else "personal")
        assert self.balances(credits) == ((50, 90) if decided else (40, 100))

    def test_a_frozen_user(self, credits: CreditManager) -> None:
        """Who is frozen spends nothing by this call, of neither account."""
        credits.freeze("bob", actor="ops", reason="abuse")
        with pytest.raises(AccountFrozenError):
            self.pay(credits)
        assert self.balances(credits) == (0, 100)

    def test_other_refusals(self, credits: CreditManager) -> None:
        """Unknown teams and members, and models without a price, are what they always are."""
        errors: list[tuple[type[CreditError], str, str, Any]] = [
            (TeamNotFoundError, "bob", "nobody", 10),
            (MemberNotFoundError, "zoe", "acme", 10),
            (UnpricedModelError, "bob", "acme", UsageMetrics(model="unknown")),
            (ConfigError, "acme", "acme", 10),
        ]
        for error, user, team, usage in errors:
            with pytest.raises(error):
                credits.deduct_personal_then_team(user, team, usage)
        assert self.balances(credits) == (0, 100)

    def test_the_decision_is_journalled(self, credits: CreditManager) -> None:
        """The own account's history says that the team paid, and its balance is as it was."""
        credits.add_credits("bob", 3)
        self.pay(credits)
        balance = credits.get_balance("bob")
        assert (balance.balance, balance.seq) == (3, 2)


async def test_event_loops(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """Teams over a real server, from two processes."""
    await manager.create_team("acme", owner="ana", initial_credits=10)
    await other.add_team_member("acme", "bob", spend_cap=6)
    assert (await manager.deduct_personal_then_team("bob", "acme", 5)).paid_by == "team"
    with pytest.raises(CapReachedError):
        await other.deduct_team("acme", "bob", 2)
    await manager.remove_team_member("acme", "bob")
    with pytest.raises(MemberNotFoundError):
        await other.deduct_team("acme", "bob", 1)
    assert [(member.user, member.spent) for member in (await other.get_team("acme")).removed] == [("bob", 5)]


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls_before", range(3))
def test_steps_that_break_off(
    calls_before: int, after: bool, keyed: bool, credits: CreditManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team that lacks its credits, or a member without their cap, gets them when the call is repeated."""
    run = credits.store.run  # type: ignore[attr-defined]

    def whole(idempotency_key: str | None) -> tuple[Decimal, int]:
        team = credits.create_team("beta", owner="ana", initial_credits=5, idempotency_key=idempotency_key)
        return team.balance, len(team.members)

    def member(idempotency_key: str | None) -> tuple[Decimal, int]:
        added = credits.add_team_member("beta", "zoe", "admin", 9, idempotency_key=idempotency_key)
        return added.caps[0].limit, len(added.caps)

    for call, expected in ((whole, (5, 1)), (member, (9, 1))):
        calls = 0

        async def breaking(operation: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == calls_before:
                if after:
                    with suppress(CreditError, TermsNeeded):
                        await run(operation)
                raise StoreUnavailableError("the connection broke")
            return await run(operation)

        credits.load_pricing()
        with monkeypatch.context() as broken:
            broken.setattr(credits.store, "run", breaking)
            with pytest.raises(StoreUnavailableError) as raised:
                call(call.__name__ if keyed else None)
        assert raised.value.operation_key is not None
        assert call(raised.value.operation_key) == expected
