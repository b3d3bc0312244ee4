"""What a consumer promises to its handler."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import ConfigError, ConsumerGroupLostError, RecoveryNeededError, RetryLaterError
from ducto_redis.journal import JournalConsumer, forget_group
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine
from tests.servers import Server


class Seen:
    """A handler that remembers, and fails where it is told to."""

    def __init__(self, fails: Callable[[JournalEntry], Exception | None] | None = None) -> None:
        self.entries: list[JournalEntry] = []
        self.calls = 0
        self._fails = fails

    def __call__(self, entry: JournalEntry) -> None:
        self.calls += 1
        error = self._fails(entry) if self._fails else None
        if error:
            raise error
        self.entries.append(entry)

    def seqs(self, account: str) -> list[int]:
        return [entry.seq for entry in self.entries if entry.account == account]


def test_every_entry_in_order(engine: Engine, store: CreditStore) -> None:
    """A new group gets everything that the journal holds, each account's entries in order, and then what is new."""
    accounts = [f"u{number}" for number in range(8)]
    for _ in range(6):
        for account in accounts:
            engine.add(account)
    seen = Seen()
    JournalConsumer(store, "mine", seen, batch=4).run_until_idle()
    assert all(seen.seqs(account) == [1, 2, 3, 4, 5, 6] for account in accounts)
    engine.add("u1")
    JournalConsumer(store, "mine", seen).run_until_idle()
    assert seen.seqs("u1") == [1, 2, 3, 4, 5, 6, 7]
    assert len(seen.entries) == 49


def test_groups_do_not_disturb_each_other(engine: Engine, store: CreditStore) -> None:
    """Each group gets every entry."""
    engine.add("u1")
    for group in ("one", "two"):
        seen = Seen()
        JournalConsumer(store, group, seen).run_until_idle()
        assert seen.seqs("u1") == [1]


def test_a_coroutine_function_is_a_handler_too(engine: Engine, store: CreditStore) -> None:
    """All calls run on one event loop."""
    engine.add("u1")
    engine.add("u1")
    loops = []

    async def handler(entry: JournalEntry) -> None:
        await asyncio.sleep(0)
        loops.append((entry.seq, id(asyncio.get_running_loop())))

    JournalConsumer(store, "mine", handler).run_until_idle()
    assert [seq for seq, _ in loops] == [1, 2]
    assert len({loop for _, loop in loops}) == 1


def test_a_failing_entry_comes_again_before_the_next(engine: Engine, store: CreditStore) -> None:
    """Order is kept: what follows waits until the entry succeeds."""
    for _ in range(3):
        engine.add("u1")
    failures = iter([ValueError("once"), ValueError("twice")])
    seen = Seen(lambda entry: next(failures, None) if entry.seq == 2 else None)
    JournalConsumer(store, "mine", seen, backoff_seconds=0).run_until_idle()
    assert (seen.seqs("u1"), seen.calls) == ([1, 2, 3], 5)


def test_other_partitions_go_on_while_one_waits(engine: Engine, store: CreditStore) -> None:
    """A handler that fails for one account does not stop the others'."""
    (bad,), (good,) = engine.accounts_of(0), engine.accounts_of(1)
    engine.add(bad)
    engine.add(good)
    seen = Seen(lambda entry: ValueError("no") if entry.account == bad and good not in handled else None)
    handled: list[str] = []

    def handler(entry: JournalEntry) -> None:
        seen(entry)
        handled.append(entry.account)

    JournalConsumer(store, "mine", handler, backoff_seconds=0.01, max_attempts=1000).run_until_idle()
    assert handled == [good, bad]


def test_a_handler_can_ask_for_patience(engine: Engine, store: CreditStore) -> None:
    """RetryLaterError is never the entry's fault: it is no attempt, and never ends in a dead letter."""
    engine.add("u1")
    away = iter([RetryLaterError("away")] * 20)
    seen = Seen(lambda entry: next(away, None))
    consumer = JournalConsumer(store, "mine", seen, backoff_seconds=0, max_attempts=1)
    consumer.run_until_idle()
    assert (seen.seqs("u1"), seen.calls, consumer.count_dead_letters()) == ([1], 21, 0)


