"""What a consumer promises to its handler."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from ducto_redis.engine.entry import JournalEntry, decode_entry
from ducto_redis.errors import ConfigError, RetryLaterError
from ducto_redis.journal import JournalConsumer
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine
from tests.journal.seen import Seen
from tests.servers import Server


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


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"max_attempts": 0}, {"claim_seconds": 0}, {"backoff_seconds": -1}, {"batch_handler": print}],
)
def test_settings_that_make_no_sense_are_refused(store: CreditStore, wrong: dict[str, object]) -> None:
    """At once, with a ConfigError."""
    with pytest.raises(ConfigError):
        JournalConsumer(store, "mine", Seen(), **wrong)  # type: ignore[arg-type]


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


def test_one_unreadable_entry_of_a_batch_is_the_dead_letter(engine: Engine, store: CreditStore) -> None:
    """A batch handler that cannot read one of its entries gets them one by one: no other is given up for it."""
    (account,) = engine.accounts_of(0)
    engine.add(account)
    engine.add(account)
    store.redis().xadd(store.namespace.journal(0), {"entry": "junk"})
    engine.add(account)
    seqs: list[int] = []

    def handler(partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        seqs.extend([decode_entry(partition, *entry).seq for entry in entries])

    consumer = JournalConsumer(store, "mine", batch_handler=handler)
    consumer.run_until_idle()
    assert seqs == [1, 2, 3]
    assert [letter.text for letter in consumer.dead_letters()] == [b"junk"]


def test_claims_are_kept_while_every_partition_fails(engine: Engine, store: CreditStore) -> None:
    """Handlers that take their time and fail, one partition after the other, do not cost the others' claims."""
    for partition in range(4):
        engine.add(engine.accounts_of(partition)[0])
    events: list[str] = []

    def handler(entry: JournalEntry) -> None:
        events.append("handled")
        consumer._division.expire()  # it took so long that the claims must be renewed
        if events.count("handled") == 4:
            consumer.stop()
        raise RetryLaterError("away")

    def renewed(partitions: object) -> None:
        events.append("renewed")

    consumer = JournalConsumer(store, "mine", handler, housekeeping=renewed)
    consumer.run()
    assert events == ["renewed", "handled"] * 4


def test_a_coroutine_handler_needs_a_thread_without_a_loop(engine: Engine, store: CreditStore) -> None:
    """Called inside an event loop it is refused, before any entry could fail for it; in a thread it works."""
    engine.add("u1")
    seqs: list[int] = []

    async def handler(entry: JournalEntry) -> None:
        seqs.append(entry.seq)

    consumer = JournalConsumer(store, "mine", handler, max_attempts=1)

    async def main() -> None:
        for method in (consumer.run, consumer.run_until_idle, consumer.retry_dead_letters):
            with pytest.raises(ConfigError, match="to_thread"):
                method()
        await asyncio.to_thread(consumer.run_until_idle)

    asyncio.run(main())
    assert seqs == [1]
    assert consumer.count_dead_letters() == 0


def test_a_consumer_outlives_the_server(start_valkey: Callable[..., Server], namespace: str) -> None:
    """While the server is away the consumer says so and tries again; then it goes on, and has missed nothing."""
    from ducto_redis.run_sync import run_sync
    from ducto_redis.store.redis import RedisStore

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
        run_sync(store.close())
    assert not thread.is_alive()
