"""Refunds and adjustments, as a user of the manager sees them."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import (
    CapReachedError,
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    InvalidIdError,
    InvalidMetadataError,
    RefundError,
    TransactionNotFoundError,
)
from ducto_redis.testing import read_journal
from tests.manager.clock import Clock

DOCUMENT = {
    "models": {"gpt-4o": "output_tokens * 0.01"},
    "plans": {"free": {"free_allowance": 100}, "daily": {"free_allowance": 100, "period": "day"}},
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credits(clock: Clock) -> Iterator[CreditManager]:
    with CreditManager(clock.store) as manager:
        manager.publish_pricing(DOCUMENT)
        yield manager


def remaining(credits: CreditManager, account: str = "u1") -> dict[str, Decimal]:
    """What is left of each grant, by its type; the pool is ""."""
    grants = credits.list_grants(account)
    return {grant.type if grant.number else "": grant.remaining for grant in grants if grant.remaining}


def last_entry(credits: CreditManager, account: str = "u1") -> JournalEntry:
    return read_journal(credits.store, account)[-1]  # type: ignore[arg-type]


def test_a_whole_charge(credits: CreditManager) -> None:
    """Without an amount all of the charge comes back, and the result says what became of it."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    refund = credits.refund_credits(charged.transaction_id)
    assert (refund.account, refund.refund_of) == ("u1", charged.transaction_id)
    assert (refund.amount, refund.refunded, refund.balance_after, refund.available) == (4, 4, 10, 10)
    assert (refund.allowance_restored, refund.lost, refund.replayed) == (0, 0, False)


def test_parts_add_up_to_the_charge(credits: CreditManager) -> None:
    """Refunds of parts never pass the charge together, and a refusal changes nothing."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    assert credits.refund_credits(charged.transaction_id, 1).refunded == 1
    assert credits.refund_credits(charged.transaction_id, "2.5").refunded == Decimal("3.5")
    seq = credits.get_balance("u1").seq
    with pytest.raises(RefundError):
        credits.refund_credits(charged.transaction_id, "0.500001")
    assert credits.get_balance("u1").seq == seq
    assert credits.refund_credits(charged.transaction_id).amount == Decimal("0.5")
    for amount in (None, "0.000001"):
        with pytest.raises(RefundError):
            credits.refund_credits(charged.transaction_id, amount)
    assert credits.get_balance("u1").balance == 10


def test_more_than_was_charged(credits: CreditManager) -> None:
    """A refund larger than its charge is refused."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    with pytest.raises(RefundError):
        credits.refund_credits(charged.transaction_id, 5)
    assert credits.get_balance("u1").balance == 6


def test_a_settle_is_refundable(credits: CreditManager) -> None:
    """What a settle charged comes back; its shortfall was never paid and does not."""
    credits.add_credits("u1", 10)
    lease = credits.reserve("u1", 6)
    settled = credits.settle("u1", lease.lease_id, 25)
    assert (settled.amount, settled.shortfall) == (10, 15)
    with pytest.raises(RefundError):
        credits.refund_credits(settled.transaction_id, 11)
    assert credits.refund_credits(settled.transaction_id).balance_after == 10