def test_what_was_not_acknowledged_comes_again(engine: Engine, store: CreditStore) -> None:
    """A consumer that dies in the middle of a batch leaves it to the next, which gets it from its first open entry."""
    for _ in range(5):
        engine.add("u1")

    class Killed(BaseException):
        pass

    seen = Seen()

    def handler(entry: JournalEntry) -> None:
        if entry.seq == 4:
            raise Killed
        seen(entry)

    with pytest.raises(Killed):
        JournalConsumer(store, "mine", handler).run_until_idle()
    again = Seen()
    JournalConsumer(store, "mine", again).run_until_idle()
    assert seen.seqs("u1") == [1, 2, 3]
    assert again.seqs("u1")[-2:] == [4, 5]
    assert sorted({*seen.seqs("u1"), *again.seqs("u1")}) == [1, 2, 3, 4, 5]


def test_stop_ends_run_after_the_current_entry(engine: Engine, store: CreditStore) -> None:
    """What was handled is acknowledged, what was not stays for the next."""
    for _ in range(5):
        engine.add("u1")
    seen = Seen()

    def handler(entry: JournalEntry) -> None:
        seen(entry)
        if entry.seq == 2:
            consumer.stop()

    consumer = JournalConsumer(store, "mine", handler)
    consumer.run()
    again = Seen()
    JournalConsumer(store, "mine", again).run_until_idle()
    assert (seen.seqs("u1"), again.seqs("u1")) == ([1, 2], [3, 4, 5])


def test_stop_wakes_a_consumer_that_waits(engine: Engine, store: CreditStore) -> None:
    """Neither an idle wait nor a long backoff holds `stop` up."""
    engine.add("u1")
    failed = threading.Event()

    def handler(entry: JournalEntry) -> None:
        failed.set()
        raise RetryLaterError("for long")

    consumer = JournalConsumer(store, "mine", handler, backoff_seconds=3600)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    assert failed.wait(20)
    consumer.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_drain_ends_run_when_nothing_is_left(engine: Engine, store: CreditStore) -> None:
    """`run` returns by itself, with everything handled."""
    for _ in range(5):
        engine.add("u1")
    seen = Seen()
    consumer = JournalConsumer(store, "mine", seen, batch=2)
    consumer.drain()
    consumer.run()
    assert seen.seqs("u1") == [1, 2, 3, 4, 5]


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


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"max_attempts": 0}, {"claim_seconds": 0}, {"backoff_seconds": -1}, {"batch_handler": print}],
)
def test_settings_that_make_no_sense_are_refused(store: CreditStore, wrong: dict[str, object]) -> None:
    """At once, with a ConfigError."""
    with pytest.raises(ConfigError):
        JournalConsumer(store, "mine", Seen(), **wrong)  # type: ignore[arg-type]


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


def test_batches_come_whole(engine: Engine, store: CreditStore) -> None:
    """A batch handler gets what was read of a partition, raw, at most `batch` entries."""
    (account,) = engine.accounts_of(2)
    for _ in range(5):
        engine.add(account)
    batches: list[tuple[int, int]] = []

    def handler(partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        batches.append((partition, len(entries)))

    JournalConsumer(store, "mine", batch_handler=handler, batch=3).run_until_idle()
    assert batches == [(2, 3), (2, 2)]


def test_a_consumer_outlives_the_server(start_valkey: Callable[..., Server], namespace: str) -> None:
    """While the server is away the consumer says so and tries again; then it goes on, and has missed nothing."""
    from ducto_redis.store.redis import RedisStore
    from tests.journal.engine import drive

    server = start_valkey(appendonly="yes", appendfsync="always")
    store = RedisStore(server.url, namespace=namespace, partitions=2, blocking=True)
    engine = Engine(store)
    engine.create()
    engine.add("u1")
    seen = Seen()
    came = {1: threading.Event(), 2: threading.Event()}

    def handler(entry: JournalEntry) -> None:
        seen(entry)
        came[entry.seq].set()

    consumer = JournalConsumer(store, "mine", handler, claim_seconds=2)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        assert came[1].wait(30)
        server.kill()
        with pytest.raises(RedisConnectionError):
            store.redis().ping()
        server.start()
        engine.add("u1")
        assert came[2].wait(60)
    finally:
        consumer.stop()
        thread.join(30)
        drive(store.close())
    assert not thread.is_alive()


def _ledger_group(store: CreditStore) -> JournalConsumer:
    """A consumer of the ledger's group that writes nowhere."""
    from ducto_redis.journal.worker import _LedgerConsumer

    return _LedgerConsumer(store, "ledger", Seen())
