"""Reading the journal: entries, lease records, causes, and the state that entries fold to."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.engine.entry import Cause, JournalEntry, LeaseRecord, UnreadableEntryError, decode_entry, encode_cause
from ducto_redis.engine.state import AccountState
from ducto_redis.metrics import ToolCall, UsageMetrics

HEAD = ["deduct", "u1", "2", "7", "key/a", "5", "-4", "1", "3", ""]
RECORD = ["open", "5", "0", "1000", "2000", "-3", "2", "charge", "f", "chat", "host:1", '{"a":1}', "1-0"]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def entry(*parts: str) -> JournalEntry:
    return decode_entry(3, "1700000000000-5", "\t".join(parts).encode())


def test_decode_entry() -> None:
    """Each part has its place, and what is derived from them too."""
    decoded = entry(*HEAD[:-1], '{"flags":["x"]}', "balance", "6", "lease/l 1", "")
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
        (("balance", "6"), ("lease/l 1", "")),
    )
    assert (decoded.transaction_id, decoded.time_ms) == ("3-2-1700000000000-5", 1_700_000_000_000)
    assert decoded.read_cause().flags == ["x"]
    assert decoded.usage() == []


@given(account=TEXT.filter(bool), key=TEXT, name=TEXT, value=TEXT)
def test_any_text_survives(account: str, key: str, name: str, value: str) -> None:
    """Text without control characters needs no escaping."""
    decoded = entry("deduct", account, "1", "1", key, "0", "0", "0", "0", "", name, value)
    assert (decoded.account, decoded.operation_key, decoded.changes) == (account, key, ((name, value),))


@pytest.mark.parametrize(
    ("parts", "account"),
    [
        ([], None),
        (["deduct"], None),
        (["deduct", ""], None),
        (HEAD[:9], "u1"),
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
    assert record == LeaseRecord("open", 5, 0, 1000, 2000, -3, 2, "charge", "f", "chat", "host:1", '{"a":1}', "1-0")


@pytest.mark.parametrize("parts", [RECORD[:-1], [*RECORD, "x"], ["open", "five", *RECORD[2:]], []])
def test_unreadable_lease_records(parts: list[str]) -> None:
    """A record with other parts, or with words for numbers, is refused."""
    with pytest.raises(UnreadableEntryError):
        LeaseRecord.decode("\x1f".join(parts))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        UsageMetrics(model="m", input_tokens=3, tool_calls=[ToolCall("search", 2)]),
        [UsageMetrics(model="a"), UsageMetrics(measures={"pages": 3})],
    ],
)
def test_cause_survives(usage: UsageMetrics | list[UsageMetrics] | None) -> None:
    """A cause is read as it was written."""
    cause = Cause(usage=usage, type="bonus", operation_type="chat", flags=("x",), metadata={"a": ["ü\t", 1]})
    encoded = encode_cause(cause)
    assert b"\t" not in encoded
    read = entry(*HEAD[:-1], encoded.decode())
    assert read.read_cause().metadata == {"a": ["ü\t", 1]}
    assert read.usage() == ([] if usage is None else usage if isinstance(usage, list) else [usage])


def test_empty_cause_is_empty() -> None:
    """A cause that says nothing takes no room, and reads as one that says nothing."""
    assert encode_cause(Cause()) == b""
    assert entry(*HEAD).read_cause() == Cause()


def test_measures_keep_their_digits() -> None:
    """A decimal measure is written digit for digit."""
    assert b"0.100000000000000001" in encode_cause(
        Cause(usage=UsageMetrics(measures={"x": Decimal("0.100000000000000001")}))
    )


def change(seq: int, *changes: str, epoch: int = 1) -> JournalEntry:
    return entry("reserve", "u1", str(epoch), str(seq), "k", "0", "0", "0", "0", "", *changes)


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


def test_expired_leases_hold_nothing() -> None:
    """Only open leases add up to what is held."""
    expired = "\x1f".join(["expired", *RECORD[1:]])
    assert AccountState.fold([change(1, "lease/a", expired)]).held_by_leases == 0


def test_nothing_folds_to_nothing() -> None:
    """An account without entries has nothing."""
    state = AccountState.fold([])
    assert (state.balance, state.held, state.seq, state.fields, state.leases) == (0, 0, 0, {}, {})
