"""Following events without a group that the journal would wait for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ducto_redis import CreditManager
from ducto_redis.delivery import EventTail
from ducto_redis.delivery.streams import listen
from ducto_redis.store.contract import JournalledStore


@pytest.fixture
def credits(store: JournalledStore) -> Iterator[CreditManager]:
    with CreditManager(store) as manager:
        yield manager


def test_from_now_on(credits: CreditManager) -> None:
    """Without a time the tail begins with what comes next, and each event comes once."""
    credits.add_credits("u1", 1)
    # The tail begins with the present millisecond, which the first change may still be in.
    before = {event.event_id for event in EventTail(credits.store).read_all()}
    tail = EventTail(credits.store)
    credits.add_credits("u1", 2)
    credits.add_credits("u2", 3)
    first = [event for event in tail.read_all() if event.event_id not in before]
    assert sorted(event.data.amount for event in first) == [2, 3]
    credits.deduct("u1", 1)
    assert [event.type for event in tail.read_all()] == ["credits.deducted"]
    assert list(tail.read_all()) == []


def test_since_a_time(credits: CreditManager) -> None:
    """With a time the tail begins with what the journal holds from then on, all partitions in the order of time."""
    for number in range(1, 21):
        credits.add_credits(f"u{number}", number)
    amounts = [event.data.amount for event in EventTail(credits.store, since=_ago(hours=1)).read_all()]
    assert sorted(amounts) == list(range(1, 21))
    times = [event.time for event in EventTail(credits.store, since=_ago(hours=1)).read_all()]
    assert times == sorted(times)
    assert list(EventTail(credits.store, since=_ago(hours=-1)).read_all()) == []


def test_more_than_one_page(credits: CreditManager) -> None:
    """However much there is, all of it is read, an account's in order."""
    for _ in range(1200):
        credits.add_credits("u1", 1)
    events = list(EventTail(credits.store, since=_ago(hours=1)).read_all())
    assert [event.data.balance_after for event in events] == list(range(1, 1201))


def test_it_registers_nothing(credits: CreditManager, store: JournalledStore) -> None:
    """The journal does not wait for a tail: there is no group, and what says that somebody listens runs out."""
    credits.add_credits("u1", 1)
    tail = EventTail(credits.store)
    tail.listen()
    list(tail.read_all())
    client = store.redis()
    for partition in store.partitions():
        journal = store.namespace.journal(partition)
        assert not client.exists(journal) or client.xinfo_groups(journal) == []
        assert 0 < client.ttl(store.namespace.listening(partition)) <= 60


def test_listening_is_not_cut_short(credits: CreditManager, store: JournalledStore) -> None:
    """A tail that listens for a minute does not end what a worker asked for an hour."""
    listen(store, 3600)
    EventTail(credits.store).listen()
    assert store.redis().ttl(store.namespace.listening(0)) > 3000


def test_what_cannot_be_read_is_counted(credits: CreditManager, store: JournalledStore) -> None:
    """A damaged entry is passed over and counted; what comes after it is read."""
    store.redis().xadd(store.namespace.journal(store.namespace.partition_of("u1")), {"entry": "nonsense"})
    credits.add_credits("u1", 1)
    tail = EventTail(credits.store, since=_ago(hours=1))
    assert [event.data.amount for event in tail.read_all()] == [1]
    assert tail.unreadable == 1


def _ago(**how_long: float) -> datetime:
    return datetime.now(UTC) - timedelta(**how_long)
