"""Reading the journal: entries, lease records, causes, and the state that entries fold to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.engine.entry import (
    CapPart,
    Crossing,
    Details,
    GrantPart,
    JournalEntry,
    LeaseGrounds,
    LeaseRecord,
    UnreadableEntryError,
    decode_entry,
)
from ducto_redis.engine.state import AccountState

HEAD = ["deduct", "u1", "2", "7", "key/a", "5", "-4", "1", "3", "", ""]
RECORD = ["open", "5", "0", "1000", "2000", "-3", "2", "charge", "f", "", "chat", "host:1", '{"a":1}', "1-0"]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def entry(*parts: str) -> JournalEntry:
    return decode_entry(3, "1700000000000-5", "\t".join(parts).encode())


def test_decode_entry() -> None:
    """Each part has its place, and what is derived from them too."""
    decoded = entry(*HEAD[:-2], '{"flags":["x"]}', "member\x1fann", "balance", "6", "lease/l 1", "")
    assert decoded == JournalEntry(
        3,
        "1700000000000-5",
        "deduct",
        "u1",
        2,
        7,
        "key/a",
        5,
        -4,
        1,
        3,
        '{"flags":["x"]}',
        "member\x1fann",
        (("balance", "6"), ("lease/l 1", "")),
    )
    assert (decoded.transaction_id, decoded.time_ms) == ("3-2-1700000000000-5", 1_700_000_000_000)
    assert decoded.read_cause().flags == ["x"]
    assert decoded.read_details() == Details(member="ann")


def test_a_balance_that_changed_by_the_amount() -> None:
    """Where the balance paid the whole amount, the entry says it once."""
    whole = entry(*HEAD[:5], "5", "", *HEAD[7:])
    assert (whole.amount, whole.balance_change) == (5, -5)


@given(account=TEXT.filter(bool), key=TEXT, name=TEXT, value=TEXT)
def test_any_text_survives(account: str, key: str, name: str, value: str) -> None:
    """Text without control characters needs no escaping."""
    decoded = entry("deduct", account, "1", "1", key, "0", "0", "0", "0", "", "", name, value)
    assert (decoded.account, decoded.operation_key, decoded.changes) == (account, key, ((name, value),))


@pytest.mark.parametrize(
    ("parts", "account"),
    [
        ([], None),
        (["deduct"], None),
        (["deduct", ""], None),
        (HEAD[:10], "u1"),
        ([*HEAD, "balance"], "u1"),
        ([*HEAD[:3], "seven", *HEAD[4:]], "u1"),
        ([*HEAD[:5], "5.0", *HEAD[6:]], "u1"),
    ],
)
def test_unreadable_entries_name_the_account(parts: list[str], account: str | None) -> None:
    """What is no entry is refused, and names whose it is as far as that can be read."""
    with pytest.raises(UnreadableEntryError) as refused:
        entry(*parts)
    assert refused.value.account == account


def test_entry_that_is_no_text() -> None:
    """Bytes that are not UTF-8 are no entry."""
    with pytest.raises(UnreadableEntryError, match="UTF-8"):
        decode_entry(0, "1-0", b"deduct\t\xff")


def test_decode_lease_record() -> None:
    """Each part has its place."""
    record = LeaseRecord.decode("\x1f".join(RECORD))
    assert record == LeaseRecord("open", 5, 0, 1000, 2000, -3, 2, "charge", "f", "", "chat", "host:1", '{"a":1}', "1-0")


@pytest.mark.parametrize("parts", [RECORD[:-1], [*RECORD, "x"], ["open", "five", *RECORD[2:]], []])
def test_unreadable_lease_records(parts: list[str]) -> None:
    """A record with other parts, or with words for numbers, is refused."""
    with pytest.raises(UnreadableEntryError):
        LeaseRecord.decode("\x1f".join(parts))


def test_decode_grounds() -> None:
    """A lease that is inside others names them, and says what it holds of spend caps in its parent's place."""
    own = ["5", "3", "pro", "ann", "gpt\x1d4", "account\x1dday\x1d2", ""]
    plain = LeaseGrounds.decode("\x1e".join(own))
    assert (plain.caps, plain.parents, plain.lent, plain.parent) == ((CapPart("day", 2, "account"),), (), (), None)
    inside = LeaseGrounds.decode("\x1e".join([*own, "call\x1d2000\x1drun\x1d1000", "account\x1dhour\x1d3"]))
    assert (inside.parents, inside.parent) == ((("call", 2000), ("run", 1000)), "call")
    assert inside.lent == (CapPart("hour", 3, "account"),)
    assert (inside.allowance, inside.period, inside.plan, inside.member) == (5, 3, "pro", "ann")
    for parts in ([*own, "run\x1d1000"], [*own, "run", ""], [*own, "run\x1dsoon", ""]):
        with pytest.raises(UnreadableEntryError):
            LeaseGrounds.decode("\x1e".join(parts))


