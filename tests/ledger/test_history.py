"""The fold of one account's entries, and what it finds wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.ledger import Ledger, RawEntry
from ducto_redis.ledger.history import History
from ducto_redis.ledger.rows import read_parts
from ducto_redis.money import from_micro
from tests.ledger.entries import Account, Journal, lease_record


def fold(raw_entries: list[RawEntry], starts: dict[int, int] | None = None) -> History:
    history = History(starts)
    for entry_id, text in raw_entries:
        history.take(read_parts(decode_entry(0, entry_id, text)))
    history.finish()
    return history


@pytest.mark.parametrize(
    ("operation", "amount", "balance_change", "shortfall", "wrong"),
    [
        ("add_credits", 10, 10, 0, False),
        ("add_credits", 10, 11, 0, True),
        ("deduct", 10, -10, 0, False),
        ("deduct", 10, -9, 0, True),
        ("deduct", 10, -6, 4, True),
        ("settle", 10, -10, 0, False),
        ("settle", 10, -7, 3, False),
        ("settle", 10, -10, 3, True),
        ("settle", 10, 0, 0, True),
        ("release", 0, 0, 0, False),
        ("release", 0, 10, 0, True),
        ("reserve", 0, -10, 0, True),
        ("reserve", 0, 0, 4, True),
        ("renew", 0, 0, 0, False),
        ("extend", 0, -1, 0, True),
        ("expire", 0, -10, 0, True),
        ("forget", 0, 0, 0, False),
        ("forget", 1, 0, 0, True),
        ("open_account", 10, 10, 0, False),
        ("open_account", 10, 0, 0, True),
        ("adjust_credits", -10, -10, 0, False),
        ("adjust_credits", -10, 10, 0, True),
        ("expire_grant", 10, -10, 0, False),
        ("expire_grant", 10, 0, 0, True),
        ("refund", 10, 10, 0, False),
        ("refund", 10, 9, 0, True),
        ("set_plan", 0, 1, 0, True),
        ("freeze", 1, 0, 0, True),
        ("sweep", 0, 1, 0, True),
        ("something_new", 10, 3, 0, False),
    ],
)
def test_a_change_follows_from_its_amounts(
    journal: Journal, operation: str, amount: int, balance_change: int, shortfall: int, wrong: bool
) -> None:
    """What moved the balance is what the operation, its amount and its shortfall say."""
    entry = journal.entry("u1", 1, operation, amount=amount, balance_change=balance_change, shortfall=shortfall)
    assert bool(fold([entry]).problems) is wrong


def test_an_amount_is_what_the_lease_says(journal: Journal) -> None:
    """What was held, added to the hold, and given back is what the lease's record says before and after."""

    def changes(held: int, record: str) -> dict[str, str | int]:
        return {"held": held, "lease/a": record}

    operations = [
        ("reserve", 10, changes(10, lease_record(10))),
        ("extend", 5, changes(15, lease_record(15))),
        ("renew", 15, changes(15, lease_record(15))),
        ("expire", 15, changes(0, lease_record(15, state="expired"))),
        ("release", 0, changes(0, "")),
        ("reserve", 7, changes(7, lease_record(7))),
        ("release", 7, changes(0, "")),
    ]

    def problems(wrong: int | None = None) -> list[str]:
        raw = [
            journal.entry("u1", seq, operation, amount=amount + (seq == wrong), changes=its_changes)
            for seq, (operation, amount, its_changes) in enumerate(operations, 1)
        ]
        return fold(raw).problems

    assert problems() == []
    for seq, (operation, amount, _) in enumerate(operations, 1):
        assert problems(seq) == [f"epoch 1, seq {seq}: {operation} of {amount + 1}, but it must be {amount}"]


def test_later_changes_have_higher_ids(account: Account) -> None:
    """Two entries that changed places are found even where their amounts are the same."""
    first, second = account.add(5), account.add(0)
    assert fold([(second[0], first[1]), (first[0], second[1])]).problems == [
        f"epoch 1, seq 2: its id {first[0]} is not above that of the entry before"
    ]


def test_leases_add_up_to_what_is_held(journal: Journal) -> None:
    """The first place at which they do not is named."""
    raw = [
        journal.entry("u1", 1, "reserve", amount=10, changes={"held": 10, "lease/a": lease_record(10)}),
        journal.entry("u1", 2, "reserve", amount=5, changes={"held": 16, "lease/b": lease_record(5)}),
        journal.entry("u1", 3, "release", amount=10, changes={"held": 6, "lease/a": ""}),
    ]
    assert fold(raw).problems == ["epoch 1, seq 2: leases hold 15, but held is 16"]


def test_an_unreadable_lease_is_a_problem(journal: Journal) -> None:
    """A record that is none is reported, not passed over."""
    problems = fold([journal.entry("u1", 1, "reserve", changes={"held": 0, "lease/a": "open"})]).problems
    assert "lease 'a'" in problems[0]


class RolledBack:
    """100 came in, 10 and 20 were charged; then Redis was rolled back to the first charge and recovered."""

    def __init__(self) -> None:
        self.journal = Journal()
        account = Account(self.journal, "u1")
        self.before = [account.add(100), account.deduct(10, "key/a"), account.deduct(20, "key/b")]
        self.account = account
        account.epoch, account.seq, account.balance = 2, 2, 90

    def folded(self, after: list[RawEntry]) -> History:
        return fold(self.before + after, {2: 3})


