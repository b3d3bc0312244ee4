"""Entries that a group gives up."""

import logging
from collections.abc import Sequence

import pytest

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.journal import JournalConsumer, RetryReport
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine


class Picky:
    """A handler that cannot stand one seq, until it is cured."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.cured = False
        self.seqs: list[int] = []

    def __call__(self, entry: JournalEntry) -> None:
        if entry.seq == self.seq and not self.cured:
            raise KeyError("what I need")
        self.seqs.append(entry.seq)


def consumer_of(store: CreditStore, handler: Picky) -> JournalConsumer:
    return JournalConsumer(store, "mine", handler, max_attempts=3, backoff_seconds=0)


def test_an_entry_that_keeps_failing_is_kept_with_the_reason(
    engine: Engine, store: CreditStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest goes on, the journal no longer waits for it, and the log is loud."""
    for _ in range(4):
        engine.add("u1", 5)
    handler = Picky(2)
    consumer = consumer_of(store, handler)
    consumer.run_until_idle()
    assert handler.seqs == [1, 3, 4]
    assert set(consumer.lag().values()) == {0}
    (letter,) = consumer.dead_letters()
    assert (letter.partition, letter.attempts) == (store.namespace.partition_of("u1"), 3)
    assert letter.reason == "KeyError: 'what I need'"
    assert letter.text.startswith(b"add_credits\tu1\t1\t2\t")
    assert [record.levelname for record in caplog.records if letter.entry_id in record.message][-1] == "ERROR"


def test_dead_letters_can_be_tried_again(engine: Engine, store: CreditStore) -> None:
    """Those that succeed are gone, the others stay."""
    for _ in range(3):
        engine.add("u1")
    handler = Picky(2)
    consumer = consumer_of(store, handler)
    consumer.run_until_idle()
    assert consumer.retry_dead_letters() == RetryReport(succeeded=0, failed=1)
    assert consumer.count_dead_letters() == 1
    handler.cured = True
    assert consumer.retry_dead_letters() == RetryReport(succeeded=1, failed=0)
    assert (consumer.count_dead_letters(), consumer.dead_letters()) == (0, [])
    assert handler.seqs == [1, 3, 2]


def test_an_entry_that_cannot_be_read_is_a_dead_letter_at_once(engine: Engine, store: CreditStore) -> None:
    """Trying again would not help."""
    engine.add("u1")
    partition = store.namespace.partition_of("u1")
    store.redis().xadd(store.namespace.journal(partition), {"entry": b"what\tis\tthis"})
    engine.add("u1")
    handler = Picky(0)
    consumer = consumer_of(store, handler)
    consumer.run_until_idle()
    (letter,) = consumer.dead_letters()
    assert (letter.text, letter.attempts, handler.seqs) == (b"what\tis\tthis", 1, [1, 2])


def test_an_entry_that_was_deleted_is_a_dead_letter(engine: Engine, store: CreditStore) -> None:
    """Somebody removed it from the stream after it was read and before it was acknowledged: that is not silent."""
    engine.add("u1")
    journal = store.namespace.journal(store.namespace.partition_of("u1"))

    class Killed(BaseException):
        pass

    def killed(entry: JournalEntry) -> None:
        raise Killed

    with pytest.raises(Killed):
        JournalConsumer(store, "mine", killed).run_until_idle()
    client = store.redis()
    client.xdel(journal, client.xrange(journal)[0][0])
    engine.add("u1")
    handler = Picky(0)
    consumer = consumer_of(store, handler)
    consumer.run_until_idle()
    assert handler.seqs == [2]
    assert [letter.reason for letter in consumer.dead_letters()] == ["the entry was deleted from the journal"]


def test_a_batch_that_keeps_failing_loses_only_the_bad_entry(engine: Engine, store: CreditStore) -> None:
    """After its attempts a batch is handed over entry by entry."""
    for _ in range(5):
        engine.add("u1")
    sizes = []
    good: list[bytes] = []

    def handler(partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        sizes.append(len(entries))
        if any(b"\t1\t3\t" in text for _, text in entries):
            raise ValueError("three")
        good.extend(text for _, text in entries)

    consumer = JournalConsumer(store, "mine", batch_handler=handler, max_attempts=2, backoff_seconds=0)
    consumer.run_until_idle()
    assert (len(good), consumer.count_dead_letters()) == (4, 1)
    assert sizes == [5, 5, 1, 1, 1, 1, 1, 1]
    engine.add("u1")
    consumer.run_until_idle()
    assert len(good) == 5


def test_a_reason_may_be_any_text(engine: Engine, store: CreditStore, caplog: pytest.LogCaptureFixture) -> None:
    """What no encoding can hold is escaped, and a page of it is enough."""
    caplog.set_level(logging.CRITICAL)  # what no encoding can hold, a test report cannot either
    engine.add("u1")

    def handler(entry: JournalEntry) -> None:
        raise ValueError("\udc80" + "x" * 1_000_000)

    consumer = JournalConsumer(store, "mine", handler, max_attempts=1)
    consumer.run_until_idle()
    (letter,) = consumer.dead_letters()
    assert letter.reason.startswith("ValueError: \\udc80xxx")
    assert len(letter.reason) < 3000
