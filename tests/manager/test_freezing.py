"""Frozen accounts."""

from collections.abc import Callable, Iterator

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.errors import AccountFrozenError, IdempotencyConflictError, InvalidIdError
from ducto_redis.testing import read_journal
from tests.manager.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        manager.add_credits("u1", 100)
        yield manager


def test_a_frozen_account_spends_nothing_new(credits: CreditManager) -> None:
    """Reserve, deduct and extend are refused with who froze it and why, and nothing changes."""
    lease = credits.reserve("u1", 10)
    credits.freeze("u1", actor="ana", reason="card was stolen")
    seq = credits.get_balance("u1").seq
    calls: list[Callable[[], object]] = [
        lambda: credits.deduct("u1", 1),
        lambda: credits.reserve("u1", 1),
        lambda: credits.extend("u1", lease.lease_id, 1),
    ]
    for call in calls:
        with pytest.raises(AccountFrozenError, match="card was stolen") as refused:
            call()
        assert (refused.value.account, refused.value.reason) == ("u1", "ana: card was stolen")
    assert credits.get_balance("u1").seq == seq
    assert credits.describe("u1").frozen == "ana: card was stolen"
    assert not credits.can_afford("u1", 1)


def test_what_runs_goes_on(credits: CreditManager, clock: Clock) -> None:
    """Settle, release, renew, expiry, and credits that come in are not refused."""
    settles, releases, expires = (credits.reserve("u1", 10, ttl=60) for _ in range(3))
    charged = credits.deduct("u1", 20)
    credits.freeze("u1", actor="ana", reason="x")
    assert credits.settle("u1", settles.lease_id, 15).amount == 15
    credits.release("u1", releases.lease_id)
    credits.renew("u1", expires.lease_id, ttl=61)
    clock.move(seconds=62)
    assert credits.get_balance("u1").held == 0
    credits.add_credits("u1", 5)
    credits.refund_credits(charged.transaction_id)
    credits.adjust_credits("u1", -1, actor="ana", reason="x")
    assert credits.settle("u1", expires.lease_id, 2).late
    assert credits.get_balance("u1").balance == 87


def test_unfreezing(credits: CreditManager) -> None:
    """An account that is let go spends as before."""
    credits.freeze("u1", actor="ana", reason="x")
    credits.unfreeze("u1", actor="bob", reason="new card")
    assert credits.deduct("u1", 1).balance_after == 99
    assert credits.describe("u1").frozen == ""


def test_doing_it_twice(credits: CreditManager) -> None:
    """What is frozen stays frozen for its first reason; what is not frozen cannot be let go: nothing is written."""
    assert credits.unfreeze("u1", actor="ana", reason="x").replayed
    assert not credits.freeze("u1", actor="ana", reason="first").replayed
    seq = credits.get_balance("u1").seq
    assert credits.freeze("u1", actor="bob", reason="second").replayed
    assert (credits.describe("u1").frozen, credits.get_balance("u1").seq) == ("ana: first", seq)


def test_a_key_freezes_once(credits: CreditManager) -> None:
    """A freeze that is repeated with its key does not undo an unfreeze that came in between."""
    first = credits.freeze("u1", actor="ana", reason="x", idempotency_key="k")
    credits.unfreeze("u1", actor="ana", reason="x")
    again = credits.freeze("u1", actor="ana", reason="x", idempotency_key="k")
    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)
    credits.deduct("u1", 1)
    with pytest.raises(IdempotencyConflictError):
        credits.freeze("u1", actor="ana", reason="y", idempotency_key="k")
    with pytest.raises(IdempotencyConflictError):
        credits.unfreeze("u1", actor="ana", reason="x", idempotency_key="k")


def test_who_and_why_are_journalled(credits: CreditManager) -> None:
    """The journal says who froze the account, who let it go, and why."""
    credits.freeze("u1", actor="ana", reason="stolen")
    credits.unfreeze("u1", actor="bob", reason="found")
    *_, froze, let_go = read_journal(credits.store, "u1")  # type: ignore[arg-type]
    causes = [(entry.operation, entry.read_cause().actor, entry.read_cause().reason) for entry in (froze, let_go)]
    assert causes == [("freeze", "ana", "stolen"), ("unfreeze", "bob", "found")]
    assert (froze.balance_change, let_go.balance_change) == (0, 0)


def test_a_frozen_team(credits: CreditManager) -> None:
    """No member spends from a frozen team."""
    credits.create_team("acme", owner="ana", initial_credits=10)
    credits.freeze("acme", actor="ops", reason="unpaid")
    with pytest.raises(AccountFrozenError):
        credits.deduct_team("acme", "ana", 1)


@pytest.mark.parametrize(("actor", "reason"), [("", "x"), ("ana", ""), ("ana", "a\tb"), ("ana", "x" * 513)])
def test_who_and_why_are_required(actor: str, reason: str, credits: CreditManager) -> None:
    """Nobody freezes anything without a name and a reason of one line."""
    for call in (credits.freeze, credits.unfreeze):
        with pytest.raises(InvalidIdError):
            call("u1", actor=actor, reason=reason)
    assert credits.describe("u1").frozen == ""


async def test_event_loops(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """What one process freezes another one refuses at once."""
    await other.add_credits("u1", 10)
    await other.deduct("u1", 1)
    await manager.freeze("u1", actor="ana", reason="x")
    with pytest.raises(AccountFrozenError):
        await other.deduct("u1", 1)
    await other.unfreeze("u1", actor="ana", reason="x")
    await manager.deduct("u1", 1)