def test_a_new_epoch_goes_on_from_where_redis_was() -> None:
    """What was lost is superseded; once it is journalled again under its own key, it is one change."""
    life = RolledBack()
    history = life.folded([life.account.deduct(20, "key/b"), life.account.add(5)])
    assert (history.problems, history.balance, history.state.balance) == ([], 75, 75)
    assert (history.gapped, history.forked) == (False, False)


def test_a_change_that_was_lost_is_found() -> None:
    """An entry that no later epoch repeats was lost with the rollback."""
    life = RolledBack()
    assert life.folded([life.account.add(5)]).problems == ["epoch 1, seq 3: key/b was lost when Redis was rolled back"]


def test_an_epoch_that_begins_too_late_has_a_gap() -> None:
    """Nothing is missing between two epochs either."""
    life = RolledBack()
    life.account.seq = 7
    history = fold([*life.before, life.account.add(5)], {2: 8})
    assert history.gapped


def test_a_recovery_that_takes_nothing_back(account: Account) -> None:
    """Redis was rebuilt from the ledger: the new epoch simply goes on."""
    raw = [account.add(100), account.deduct(10)]
    account.epoch = 2
    raw.append(account.deduct(1))
    history = fold(raw, {2: 3})
    assert (history.problems, history.balance) == ([], 89)


def test_the_ledger_follows_a_rollback(ledger: Ledger) -> None:
    """The stored state is that of the new epoch: what was superseded no longer counts, whatever order it came in."""
    life = RolledBack()
    lost_lease = life.journal.entry(
        "u1", 4, "reserve", "lease/x/reserve", amount=1, changes={"held": 1, "lease/x": "r"}
    )
    ledger.write("n", 0, [*life.before, lost_lease])
    ledger.write("n", 0, [life.account.deduct(20, "key/b"), life.account.add(5)])
    ledger.write("n", 0, [life.account.add(1)])
    stored = ledger.account("n", "u1")
    assert stored is not None
    assert (stored.balance, stored.held, stored.epoch, stored.seq) == (76, 0, 2, 5)
    assert (stored.state.leases, stored.marks) == ({}, ())
    assert ledger.verify().failures[0].reasons == (
        "epoch 1, seq 4: lease/x/reserve was lost when Redis was rolled back",
    )


def test_what_was_taken_back_is_not_spent(ledger: Ledger) -> None:
    """Roll-ups hold each charge once, in the epoch that leads to the balance; pages of transactions too."""
    life = RolledBack()
    analytics = ledger.analytics("n")
    ledger.write("n", 0, life.before)
    assert analytics.aggregate_stats().charged == from_micro(30)
    ledger.write("n", 0, [life.account.deduct(20, "key/b"), life.account.deduct(1)])
    assert analytics.aggregate_stats().charged == from_micro(31)
    cut = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) + timedelta(milliseconds=3)
    assert analytics.aggregate_stats(end=cut).charged == from_micro(10)
    transactions = analytics.list_user_transactions("u1").transactions
    assert [it.balance_after for it in transactions] == [from_micro(value) for value in (69, 70, 90, 100)]
    assert ledger.verify().ok


def test_a_late_entry_and_a_fork_are_rolled_up(ledger: Ledger, account: Account) -> None:
    """However entries come, roll-ups are their sum: after a gap was filled, and with both sides of a fork."""
    raw = [account.add(100), account.reserve("l", 30), account.expire("l"), account.settle("l", 12), account.deduct(4)]
    for late in range(len(raw)):
        namespace = f"late{late}"
        ledger.write(namespace, 0, raw[:late] + raw[late + 1 :])
        assert ledger.verify(namespace).rollups == ()
        ledger.write(namespace, 0, [raw[late]])
        stats = ledger.analytics(namespace).aggregate_stats()
        assert (stats.charged, stats.charges) == (from_micro(16), 2)
        assert ledger.verify(namespace).ok
    account.seq, account.balance = 4, 88
    ledger.write("late0", 0, [account.deduct(5, "key/other")])
    assert ledger.analytics("late0").aggregate_stats().charged == from_micro(21)
    report = ledger.verify("late0")
    assert report.rollups == ()
    assert not [reason for reason in report.failures[0].reasons if "roll-up" in reason]


def test_a_change_that_counts_in_two_epochs_is_found(ledger: Ledger) -> None:
    """The same operation key in two epochs is one change."""
    life = RolledBack()
    ledger.write("n", 0, life.before)
    again = [life.account.deduct(10, "key/a"), life.account.deduct(20, "key/b")]
    ledger.write("n", 0, again)
    assert ledger.verify().failures[0].reasons == ("key/a counts twice: epoch 1, seq 2 and epoch 2, seq 3",)


def test_problems_are_bounded(journal: Journal) -> None:
    """An account of which nothing adds up does not fill the memory."""
    raw = [journal.entry("u1", seq, "sweep", balance_change=1) for seq in range(1, 200)]
    assert 0 < len(fold(raw).problems) <= 10


def test_entries_are_what_was_folded(journal: Journal) -> None:
    """The helper that these tests use writes what the engine's reader reads."""
    account = Account(journal, "u1")
    entry = decode_entry(0, *account.reserve("l1", 3))
    assert isinstance(entry, JournalEntry)
    assert (entry.operation, entry.seq, dict(entry.changes)["held"]) == ("reserve", 1, "3")
