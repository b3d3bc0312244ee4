"""What a batch of journal entries becomes."""

import threading

import pytest
from sqlalchemy import update

from ducto_redis.engine.entry import decode_entry
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import LedgerError, LedgerUnavailableError
from ducto_redis.ledger import Ledger, Position, RawEntry
from ducto_redis.ledger.schema import accounts, unreadable
from tests.ledger.entries import Account, Journal, cause_of, engine_of, lease_record

NAMESPACE = "shop"


def some_life(account: Account) -> list[RawEntry]:
    """A few changes: 100 came in, 12 and 5 were charged, one lease of 7 is open."""
    return [
        account.add(100, "key/topup"),
        account.reserve("l1", 20),
        account.settle("l1", 12),
        account.reserve("l2", 7),
        account.deduct(5, cause=cause_of({"model": "gpt-4o", "input_tokens": 3}, operation_type="chat")),
    ]


def state_of(raw_entries: list[RawEntry]) -> AccountState:
    return AccountState.fold(decode_entry(0, entry_id, text) for entry_id, text in raw_entries)


def same(ledger: Ledger, account: str, expected: AccountState) -> bool:
    stored = ledger.account(NAMESPACE, account)
    assert stored is not None
    return (stored.state.fields, stored.state.leases) == (expected.fields, expected.leases)


def test_a_batch_becomes_entries_and_state(ledger: Ledger, account: Account) -> None:
    """The entries are there, and the account's latest state is exactly what they fold to."""
    raw = some_life(account)
    report = ledger.write(NAMESPACE, 3, raw)
    assert (report.written, report.repeated, report.unreadable, report.marked) == (5, 0, 0, ())
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert (stored.balance, stored.held, stored.seq, stored.epoch, stored.partition) == (83, 7, 5, 1, 3)
    assert stored.marks == ()
    assert same(ledger, "u1", state_of(raw))
    entries = ledger.entries(NAMESPACE, "u1")
    assert [entry.balance_after for entry in entries] == [83, 88, 88, 100, 100]
    assert (entries[0].model, entries[1].model) == ("gpt-4o", None)
    assert ledger.transaction(NAMESPACE, entries[0].transaction_id) == entries[0]
    assert ledger.entry(NAMESPACE, entries[0].transaction_id) == decode_entry(3, *raw[-1])
    assert entries[0].transaction_id == f"3-1-{raw[-1][0]}"


def test_a_page_of_entries_goes_on_where_the_last_ended(ledger: Ledger, account: Account) -> None:
    """Pages of a long history neither repeat nor miss an entry."""
    ledger.write(NAMESPACE, 0, [account.add(1) for _ in range(7)])
    first = ledger.entries(NAMESPACE, "u1", limit=4)
    second = ledger.entries(NAMESPACE, "u1", limit=4, before=first[-1])
    assert [entry.seq for entry in first + second] == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("again", [slice(0, 5), slice(2, 5), slice(4, 5), slice(0, 3)])
def test_an_entry_that_comes_again_is_written_once(ledger: Ledger, account: Account, again: slice) -> None:
    """Whatever part of a batch is delivered twice, nothing changes."""
    raw = some_life(account)
    ledger.write(NAMESPACE, 0, raw)
    report = ledger.write(NAMESPACE, 0, raw[again])
    assert (report.written, report.repeated) == (0, len(raw[again]))
    assert [entry.seq for entry in ledger.entries(NAMESPACE, "u1")] == [5, 4, 3, 2, 1]
    assert same(ledger, "u1", state_of(raw))
    assert ledger.verify().ok


def test_old_and_new_entries_in_one_batch(ledger: Ledger, account: Account) -> None:
    """After a take-over a batch begins with what is there and ends with what is not; one entry stands in it twice."""
    raw = some_life(account)
    ledger.write(NAMESPACE, 0, raw[:3])
    report = ledger.write(NAMESPACE, 0, [*raw[1:], raw[4]])
    assert (report.written, report.repeated) == (2, 3)
    assert same(ledger, "u1", state_of(raw))
    assert ledger.verify().ok