def test_a_key_refunds_once(credits: CreditManager) -> None:
    """The same key gives the first answer again; with another amount it conflicts."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    first = credits.refund_credits(charged.transaction_id, 1, idempotency_key="k")
    again = credits.refund_credits(charged.transaction_id, 1, idempotency_key="k")
    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)
    assert (again.amount, again.refunded, again.refund_of) == (1, 1, charged.transaction_id)
    with pytest.raises(IdempotencyConflictError):
        credits.refund_credits(charged.transaction_id, 2, idempotency_key="k")
    with pytest.raises(IdempotencyConflictError):
        credits.refund_credits(charged.transaction_id, 1, to_expired="nowhere", idempotency_key="k")
    assert credits.get_balance("u1").balance == 7


def test_back_to_the_allowance(credits: CreditManager) -> None:
    """The part that the allowance paid goes back there while its period runs, after what the balance paid."""
    credits.add_credits("u1", 50)
    credits.set_user_plan("u1", "free")
    charged = credits.deduct("u1", 120)
    first = credits.refund_credits(charged.transaction_id, 30)
    assert (first.allowance_restored, first.balance_after) == (10, 50)
    assert credits.check_allowance("u1").remaining == 10
    rest = credits.refund_credits(charged.transaction_id)
    assert (rest.amount, rest.allowance_restored, rest.lost) == (90, 90, 0)
    assert credits.check_allowance("u1").remaining == 100


def test_an_allowance_of_a_period_that_is_over(credits: CreditManager, clock: Clock) -> None:
    """What yesterday's allowance paid is lost to today's, and the refund says so."""
    credits.set_user_plan("u1", "daily")
    charged = credits.deduct("u1", 60)
    clock.move(days=1)
    credits.deduct("u1", 10)
    refund = credits.refund_credits(charged.transaction_id)
    assert (refund.amount, refund.allowance_restored, refund.lost, refund.balance_after) == (60, 0, 60, 0)
    assert credits.check_allowance("u1").remaining == 90


def test_a_lease_over_the_end_of_a_period(credits: CreditManager, clock: Clock) -> None:
    """What a lease took of yesterday's allowance is lost to a refund; what it took of today's comes back."""
    credits.set_user_plan("u1", "daily")
    lease = credits.reserve("u1", 60, ttl=2 * 24 * 3600)
    clock.move(days=1)
    credits.deduct("u1", 10)
    settled = credits.settle("u1", lease.lease_id, 60)
    assert settled.allowance_consumed == 60
    refund = credits.refund_credits(settled.transaction_id)
    assert (refund.amount, refund.allowance_restored, refund.lost) == (60, 0, 60)
    assert credits.check_allowance("u1").remaining == 90


def test_a_lease_that_its_expiry_charged(clock: Clock) -> None:
    """A late settle charges anew what the expiry had charged, and a refund gives all of that back."""
    with CreditManager(clock.store, on_lease_expiry="charge") as credits:
        credits.add_credits("u1", 10, type="bonus", expires_at=clock.time + timedelta(days=9))
        credits.add_credits("u1", 10)
        lease = credits.reserve("u1", 4, ttl=60)
        clock.move(seconds=61)
        assert credits.get_balance("u1").balance == 16
        settled = credits.settle("u1", lease.lease_id, 12)
        assert (settled.amount, settled.late, settled.balance_after) == (12, True, 8)
        assert credits.refund_credits(settled.transaction_id).balance_after == 20
        assert remaining(credits) == {"bonus": 10, "": 10}


def test_back_to_the_grants(credits: CreditManager, clock: Clock) -> None:
    """Credits go back to the grants that paid, the last one that paid first, each with its own expiry."""
    soon, late = clock.time + timedelta(days=1), clock.time + timedelta(days=2)
    credits.add_credits("u1", 10, type="soon", expires_at=soon)
    credits.add_credits("u1", 10, type="late", expires_at=late)
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 25)
    assert remaining(credits) == {"": 5}
    credits.refund_credits(charged.transaction_id, 5)
    assert remaining(credits) == {"": 10}
    credits.refund_credits(charged.transaction_id, 4)
    assert remaining(credits) == {"late": 4, "": 10}
    credits.refund_credits(charged.transaction_id)
    assert remaining(credits) == {"soon": 10, "late": 10, "": 10}
    assert [grant.expires_at for grant in credits.list_grants("u1")] == [soon, late, None]
    assert credits.get_balance("u1").balance == 30


@pytest.mark.parametrize("to_expired", [None, "balance", "nowhere"])
def test_a_grant_that_has_expired(to_expired: str | None, credits: CreditManager, clock: Clock) -> None:
    """Its part goes to the balance, or to nowhere, as the call says, or the manager; the result says what was lost."""
    credits.add_credits("u1", 10, type="bonus", expires_at=clock.time + timedelta(days=1))
    charged = credits.deduct("u1", 8)
    clock.move(days=2)
    refund = credits.refund_credits(charged.transaction_id, to_expired=to_expired)  # type: ignore[arg-type]
    lost = 8 if to_expired == "nowhere" else 0
    assert (refund.amount, refund.lost, refund.balance_after) == (8, lost, 8 - lost)
    assert remaining(credits) == ({} if lost else {"": 8})
    assert last_entry(credits).read_details().lost == lost * 1_000_000


def test_the_managers_setting(clock: Clock) -> None:
    """A manager with `refund_expired="nowhere"` gives back nothing of what has expired, unless the call says so."""
    with CreditManager(clock.store, refund_expired="nowhere") as credits:
        credits.add_credits("u1", 10, expires_at=clock.time + timedelta(days=1))
        charged = credits.deduct("u1", 8)
        clock.move(days=2)
        assert credits.refund_credits(charged.transaction_id, 3).lost == 3
        assert credits.refund_credits(charged.transaction_id, 3, to_expired="balance").balance_after == 3


def test_caps_get_their_room_back(credits: CreditManager) -> None:
    """What is refunded in its window may be spent again under the caps that counted it."""
    credits.add_credits("u1", 100)
    cap = credits.set_spend_cap("u1", 10, "month")
    credits.set_spend_cap("u1", 10, "total", model="gpt-4o")
    credits.set_spend_cap("u1", 10, "day", rolling=True)
    charged = credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=1000))
    with pytest.raises(CapReachedError):
        credits.deduct("u1", 1)
    credits.refund_credits(charged.transaction_id, 6)
    assert [cap.used for cap in credits.check_spend_cap("u1")] == [4, 4, 4]
    credits.deduct("u1", UsageMetrics(model="gpt-4o", output_tokens=600))
    credits.remove_spend_cap("u1", cap)
    credits.refund_credits(charged.transaction_id)
    assert [cap.used for cap in credits.check_spend_cap("u1")] == [6, 6]


def test_caps_of_a_window_that_is_over(credits: CreditManager, clock: Clock) -> None:
    """A refund gives today's window nothing for what was spent yesterday."""
    credits.add_credits("u1", 100)
    credits.set_spend_cap("u1", 10, "day")
    charged = credits.deduct("u1", 10)
    clock.move(days=1)
    credits.deduct("u1", 7)
    credits.refund_credits(charged.transaction_id)
    (cap,) = credits.check_spend_cap("u1")
    assert cap.used == 7


