"""Transaction ids and ids of journal entries are taken apart, and put together, in one place."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducto_redis.engine.ids import TransactionId, entry_ms, split_entry_id


@given(st.integers(0, 16383), st.integers(1, 10**16 - 1), st.integers(0, 10**16 - 1), st.integers(0, 2**64 - 1))
def test_a_place_is_read_from_its_text(partition: int, epoch: int, milliseconds: int, sequence: int) -> None:
    """Each part of a place, up to the largest sequence of a stream, survives being written as a transaction id."""
    place = TransactionId(partition, epoch, milliseconds, sequence)
    assert TransactionId.parse(str(place)) == TransactionId.read(str(place)) == place
    assert split_entry_id(place.entry_id) == (milliseconds, sequence)
    assert entry_ms(place.entry_id) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "3", "3-1-17", "3-1-17-0-0", "3-1-17-", "-3-1-17-0", "3-1-17-0\n", " 3-1-17-0", "x-1-17-0"),
        *("٣-1-17-0", "123456-1-17-0", f"3-1-17-{10**20}"),
    ],
)
def test_other_texts_are_none(text: str) -> None:
    """A text that is no transaction id is parsed to None, and refused where it must be one."""
    assert TransactionId.parse(text) is None
    with pytest.raises(ValueError, match="is no transaction id"):
        TransactionId.read(text)


def test_its_time() -> None:
    """A transaction's time is its entry's, to the millisecond."""
    assert TransactionId.read("3-1-1700000000123-0").time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