def test_writers_of_one_partition_take_turns(ledger: Ledger, journal: Journal) -> None:
    """A worker that lost its partition while it was writing does no harm: two write the same, it is there once."""
    account = Account(journal, "u1")
    batches = [[account.add(1) for _ in range(5)] for _ in range(20)]
    barrier = threading.Barrier(2)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            barrier.wait()
            for batch in batches:
                ledger.write(NAMESPACE, 0, batch)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    report = ledger.verify()
    assert (report.ok, report.entries, report.balance) == (True, 100, 100)


def test_a_batch_is_written_whole_or_not_at_all(ledger: Ledger, ledger_url: str, account: Account) -> None:
    """Where the state cannot be written, the entries are not there either, nor the position."""
    raw = some_life(account)
    engine = engine_of(ledger_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ducto_leases RENAME TO gone")
    with pytest.raises(LedgerUnavailableError):
        ledger.write(NAMESPACE, 0, raw)
    assert ledger.entries(NAMESPACE, "u1") == []
    assert ledger.is_empty(NAMESPACE)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO ducto_leases")
    engine.dispose()
    assert ledger.write(NAMESPACE, 0, raw).written == 5
    assert ledger.verify().ok


def test_a_missing_entry_marks_the_account_until_it_comes(ledger: Ledger, account: Account) -> None:
    """The mark is cleared, and the state and every balance_after are what they had been without the gap."""
    raw = some_life(account)
    raw.append(account.add(50))
    raw.append(account.reserve("l3", 1))
    late = raw.pop(4)
    assert ledger.write(NAMESPACE, 0, raw).marked == ("u1",)
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert stored.marks == ("gap",)
    report = ledger.verify()
    assert "gap, no entry between seq 4 and 6" in report.failures[0].reasons[0]
    assert ledger.write(NAMESPACE, 0, [late]).marked == ()
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert (stored.marks, stored.balance, stored.held) == ((), account.balance, account.held)
    assert ledger.verify().ok
    assert [entry.balance_after for entry in ledger.entries(NAMESPACE, "u1")] == [133, 133, 83, 88, 88, 100, 100]


def test_balances_after_a_late_entry_are_corrected(ledger: Ledger, account: Account) -> None:
    """An entry that moves no balance has the balance of the entries before it, also of one that came later."""
    first, late, third = account.add(100), account.add(11), account.reserve("l1", 5)
    ledger.write(NAMESPACE, 0, [first, third])
    ledger.write(NAMESPACE, 0, [late])
    assert [entry.balance_after for entry in ledger.entries(NAMESPACE, "u1")] == [111, 111, 100]
    assert ledger.verify().ok


def test_a_first_entry_that_is_missing_is_a_gap(ledger: Ledger, account: Account) -> None:
    """Seq counts from 1."""
    account.add(1)
    ledger.write(NAMESPACE, 0, [account.add(1)])
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert stored.marks == ("gap",)


def test_a_fork_keeps_both_entries(ledger: Ledger, account: Account) -> None:
    """The same seq with another operation key is another history: nothing is dropped, and the account is marked."""
    first = account.add(100)
    kept = account.deduct(10, "key/a")
    account.seq, account.balance = 1, 100
    other = account.deduct(30, "key/b")
    ledger.write(NAMESPACE, 0, [first, kept])
    report = ledger.write(NAMESPACE, 0, [other])
    assert (report.written, report.marked) == (1, ("u1",))
    assert {entry.operation_key for entry in ledger.entries(NAMESPACE, "u1")} >= {"key/a", "key/b"}
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert stored.marks == ("fork",)
    failures = ledger.verify().failures
    assert "fork" in " ".join(failures[0].reasons)


UNREADABLE = {
    "not UTF-8": b"add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t\t\xff",
    "too few parts": b"add_credits\tu1\t1\t2",
    "half a pair": b"add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t\t\tbalance",
    "no number": b"add_credits\tu1\t1\ttwo\tk\t5\t5\t0\t0\t\t",
    "no balance": b"add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t\t\tbalance\tmuch",
    "too large": b"add_credits\tu1\t1\t2\tk\t99999999999999999999\t5\t0\t0\t\t",
    "NUL": b"add_credits\tu1\t1\t2\tk\x00\t5\t5\t0\t0\t\t",
    "its place": b"add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t\t\tseq\t77",
    "deep cause": b'add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t{"metadata":' + b"[" * 100_000 + b"\t",
    "large": b"x" * 10_000_000,
    "bad cause": b'add_credits\tu1\t1\t2\tk\t5\t5\t0\t0\t{"usage":\t',
    "long key": b"add_credits\tu1\t1\t2\t" + b"k" * 5000 + b"\t5\t5\t0\t0\t\t",
    "long account": b"add_credits\t" + b"u" * 5000 + b"\t1\t2\tk\t5\t5\t0\t0\t\t",
    "NUL account": b"add_credits\tu\x001\t1\t2\tk\t5\t5\t0\t0\t\t",
    "no account": b"add_credits\tu\x1f1\t1\t2\tk\t5\t5\t0\t0\t\t",
    "nothing": b"",
    "garbage": bytes(range(256)),
}


def test_an_unreadable_entry_is_stored_raw(ledger: Ledger) -> None:
    """Nothing stops: the entries around it are written, it is kept as it is, once, and it marks what it can."""
    for namespace, text in UNREADABLE.items():
        journal = Journal()
        account, other = Account(journal, "u1"), Account(journal, "u2")
        batch = [account.add(100), journal.raw(text), other.add(7)]
        report = ledger.write(namespace, 0, batch)
        assert (report.written, report.unreadable) == (2, 1), namespace
        again = ledger.write(namespace, 0, batch)
        assert (again.written, again.repeated, again.unreadable) == (0, 2, 0), namespace
        stored = ledger.account(namespace, "u1")
        assert stored is not None
        names_it = text.startswith(b"add_credits\tu1\t") and b"\xff" not in text
        assert stored.marks == (("unreadable",) if names_it else ()), namespace
        verified = ledger.verify(namespace)
        assert (verified.ok, verified.unreadable, verified.balance) == (False, 1, 107), namespace
        assert ledger.position(namespace, 0) == Position(1, batch[-1][0])


def test_an_unreadable_entry_of_an_unknown_account(ledger: Ledger, journal: Journal) -> None:
    """The account exists from then on, with its mark."""
    ledger.write(NAMESPACE, 0, [journal.raw(b"add_credits\tnew\tx")])
    stored = ledger.account(NAMESPACE, "new")
    assert stored is not None
    assert (stored.seq, stored.balance, stored.marks) == (0, 0, ("unreadable",))


def test_what_can_be_read_later_heals_the_account(ledger: Ledger, ledger_url: str, account: Account) -> None:
    """A newer version reads what an older one could not: the entries take their places, and the marks go."""
    first, second, third = account.add(1), account.add(2), account.add(3)
    ledger.write(NAMESPACE, 0, [first, (second[0], b"add_credits\tu1\tv2"), third])
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert stored.marks == ("gap", "unreadable")
    assert ledger.reread(NAMESPACE).unreadable == 1
    # The newer version: what is stored is what this one understands.
    engine = engine_of(ledger_url)
    with engine.begin() as connection:
        connection.execute(update(unreadable).values(text=second[1]))
    engine.dispose()
    report = ledger.reread(NAMESPACE)
    assert (report.written, report.unreadable, report.marked) == (1, 0, ())
    assert ledger.verify().ok
    assert ledger.verify().balance == 6


def test_any_id_is_an_account(ledger: Ledger, journal: Journal) -> None:
    """Ids are any Unicode without control characters."""
    names = [
        "{u}:1",
        "né ü",
        "🦆",
        "a'b\"c;--",
        "%s",
        "u\u2028",
        "\\",
        "x" * 256,
        "日本",
        "NULL",
        "ß",
        "SS",
        "ss",
        "S S",
        "S S ",
        " S S",
        "\u00e9",
        "e\u0301",
        "\u00c9",
        "\u202eabc",
        "a\u200b",
        "a",
        "\U0010ffff",
        "{a,b}",
        '"a"',
        "1",
        "01",
    ]
    accounts = [Account(journal, name) for name in names]
    for account in accounts:
        ledger.write(NAMESPACE, 0, some_life(account))
    for account in accounts:
        stored = ledger.account(NAMESPACE, account.name)
        assert stored is not None
        assert (stored.account, stored.balance) == (account.name, account.balance)
    assert (ledger.verify().ok, ledger.verify().accounts) == (True, len(names))


def test_a_model_may_hold_what_text_cannot(ledger: Ledger, account: Account) -> None:
    """A model's name comes from whoever calls: no character in it keeps a charge out of the ledger."""
    raw = [account.add(100), account.deduct(5, cause=cause_of({"model": "a\0b"}))]
    assert ledger.write(NAMESPACE, 0, raw).written == 2
    assert ledger.entries(NAMESPACE, "u1")[0].model == "a\ufffdb"
    assert ledger.verify().ok


def test_an_account_that_was_meddled_with_is_rebuilt(ledger: Ledger, ledger_url: str, account: Account) -> None:
    """Where the stored state is none, it is told, and made again from the entries when the next one comes."""
    raw = some_life(account)
    for fields in ("nonsense", "[]", '{"balance":"much"}', '{"seq":"x"}'):
        ledger.write(NAMESPACE, 0, raw)
        engine = engine_of(ledger_url)
        with engine.begin() as connection:
            connection.execute(update(accounts).values(fields=fields))
        engine.dispose()
        with pytest.raises(LedgerError, match="ducto ledger verify"):
            ledger.account(NAMESPACE, "u1")
        assert "the stored fields cannot be read" in ledger.verify().failures[0].reasons
        raw.append(account.add(1))
        assert ledger.write(NAMESPACE, 0, raw[-1:]).marked == ()
        assert same(ledger, "u1", state_of(raw))
        assert ledger.verify().ok


def test_namespaces_are_apart(ledger: Ledger, journal: Journal) -> None:
    """Two namespaces share a database, and the same account id means two accounts."""
    one, two = Account(journal, "u1"), Account(journal, "u1")
    ledger.write("one", 0, [one.add(1)])
    assert ledger.is_empty("two")
    ledger.write("two", 0, [two.add(2), two.reserve("l", 1)])
    first, second = ledger.account("one", "u1"), ledger.account("two", "u1")
    assert first is not None
    assert second is not None
    assert (first.balance, second.balance) == (1, 2)
    assert (first.state.leases, len(second.state.leases)) == ({}, 1)
    assert [ledger.verify(name).balance for name in ("one", "two", None)] == [1, 2, 3]


def test_the_position_never_goes_back(ledger: Ledger, account: Account) -> None:
    """It is the last id that was written, whatever comes again."""
    assert ledger.position(NAMESPACE, 5) is None
    raw = some_life(account)
    ledger.write(NAMESPACE, 5, raw)
    ledger.write(NAMESPACE, 5, raw[:2])
    assert ledger.position(NAMESPACE, 5) == Position(1, raw[-1][0])


def test_a_lease_that_expires_and_is_settled_late(ledger: Ledger, journal: Journal, account: Account) -> None:
    """A record that was rewritten keeps the id of the entry that opened the lease, and what it charged is not charged
    again."""
    added, opened = account.add(100), account.reserve("l1", 30)
    expired = lease_record(30, state="expired", charged=30).replace("*", opened[0])
    raw = [
        added,
        opened,
        journal.entry(
            "u1",
            3,
            "expire",
            "lease/l1/expire",
            amount=30,
            balance_change=-30,
            changes={"held": 0, "balance": 70, "lease/l1": expired},
        ),
        journal.entry(
            "u1",
            4,
            "settle",
            "lease/l1/settle",
            amount=12,
            balance_change=18,
            changes={"balance": 88, "held": 0, "lease/l1": ""},
        ),
    ]
    ledger.write(NAMESPACE, 0, raw[:3])
    stored = ledger.account(NAMESPACE, "u1")
    assert stored is not None
    assert stored.state.leases["l1"].endswith(opened[0])
    assert ledger.verify().ok
    ledger.write(NAMESPACE, 0, raw[3:])
    assert ledger.verify().ok
    assert ledger.verify().balance == 88
