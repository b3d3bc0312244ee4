"""Queries for entries of the ledger: those of a lease, of an account, the charges of a period."""

from collections.abc import Iterable

import pytest
from sqlalchemy import text

from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.errors import LedgerError
from ducto_redis.ledger import Ledger, RawEntry, entry_queries
from ducto_redis.ledger.entry_queries import DerivedEntry
from tests.ledger.entries import Account, Journal, engine_of, lease_record

NAMESPACE = "ducto"
FIRST_MS = 1_700_000_000_000
EVER = 2**62


def decoded(raw: Iterable[RawEntry], partition: int = 0) -> list[JournalEntry]:
    return [decode_entry(partition, entry_id, text) for entry_id, text in raw]


def charges(ledger: Ledger, start_ms: int = 0, end_ms: int = EVER) -> list[JournalEntry]:
    return [entry for page in ledger.charge_entries(NAMESPACE, start_ms, end_ms) for entry in page]


def traced(ledger: Ledger, account: str = "u1") -> list[DerivedEntry]:
    return [each for page in ledger.account_entries(NAMESPACE, account) for each in page]


def test_all_entries_of_an_account(ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in the order of seq, each once however few are read at a time, with what the ledger made of them."""
    raw = [account.add(100, credits_type="bonus"), account.deduct(5, allowance=2), account.reserve("l", 9)]
    raw += [account.expire("l"), account.settle("l", 4), account.add(1)]
    other = Account(account.journal, "u2")
    ledger.write(NAMESPACE, 0, [*raw, other.add(7)])
    for size in (2000, 2, 1):
        monkeypatch.setattr(entry_queries, "ENTRIES_AT_A_TIME", size)
        found = traced(ledger)
        assert [each.entry for each in found] == decoded(raw)
        assert [each.balance_after for each in found] == [100, 97, 97, 88, 93, 94]
    assert [each.charged for each in found] == [0, 5, 0, 9, -5, 0]
    assert (found[0].type, found[1].allowance) == ("bonus", 2)
    assert traced(ledger, "nobody") == []


def test_entries_that_were_taken_back_do_not_lead_to_a_balance(ledger: Ledger, account: Account) -> None:
    """After a recovery, what Redis had lost is left out: the entries of the new epoch lead to the balance."""
    kept, lost = account.add(10, "key/a"), account.deduct(4, "key/b")
    ledger.write(NAMESPACE, 0, [kept, lost])
    account.epoch, account.seq, account.balance = 2, 1, 10
    again = account.deduct(4, "key/b")
    ledger.write(NAMESPACE, 0, [again])
    assert [each.entry for each in traced(ledger)] == decoded([kept, again])
    assert charges(ledger) == decoded([again])


def test_all_charges_of_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deducts and settles of all accounts and partitions, from the start on and before the end, each once."""
    expected = []
    for partition in (0, 3):
        journal = Journal()
        one, other = Account(journal, f"a{partition}"), Account(journal, f"b{partition}")
        raw = [one.add(100), other.add(100), one.deduct(1), one.reserve("l", 5), other.deduct(2), one.settle("l", 3)]
        ledger.write(NAMESPACE, partition, raw)
        expected += decoded([raw[2], raw[4], raw[5]], partition)
    ledger.write("another", 0, [Account(Journal(), "x").deduct(1)])
    for size in (2000, 2, 1):
        monkeypatch.setattr(entry_queries, "ENTRIES_AT_A_TIME", size)
        assert charges(ledger) == expected
    assert charges(ledger, FIRST_MS + 3) == [expected[1], expected[2], expected[4], expected[5]]
    assert charges(ledger, FIRST_MS + 4, FIRST_MS + 5) == [expected[1], expected[4]]
    assert charges(ledger, FIRST_MS + 6) == []


def test_charges_in_one_millisecond(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of the same millisecond are told apart by the second part of their ids."""
    monkeypatch.setattr(entry_queries, "ENTRIES_AT_A_TIME", 2)
    account = Account(Journal(), "u1")
    raw = [(f"{FIRST_MS}-{number}", account.deduct(1)[1]) for number in range(5)]
    ledger.write(NAMESPACE, 0, raw)
    assert charges(ledger, FIRST_MS, FIRST_MS + 1) == decoded(raw)


def test_a_lease(ledger: Ledger, account: Account) -> None:
    """All that happened to a lease is found, extensions and renewals too, and of no other lease."""
    journal = account.journal
    raw = [account.add(100), account.reserve("l", 5), account.reserve("other", 5)]
    for operation, lease in (("extend", "l"), ("extend", "other"), ("renew", "l")):
        account.seq += 1
        record = {f"lease/{lease}": lease_record(9)}
        raw.append(journal.entry("u1", account.seq, operation, f"call/{account.seq}", amount=4, changes=record))
    raw += [account.settle("l", 3), account.settle("other", 3)]
    ledger.write(NAMESPACE, 0, raw)
    assert ledger.lease_entries(NAMESPACE, "u1", "l") == decoded([raw[1], raw[3], raw[5], raw[6]])
    assert ledger.lease_entries(NAMESPACE, "u1", "none") == []
    assert ledger.lease_entries(NAMESPACE, "u2", "l") == []


def test_a_lease_that_is_open(ledger: Ledger, account: Account) -> None:
    """Of a lease that is not closed, everything up to now is found."""
    raw = [account.add(100), account.reserve("l", 5)]
    account.seq += 1
    changes: dict[str, str | int] = {"lease/l": lease_record(9)}
    raw.append(account.journal.entry("u1", account.seq, "extend", "call/x", amount=4, changes=changes))
    ledger.write(NAMESPACE, 0, raw)
    assert ledger.lease_entries(NAMESPACE, "u1", "l") == decoded(raw[1:])


def test_an_entry_that_cannot_be_read(ledger: Ledger, account: Account, ledger_url: str) -> None:
    """An entry that somebody meddled with is an error that names it, and nothing that is skipped."""
    ledger.write(NAMESPACE, 0, [account.add(5), account.deduct(1)])
    engine = engine_of(ledger_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE ducto_entries SET changes = 'balance' WHERE operation = 'deduct'"))
    engine.dispose()
    with pytest.raises(LedgerError, match=r"account 'u1' cannot be read.*ducto ledger verify"):
        traced(ledger)
    with pytest.raises(LedgerError, match="cannot be read"):
        charges(ledger)


def test_old_names_work_with_a_warning(ledger: Ledger, account: Account) -> None:
    """The methods' names of the last release still give the entries, and name the new ones."""
    ledger.write(NAMESPACE, 0, [account.add(10), account.deduct(3)])
    with pytest.warns(DeprecationWarning, match="use Ledger.account_entries"):
        assert list(ledger.trace_account(NAMESPACE, "u1")) == list(ledger.account_entries(NAMESPACE, "u1"))
    with pytest.warns(DeprecationWarning, match="use Ledger.lease_entries"):
        assert ledger.trace_lease(NAMESPACE, "u1", "l") == []
    with pytest.warns(DeprecationWarning, match="use Ledger.charge_entries"):
        assert list(ledger.trace_charges(NAMESPACE, 0, 1)) == []