def change(seq: int, *changes: str, epoch: int = 1) -> JournalEntry:
    return entry("reserve", "u1", str(epoch), str(seq), "k", "0", "0", "0", "0", "", "", *changes)


def test_fold() -> None:
    """Later values replace earlier ones; an empty lease is gone; seq and epoch are fields."""
    state = AccountState.fold(
        [
            change(1, "balance", "10", "held", "0"),
            change(2, "held", "4", "due", "9", "lease/a", "\x1f".join(RECORD[:-1]) + "\x1f*"),
            change(3, "lease/b", "\x1f".join(RECORD), "due", ""),
            change(4, "lease/b", "", epoch=2),
        ]
    )
    assert state.fields == {"epoch": "2", "seq": "4", "balance": "10", "held": "4", "due": ""}
    assert state.leases == {"a": "\x1f".join([*RECORD[:-1], "1700000000000-5"])}
    assert (state.balance, state.held, state.seq, state.held_by_leases) == (10, 4, 4, 5)


def test_the_first_lease_is_the_entry_s() -> None:
    """Of several leases that an entry changes, it is about the first; the others are those that it is inside of."""
    assert change(1, "held", "4", "lease/a", "", "lease/b", "\x1f".join(RECORD)).lease == ("a", "")
    assert change(1, "held", "4").lease is None


def test_expired_leases_hold_nothing() -> None:
    """Only open leases add up to what is held."""
    expired = "\x1f".join(["expired", *RECORD[1:]])
    assert AccountState.fold([change(1, "lease/a", expired)]).held_by_leases == 0


def test_nothing_folds_to_nothing() -> None:
    """An account without entries has nothing."""
    state = AccountState.fold([])
    assert (state.balance, state.held, state.seq, state.fields, state.leases) == (0, 0, 0, {}, {})


def test_fields_of_many_of_a_kind_are_removed() -> None:
    """An empty field that is named with a slash is gone; any other stays, empty."""
    state = AccountState.fold([change(1, "grant/1", "x", "plan", "pro"), change(2, "grant/1", "", "plan", "")])
    assert state.fields == {"epoch": "1", "seq": "2", "plan": ""}


def test_details_are_read() -> None:
    """Each name has its place, and repeated ones keep their order."""
    pairs = [
        "allowance", "5 7", "grant/9", "3 0 10 welcome gift", "grant/4", "1 2000 50 promo", "cap/12", "9 model/a b",
        "crossed/plan-day", "warn account", "member", "ann", "operation_type", "chat", "plan", "pro", "low", "10",
        "low", "5", "late", "1", "refund_of", "3-1-5-0", "lost", "2",
    ]  # fmt: skip
    assert Details.decode("\x1f".join(pairs)) == Details(
        allowance=5,
        period=7,
        grants=(GrantPart(9, 3, 0, 10, "welcome gift"), GrantPart(4, 1, 2000, 50, "promo")),
        caps=(CapPart("12", 9, "model/a b"),),
        crossed=(Crossing("plan-day", "warn", "account"),),
        low=(10, 5),
        member="ann",
        operation_type="chat",
        plan="pro",
        refund_of="3-1-5-0",
        lost=2,
        late=True,
    )
    assert Details.decode("") == Details()


@pytest.mark.parametrize(
    "text", ["allowance", "allowance\x1ffive 1", "grant/1\x1f5", "colour\x1fred", "cap/1\x1fx account"]
)
def test_unreadable_details(text: str) -> None:
    """Details that are none are refused, not passed over."""
    with pytest.raises(UnreadableEntryError):
        Details.decode(text)


def test_what_a_lease_stands_on() -> None:
    """Only what does not rest on the allowance is held of the balance."""
    grounds = "\x1e".join(["2", "7", "pro", "ann", "m\x1d5", "account\x1d12\x1d5", "allowance\x1d2 7"])
    assert LeaseGrounds.decode(grounds) == LeaseGrounds(
        2, 7, "pro", "ann", (("m", 5),), (CapPart("12", 5, "account"),), Details(allowance=2, period=7)
    )
    record = "\x1f".join([*RECORD[:9], grounds, *RECORD[10:]])
    assert LeaseRecord.decode(record).balance_part == 3
    assert AccountState.fold([change(1, "lease/a", record)]).held_by_leases == 3


@pytest.mark.parametrize(
    ("operation", "parts", "charged"),
    [
        ("deduct", ("5", "-3", "0"), 5),
        ("settle", ("5", "-3", "2"), 3),
        ("expire", ("5", "-3", "0"), 5),
        ("reserve", ("5", "0", "0"), 0),
    ],
)
def test_charged(operation: str, parts: tuple[str, str, str], charged: int) -> None:
    """What an entry charged is what allowance and balance paid together."""
    details = "allowance\x1f2 1"
    assert entry(operation, "u1", "1", "1", "k", *parts, "0", "", details).charged == charged
