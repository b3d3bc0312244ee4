"""Consumer groups: what is registered, and what the journal keeps for it."""

import pytest

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import ConfigError, ConsumerGroupLostError, RecoveryNeededError, RetryLaterError
from ducto_redis.journal import JournalConsumer, forget_group
from ducto_redis.journal.worker import _LedgerConsumer
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine
from tests.journal.seen import Seen


def test_lag_counts_what_is_not_acknowledged(engine: Engine, store: CreditStore) -> None:
    """Before the first run all of it, afterwards nothing."""
    for number in range(10):
        engine.add(f"u{number}")
    consumer = JournalConsumer(store, "mine", Seen())
    assert sum(consumer.lag().values()) == 10
    consumer.run_until_idle()
    assert set(consumer.lag().values()) == {0}


def test_the_journal_keeps_what_some_group_still_needs(engine: Engine, store: CreditStore) -> None:
    """It is trimmed below the lowest id that some registered group has not acknowledged, never above."""
    (account,) = engine.accounts_of(0)
    slow = JournalConsumer(store, "slow", Seen())
    slow.run_until_idle()
    count = 450
    for _ in range(count):
        engine.add(account)
    _ledger_group(store).run_until_idle()
    JournalConsumer(store, "fast", Seen()).run_until_idle()
    assert engine.journal_length(0) == count
    engine.add(account)
    seen = Seen()
    JournalConsumer(store, "slow", seen).run_until_idle()
    assert len(seen.entries) == count + 1
    assert engine.journal_length(0) < 200
    last = Seen()
    JournalConsumer(store, "fast", last).run_until_idle()
    assert last.seqs(account) == [count + 1]


def test_the_journal_keeps_what_was_read_and_is_not_done(engine: Engine, store: CreditStore) -> None:
    """A group that took everything and acknowledged nothing still needs all of it."""
    (account,) = engine.accounts_of(0)
    for _ in range(450):
        engine.add(account)

    def handler(entry: JournalEntry) -> None:
        consumer.stop()
        raise RetryLaterError("not now")

    consumer = JournalConsumer(store, "slow", handler)
    consumer.run()
    _ledger_group(store).run_until_idle()
    assert engine.journal_length(0) == 450
    seen = Seen()
    JournalConsumer(store, "slow", seen).run_until_idle()
    assert len(seen.entries) == 450


def test_the_ledger_always_counts(engine: Engine, store: CreditStore) -> None:
    """Nothing is trimmed before the ledger's group has begun to read."""
    (account,) = engine.accounts_of(0)
    for _ in range(450):
        engine.add(account)
    JournalConsumer(store, "mine", Seen()).run_until_idle()
    assert engine.journal_length(0) == 450


def test_a_forgotten_group_no_longer_holds_the_journal(engine: Engine, store: CreditStore) -> None:
    """Without it, the journal is trimmed by what the others need."""
    (account,) = engine.accounts_of(0)
    JournalConsumer(store, "gone", Seen()).run_until_idle()
    for _ in range(450):
        engine.add(account)
    _ledger_group(store).run_until_idle()
    assert engine.journal_length(0) == 450
    assert forget_group(store, "gone")
    assert not forget_group(store, "gone")
    assert engine.journal_length(0) < 200


def test_the_ledgers_group_is_not_for_others(store: CreditStore) -> None:
    """A handler that took the ledger's entries would lose them for SQL."""
    with pytest.raises(ConfigError, match="ledger's own"):
        JournalConsumer(store, "ledger", Seen())
    with pytest.raises(ConfigError, match="cannot be removed"):
        forget_group(store, "ledger")


def test_a_lost_group_begins_anew(engine: Engine, store: CreditStore, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody destroyed the group, the namespace's record still has it: all that the journal holds comes again."""
    engine.add("u1")
    JournalConsumer(store, "mine", Seen()).run_until_idle()
    partition = store.namespace.partition_of("u1")
    seen = Seen()
    consumer = JournalConsumer(store, "mine", seen)
    consumer._registered = True  # it ran before
    store.redis().xgroup_destroy(store.namespace.journal(partition), "mine")
    engine.add("u1")
    consumer.run_until_idle()
    assert seen.seqs("u1") == [1, 2]
    assert "created again" in caplog.text


def test_a_group_that_is_not_registered_is_an_error(engine: Engine, store: CreditStore) -> None:
    """It was forgotten while it ran: going on would skip entries that are trimmed from now on."""
    engine.add("u1")

    def handler(entry: JournalEntry) -> None:
        forget_group(store, "mine")
        raise RetryLaterError("so that the entry is still there")

    consumer = JournalConsumer(store, "mine", handler, backoff_seconds=0, claim_seconds=0.05)
    with pytest.raises(ConsumerGroupLostError, match="Start the consumer again"):
        consumer.run()


def test_a_namespace_that_lost_its_memory(engine: Engine, store: CreditStore) -> None:
    """The error says what happened; nothing is created in its place."""
    client = store.redis()
    client.delete(store.namespace.meta(1))
    with pytest.raises(RecoveryNeededError, match="partition 1"):
        JournalConsumer(store, "mine", Seen()).run_until_idle()
    assert client.exists(store.namespace.meta(1)) == 0


def _ledger_group(store: CreditStore) -> JournalConsumer:
    """A consumer of the ledger's group that writes nowhere."""
    return _LedgerConsumer(store, "ledger", Seen())