def test_a_frozen_account_is_refunded(credits: CreditManager) -> None:
    """A refund reaches a frozen account too."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    credits.freeze("u1", actor="ops", reason="abuse")
    assert credits.refund_credits(charged.transaction_id).balance_after == 10


def test_a_debt_is_paid(credits: CreditManager) -> None:
    """A refund to an account below zero brings it up by what was charged."""
    with CreditManager(credits.store, policy="overdraft", overdraft_floor=-50) as lenient:
        charged = lenient.deduct("u1", 30)
        assert charged.balance_after == -30
        assert lenient.refund_credits(charged.transaction_id, 10).balance_after == -20


def test_the_reason_is_journalled(credits: CreditManager) -> None:
    """Reason and metadata stay with the refund, which names its charge."""
    credits.add_credits("u1", 10)
    charged = credits.deduct("u1", 4)
    refund = credits.refund_credits(charged.transaction_id, reason="wrong answer", metadata={"ticket": 81})
    entry = last_entry(credits)
    assert (entry.operation, entry.transaction_id, entry.balance_change) == ("refund", refund.transaction_id, 4_000_000)
    assert (entry.read_cause().reason, entry.read_cause().metadata) == ("wrong answer", {"ticket": 81})
    assert entry.read_details().refund_of == charged.transaction_id


def test_what_is_no_charge(credits: CreditManager) -> None:
    """Only charges can be refunded: the error says what the transaction was."""
    added = credits.add_credits("u1", 10)
    with pytest.raises(RefundError, match="add_credits"):
        credits.refund_credits(added.transaction_id)
    lease = credits.reserve("u1", 3)
    with pytest.raises(RefundError, match="reserve"):
        credits.refund_credits(lease.transaction_id)
    refund = credits.refund_credits(credits.deduct("u1", 1).transaction_id)
    with pytest.raises(RefundError, match="refund itself"):
        credits.refund_credits(refund.transaction_id)
    free = credits.settle("u1", lease.lease_id, 0)
    with pytest.raises(RefundError):
        credits.refund_credits(free.transaction_id)


def test_the_charge_of_an_expiry(clock: Clock) -> None:
    """What the expiry of a lease charged is given back by settling or releasing the lease, not by a refund."""
    with CreditManager(clock.store, on_lease_expiry="charge") as credits:
        credits.add_credits("u1", 10)
        lease = credits.reserve("u1", 4, ttl=60)
        clock.move(seconds=61)
        credits.sweep_expired_credits()
        entry = last_entry(credits)
        assert entry.operation == "expire"
        with pytest.raises(RefundError, match="settled or released"):
            credits.refund_credits(entry.transaction_id)
        assert credits.release("u1", lease.lease_id).balance_after == 10


@pytest.mark.parametrize("transaction", ["0-1-1700000000000-0", "15-1-1-1", "16-1-1700000000000-0", "99999-9-9-9"])
def test_an_unknown_transaction(transaction: str, credits: CreditManager) -> None:
    """A transaction that never was is told apart from an id that is none."""
    with pytest.raises(TransactionNotFoundError, match=transaction):
        credits.refund_credits(transaction)


@pytest.mark.parametrize(
    "transaction",
    ["", "x", "1-2-3", "1-1-1700000000000-0-1", "-1-1-1-1", "1-1-1-\u0661", " 1-1-1-1", None, 7, b"1-1-1-1"],
)
def test_what_is_no_transaction_id(transaction: object, credits: CreditManager) -> None:
    """What cannot be a transaction id is refused with what one looks like."""
    with pytest.raises(RefundError, match="3-1-1700000000000-0"):
        credits.refund_credits(transaction)  # type: ignore[arg-type]


def test_another_epoch(credits: CreditManager) -> None:
    """An entry of another epoch is another transaction, though all else is the same."""
    credits.add_credits("u1", 10)
    partition, epoch, entry_id = credits.deduct("u1", 1).transaction_id.split("-", 2)
    with pytest.raises(TransactionNotFoundError):
        credits.refund_credits(f"{partition}-{int(epoch) + 1}-{entry_id}")


def test_wrong_arguments(credits: CreditManager) -> None:
    """Amounts, settings, reasons and metadata that are none are refused before anything happens."""
    credits.add_credits("u1", 10)
    transaction = credits.deduct("u1", 4).transaction_id
    for amount in (0, -1, 0.5, "x"):
        with pytest.raises(InvalidAmountError):
            credits.refund_credits(transaction, amount)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nowhere"):
        credits.refund_credits(transaction, to_expired="pool")  # type: ignore[arg-type]
    with pytest.raises(InvalidIdError):
        credits.refund_credits(transaction, reason="x" * 513)
    with pytest.raises(InvalidMetadataError):
        credits.refund_credits(transaction, metadata={"x": "y" * 2000})
    assert credits.get_balance("u1").balance == 6


class TestAdjustments:
    """`adjust_credits`."""

    def test_up_and_down(self, credits: CreditManager) -> None:
        """Credits above zero are added, below zero taken; who and why are journalled."""
        up = credits.adjust_credits("u1", 10, actor="ana", reason="goodwill, ticket 81")
        assert (up.amount, up.balance_after) == (10, 10)
        entry = last_entry(credits)
        cause = entry.read_cause()
        assert (entry.operation, cause.actor, cause.reason) == ("adjust_credits", "ana", "goodwill, ticket 81")
        down = credits.adjust_credits("u1", "-2.5", actor="ana", reason="typo", metadata={"ticket": 81})
        assert (down.amount, down.balance_after) == (Decimal("-2.5"), Decimal("7.5"))
        assert last_entry(credits).read_cause().metadata == {"ticket": 81}

    def test_only_what_is_available(self, credits: CreditManager) -> None:
        """What leases hold is taken by force only; so is what is not there."""
        credits.add_credits("u1", 10)
        lease = credits.reserve("u1", 6)
        with pytest.raises(InsufficientCreditsError) as refused:
            credits.adjust_credits("u1", -5, actor="ana", reason="x")
        assert (refused.value.needed, refused.value.available) == (5, 4)
        assert credits.adjust_credits("u1", -4, actor="ana", reason="x").available == 0
        assert credits.adjust_credits("u1", -20, actor="ana", reason="x", force=True).balance_after == -14
        assert credits.settle("u1", lease.lease_id, 6).amount == 6

    def test_it_takes_in_spending_order(self, credits: CreditManager, clock: Clock) -> None:
        """A correction downwards takes from what would have been spent next."""
        credits.add_credits("u1", 10, type="bonus", expires_at=clock.time + timedelta(days=1))
        credits.add_credits("u1", 10)
        credits.adjust_credits("u1", -12, actor="ana", reason="x")
        assert remaining(credits) == {"": 8}

    def test_a_key_adjusts_once(self, credits: CreditManager) -> None:
        """The same key adjusts once; another actor, amount or reason conflicts."""
        first = credits.adjust_credits("u1", 5, actor="ana", reason="x", idempotency_key="k")
        again = credits.adjust_credits("u1", 5, actor="ana", reason="x", idempotency_key="k")
        assert (again.transaction_id, again.replayed, again.balance_after) == (first.transaction_id, True, 5)
        for amount, actor, reason in ((6, "ana", "x"), (5, "bob", "x"), (5, "ana", "y"), (-5, "ana", "x")):
            with pytest.raises(IdempotencyConflictError):
                credits.adjust_credits("u1", amount, actor=actor, reason=reason, idempotency_key="k")

    def test_a_frozen_account_is_adjusted(self, credits: CreditManager) -> None:
        """Corrections reach frozen accounts."""
        credits.add_credits("u1", 10)
        credits.freeze("u1", actor="ana", reason="x")
        assert credits.adjust_credits("u1", -10, actor="ana", reason="x").balance_after == 0

    @pytest.mark.parametrize("amount", [0, "0", "-0", Decimal("-0.0"), 0.5, -0.5, "x", "--5", "-", True, None, "NaN"])
    def test_wrong_amounts(self, amount: object, credits: CreditManager) -> None:
        """Nothing, floats and what is no number are no corrections."""
        with pytest.raises(InvalidAmountError):
            credits.adjust_credits("u1", amount, actor="ana", reason="x")  # type: ignore[arg-type]
        assert credits.get_balance("u1").seq == 0

    @pytest.mark.parametrize(("actor", "reason"), [("", "x"), ("ana", ""), ("ana", "x\ny"), ("a" * 129, "x")])
    def test_who_and_why_are_required(self, actor: str, reason: str, credits: CreditManager) -> None:
        """Nobody adjusts anything without a name and a reason."""
        with pytest.raises(InvalidIdError):
            credits.adjust_credits("u1", 1, actor=actor, reason=reason)
        assert credits.get_balance("u1").seq == 0


async def test_event_loops(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """What one process charged another one refunds; and both at once refund it once."""
    await manager.add_credits("u1", 10)
    charged = await manager.deduct("u1", 4)
    assert (await other.refund_credits(charged.transaction_id, 3)).refunded == 3
    with pytest.raises(RefundError):
        await manager.refund_credits(charged.transaction_id, 2)
    assert (await other.adjust_credits("u1", "-0.5", actor="ana", reason="x")).balance_after == Decimal("8.5")


class TestTrimmedJournal:
    """Charges that the journal does not hold any more."""

    @staticmethod
    def trim(credits: CreditManager, transaction_id: str) -> None:
        partition, _, entry_id = transaction_id.split("-", 2)
        client = credits.store.redis()  # type: ignore[attr-defined]
        client.xdel(credits.store.namespace.journal(int(partition)), entry_id)

    def test_read_from_the_ledger(self) -> None:
        """The ledger knows what paid for the charge as well as the journal did."""
        with CreditManager.from_url("memory://") as credits:
            credits.publish_pricing(DOCUMENT)
            credits.add_credits("u1", 10, type="first", priority=1)
            credits.add_credits("u1", 10)
            credits.set_user_plan("u1", "free")
            lease = credits.reserve("u1", 115)
            settled = credits.settle("u1", lease.lease_id, 118)
            credits.wait_for_ledger()
            self.trim(credits, settled.transaction_id)
            assert credits.refund_credits(settled.transaction_id, 8).balance_after == 10
            assert remaining(credits) == {"": 10}
            rest = credits.refund_credits(settled.transaction_id)
            assert (rest.amount, rest.allowance_restored, rest.balance_after) == (110, 100, 20)
            assert remaining(credits) == {"first": 10, "": 10}
            with pytest.raises(RefundError):
                credits.refund_credits(settled.transaction_id, 1)

    def test_what_is_no_charge(self) -> None:
        """What the ledger knows to be no charge is refused as what the journal knows."""
        with CreditManager.from_url("memory://") as credits:
            added = credits.add_credits("u1", 10)
            credits.wait_for_ledger()
            self.trim(credits, added.transaction_id)
            with pytest.raises(RefundError, match="add_credits"):
                credits.refund_credits(added.transaction_id)
            with pytest.raises(TransactionNotFoundError):
                credits.refund_credits("0-1-1700000000000-0")

    def test_without_a_ledger(self, credits: CreditManager) -> None:
        """A charge that only a ledger could know is not found without one."""
        credits.add_credits("u1", 10)
        charged = credits.deduct("u1", 4)
        self.trim(credits, charged.transaction_id)
        with pytest.raises(TransactionNotFoundError):
            credits.refund_credits(charged.transaction_id)
        assert credits.get_balance("u1").balance == 6
