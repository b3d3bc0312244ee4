"""The proof finds what was meddled with."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducto_redis.engine.entry import decode_entry
from ducto_redis.engine.state import AccountState
from ducto_redis.ledger import Ledger, RawEntry
from ducto_redis.ledger import verify as verify_module
from ducto_redis.ledger.schema import metadata
from tests.ledger.entries import Account, Journal, cause_of, engine_of

TAMPERINGS = {
    "an amount": ("UPDATE ducto_entries SET amount = 11 WHERE seq = 3", "must move the balance"),
    "the amount of a hold": ("UPDATE ducto_entries SET amount = 31 WHERE seq = 2", "reserve of 31, but it must be 30"),
    "a shortfall": ("UPDATE ducto_entries SET shortfall = 1 WHERE seq = 2", "reserve has a shortfall of 1"),
    "a time": ("UPDATE ducto_entries SET entry_ms = 5 WHERE seq = 3", "is not above that of the entry before"),
    "half a change": ("UPDATE ducto_entries SET changes = 'balance' WHERE seq = 3", "the changes are not pairs"),
    "no number": ("UPDATE ducto_entries SET changes = 'held\tmuch' WHERE seq = 3", "holds a wrong value"),
    "two that changed places": ("UPDATE ducto_entries SET seq = 7 - seq WHERE seq IN (3, 4)", "balance_after"),
    "one more": (
        "INSERT INTO ducto_entries (namespace, partition, epoch, entry_ms, entry_seq, account, seq, operation,"
        " operation_key, amount, balance_change, shortfall, balance_after, version, cause, changes) SELECT namespace,"
        " partition, epoch, entry_ms, 1, account, 5, operation, 'key/more', 0, 0, 0, balance_after, 0, '', ''"
        " FROM ducto_entries WHERE seq = 4",
        "stored seq is 4, but the entries lead to 5",
    ),
    "another's entry": ("UPDATE ducto_entries SET account = 'u2' WHERE seq = 4", "stored seq is 4"),
    "a change": ("UPDATE ducto_entries SET balance_change = -11 WHERE seq = 3", "must move the balance"),
    "amount and change": (
        "UPDATE ducto_entries SET amount = 11, balance_change = -11 WHERE seq = 3",
        "entries add up to 89",
    ),
    "a balance_after": ("UPDATE ducto_entries SET balance_after = 91 WHERE seq = 3", "balance_after is 91"),
    "a deleted entry": ("DELETE FROM ducto_entries WHERE seq = 3", "gap"),
    "the last entry": ("DELETE FROM ducto_entries WHERE seq = 4", "stored seq is 4, but the entries lead to 3"),
    "all entries": ("DELETE FROM ducto_entries WHERE account = 'u1'", "stored seq is 4, but the entries lead to 0"),
    "a balance": ("UPDATE ducto_accounts SET balance = 91", "stored balance is 91"),
    "what is held": ("UPDATE ducto_accounts SET held = 0", "stored held is 0"),
    "an epoch": ("UPDATE ducto_accounts SET epoch = 5", "stored epoch is 5"),
    "a partition": ("UPDATE ducto_accounts SET partition = 5", "in partition 0, unlike its account"),
    "no fields": ("UPDATE ducto_accounts SET fields = 'nonsense'", "stored fields cannot be read"),
    "a seq": ("UPDATE ducto_accounts SET seq = 5", "stored seq is 5"),
    "the fields": ("UPDATE ducto_accounts SET fields = '{}'", "stored fields"),
    "a lease's record": ("UPDATE ducto_leases SET record = 'x'", "stored leases"),
    "a lease": ("DELETE FROM ducto_leases", "stored leases"),
    "the account": ("DELETE FROM ducto_accounts", "the account's state is not stored"),
    "a mark": ("UPDATE ducto_accounts SET marks = 'fork'", "marked: fork"),
    "what was written": (
        "UPDATE ducto_entries SET changes = REPLACE(changes, '90', '89') WHERE seq = 3",
        "balance 89, but balance_after 90",
    ),
}


def test_tampering_is_found(ledger: Ledger, ledger_url: str) -> None:
    """Whatever was changed in the database is named, for the account that it was changed for."""
    account = Account(Journal(), "u1")
    raw = [account.add(100), account.reserve("l1", 30), account.deduct(10), account.deduct(5)]
    engine = engine_of(ledger_url)
    for what, (statement, reason) in TAMPERINGS.items():
        ledger.write("n", 0, raw)
        assert ledger.verify().ok, what
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        report = ledger.verify()
        assert not report.ok, what
        assert report.failures[0].account == "u1", what
        assert reason in " | ".join(report.failures[0].reasons), (what, report.failures)
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
    engine.dispose()


FIRST_MS = 1_700_000_000_000

ROLLUP_TAMPERINGS = {
    "a sum of an hour": (
        "UPDATE ducto_account_hours SET charged = charged + 1 WHERE operation = 'deduct'",
        "of charged is 16",
    ),
    "a count": ("UPDATE ducto_account_hours SET charges = 7 WHERE operation = 'deduct'", "of charges is 7"),
    "usage": ("UPDATE ducto_account_hours SET input_tokens = 1 WHERE operation = 'deduct'", "of input_tokens is 1"),
    "another model": ("UPDATE ducto_account_hours SET model = 'x' WHERE operation = 'deduct'", "of charged is 0"),
    "an hour": (
        "DELETE FROM ducto_account_hours WHERE operation = 'deduct'",
        "of entries is 0, but the entries add up to 2",
    ),
    "one more hour": (
        "INSERT INTO ducto_account_hours"
        " (namespace, partition, hour, account, operation, member, model, operation_type, type)"
        " VALUES ('n', 0, 1, 'u1', 'deduct', '', '', 'default', '')",
        "an empty roll-up",
    ),
    "a stranger before": (
        "UPDATE ducto_account_hours SET account = 'a' WHERE operation = 'deduct'",
        "roll-ups without",
    ),
    "a stranger after": ("UPDATE ducto_account_hours SET account = 'z' WHERE operation = 'deduct'", "roll-ups without"),
    "a measure": ("UPDATE ducto_measures SET whole = whole + 1", "measure 'pages' is 4000000 millionths"),
    "no measure": ("DELETE FROM ducto_measures", "measure 'pages' is 0 millionths"),
    "a day": ("UPDATE ducto_account_days SET charged = 1 WHERE operation = 'deduct'", "ducto_account_days holds"),
    "no day": ("DELETE FROM ducto_account_days", "ducto_account_days lacks"),
    "another partition": ("UPDATE ducto_account_hours SET partition = 1", "of 'u1' in partition 1"),
    "a week": ("UPDATE ducto_account_weeks SET charged = 1 WHERE operation = 'deduct'", "ducto_account_weeks holds"),
    "no week": ("DELETE FROM ducto_account_weeks", "ducto_account_weeks lacks"),
    "another open week": ("UPDATE ducto_partitions SET open_week = 0", "ducto_account_weeks holds"),
    "a partition": ("UPDATE ducto_partition_hours SET amount = 1", "ducto_partition_hours holds"),
    "no partition": ("DELETE FROM ducto_partition_hours", "ducto_partition_hours lacks"),
    "what was charged": ("UPDATE ducto_entries SET charged = 9 WHERE seq = 3", "charged is 9, but must be 10"),
    "what the allowance paid": (
        "UPDATE ducto_entries SET allowance = 9 WHERE seq = 3",
        "allowance is 9, but must be 0",
    ),
    "a model": ("UPDATE ducto_entries SET model = 'x' WHERE seq = 4", "model is 'x', but must be 'gpt'"),
    "a member": ("UPDATE ducto_entries SET member = 'x' WHERE seq = 4", "member is 'x', but must be None"),
    "a type": ("UPDATE ducto_entries SET type = 'x' WHERE seq = 1", "type is 'x', but must be 'purchase'"),
    "a refund": ("UPDATE ducto_entries SET refund_of = '0-1-1-0' WHERE seq = 1", "refund_of is '0-1-1-0'"),
    "an operation type": ("UPDATE ducto_entries SET operation_type = 'x' WHERE seq = 4", "but must be 'default'"),
    "the details": (
        "UPDATE ducto_entries SET details = 'allowance\x1f4 1' WHERE seq = 3",
        "must move the balance by -6",
    ),
    "unreadable details": ("UPDATE ducto_entries SET details = 'nonsense\x1f4' WHERE seq = 3", "details"),
    "superseded": ("UPDATE ducto_entries SET superseded = 1 WHERE seq = 3", "superseded is 1, but must be 0"),
}


def test_rollups_are_proved(ledger: Ledger, ledger_url: str) -> None:
    """Whatever was changed in roll-ups, or in what they are made of, is named."""
    account = Account(Journal(FIRST_MS), "u1")
    cause = cause_of({"model": "gpt", "input_tokens": 5, "measures": {"pages": 1.5}})
    raw = [account.add(100, credits_type="purchase"), account.reserve("l1", 30)]
    raw += [account.deduct(10, cause=cause), account.deduct(5, cause=cause)]
    account.journal.move_to(FIRST_MS + 14 * 86_400_000)  # so that the week before is over
    raw.append(account.add(1))
    engine = engine_of(ledger_url)
    for what, (statement, reason) in ROLLUP_TAMPERINGS.items():
        ledger.write("n", 0, raw)
        assert ledger.verify().ok, what
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        report = ledger.verify()
        assert not report.ok, what
        reasons = [*report.rollups, *(reason for failure in report.failures for reason in failure.reasons)]
        assert reason in " | ".join(reasons), (what, reasons)
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
    engine.dispose()


def test_an_empty_ledger_adds_up(ledger: Ledger) -> None:
    """Nothing is not wrong."""
    report = ledger.verify()
    assert (report.ok, report.accounts, report.entries) == (True, 0, 0)


def test_pages_miss_nobody(memory_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts are proved page by page; each is there once, also those that only entries know of."""
    monkeypatch.setattr(verify_module, "ACCOUNTS_AT_A_TIME", 3)
    journal = Journal()
    names = [f"u{index}" for index in range(9)] + ["é", "Z", "🦆"]
    for name in names:
        memory_ledger.write("n", 0, [Account(journal, name).add(5)])
    assert (memory_ledger.verify().accounts, memory_ledger.verify().balance) == (12, 60)
    with memory_ledger._database.write() as connection:
        connection.exec_driver_sql("DELETE FROM ducto_accounts WHERE account IN ('Z', 'u4', '🦆')")
    report = memory_ledger.verify()
    assert (report.accounts, report.failed) == (12, 3)
    assert {failure.account for failure in report.failures} == {"Z", "u4", "🦆"}


def test_failures_are_bounded(memory_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """All failed accounts are counted, the first are listed."""
    monkeypatch.setattr(verify_module, "FAILURES_KEPT", 2)
    journal = Journal()
    for name in ("a", "b", "c"):
        account = Account(journal, name)
        account.add(1)
        memory_ledger.write("n", 0, [account.add(1)])
    report = memory_ledger.verify()
    assert (report.failed, len(report.failures)) == (3, 2)


def test_no_account_of_a_plain_ledger_is_read_twice(memory_ledger: Ledger, account: Account) -> None:
    """The report counts what it read."""
    memory_ledger.write("n", 0, [account.add(1), account.add(1)])
    assert memory_ledger.verify("other").accounts == 0
    assert memory_ledger.verify("n").entries == 2


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(("add", "deduct", "reserve", "settle")), st.integers(1, 50)),
    min_size=1,
    max_size=25,
)
deliveries = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=12)


@given(steps=steps, deliveries=deliveries, shuffled=st.randoms(use_true_random=False), late=st.booleans())
@settings(max_examples=120, deadline=None)
def test_whatever_way_entries_come_the_ledger_is_the_same(
    steps: Sequence[tuple[str, str, int]], deliveries: Sequence[tuple[int, int]], shuffled: object, late: bool
) -> None:
    """Batches that overlap, repeat, or come out of order, and then everything once more, in order: the ledger holds
    each entry once, and its state is the fold of them all."""
    raw = _journal_of(steps)
    with Ledger.from_url("sqlite://") as ledger:
        ledger.migrate()
        for start, length in deliveries:
            batch = raw[start : start + length]
            if late:
                shuffled.shuffle(batch)  # type: ignore[attr-defined]
            ledger.write("n", 0, batch)
        ledger.write("n", 0, raw)
        report = ledger.verify()
        assert (report.ok, report.entries, report.failures) == (True, len(raw), ())
        for name in ("a", "b"):
            entries = [decode_entry(0, *it) for it in raw]
            expected = AccountState.fold(entry for entry in entries if entry.account == name)
            stored = ledger.account("n", name)
            assert (stored.state.fields if stored else {}) == expected.fields
            assert (stored.state.leases if stored else {}) == expected.leases


def _journal_of(steps: Sequence[tuple[str, str, int]]) -> list[RawEntry]:
    journal = Journal()
    accounts = {name: Account(journal, name) for name in "ab"}
    raw = []
    for number, (name, step, amount) in enumerate(steps):
        account = accounts[name]
        if step == "settle" and account.leases:
            raw.append(account.settle(next(iter(account.leases)), amount))
        elif step == "reserve":
            raw.append(account.reserve(f"l{number}", amount))
        elif step == "deduct":
            raw.append(account.deduct(amount))
        else:
            raw.append(account.add(amount))
    return raw
