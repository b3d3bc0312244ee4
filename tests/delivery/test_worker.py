"""The event worker: every event to every handler, at least once, in order, and never in the charge's way."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from ducto_redis import CreditEvent, CreditManager
from ducto_redis.delivery import EventWorker, list_event_letters
from ducto_redis.errors import ConfigError, GiveUpError, InsufficientCreditsError, RetryLaterError
from ducto_redis.events.handlers import Handlers
from ducto_redis.events.types import EventType
from ducto_redis.journal import JournalConsumer, forget_group
from ducto_redis.store.contract import JournalledStore

PATIENCE_SECONDS = 10


@pytest.fixture
def credits(store: JournalledStore) -> Iterator[CreditManager]:
    """A manager of the store: in memory, and on Valkey."""
    with CreditManager(store, low_balance_thresholds=[5]) as manager:
        yield manager


class Recorder:
    """A handler that remembers what it was called with, and fails where it is told to."""

    def __init__(self, fails: Callable[[CreditEvent], Exception | None] = lambda event: None) -> None:
        self.calls: list[CreditEvent] = []
        self.done: list[CreditEvent] = []
        self._fails = fails

    def __call__(self, event: CreditEvent) -> None:
        self.calls.append(event)
        error = self._fails(event)
        if error is not None:
            raise error
        self.done.append(event)

    def types(self) -> list[str]:
        return [event.type.value.partition(".")[2] for event in self.done]


def worker_of(manager: CreditManager, *handlers: Callable[[CreditEvent], object], **options: object) -> EventWorker:
    registered = Handlers()
    for handler in handlers:
        registered.on("credits.*", handler)  # type: ignore[type-var]
    return EventWorker(manager.store, registered, **{"backoff_seconds": 0.001, **options})  # type: ignore[arg-type]


def test_every_event_in_order(credits: CreditManager) -> None:
    """A handler gets what was done and what was crossed by it, in the order in which it happened."""
    recorder = Recorder()
    credits.add_credits("u1", 10)
    lease = credits.reserve("u1", 6)
    credits.settle("u1", lease.lease_id, 6)
    worker_of(credits, recorder).run_until_idle()
    assert recorder.types() == ["added", "reserved", "settled", "low_balance"]
    assert recorder.done[-1].data.balance_after == 4


def test_events_of_the_worker_are_those_of_the_manager(credits: CreditManager) -> None:
    """A worker tells the very events that the manager told in its process."""
    told: list[CreditEvent] = []
    credits.on("*", told.append)
    recorder = Recorder()
    worker = worker_of(credits, recorder)
    worker.run_until_idle()
    credits.add_credits("u1", 10, metadata={"order": "A-17"})
    charge = credits.deduct("u1", 6)
    credits.refund_credits(charge.transaction_id)
    with pytest.raises(InsufficientCreditsError):
        credits.deduct("u1", 1000)
    wait_for_signals(credits, 1)
    worker.run_until_idle()
    assert sorted(recorder.done, key=lambda event: event.event_id) == sorted(told, key=lambda event: event.event_id)


def wait_for_signals(manager: CreditManager, count: int) -> None:
    done = threading.Event()
    manager.later(0, done.set)
    assert done.wait(PATIENCE_SECONDS)
    assert manager.event_counts.signals == count


def test_only_what_was_asked_for(credits: CreditManager) -> None:
    """A handler gets the types that it asked for, and those that nobody asked for are passed over."""
    low, added = Recorder(), Recorder()
    handlers = Handlers()
    handlers.on("credits.low_balance", low)
    handlers.on("credits.added", added)
    credits.add_credits("u1", 10)
    credits.deduct("u1", 6)
    worker = EventWorker(credits.store, handlers)
    worker.run_until_idle()
    assert (low.types(), added.types()) == (["low_balance"], ["added"])
    assert worker.lag() == 0


def test_coroutine_handlers_share_a_loop(credits: CreditManager) -> None:
    """Coroutine handlers are awaited, all on one event loop of the worker's own."""
    loops = set()
    amounts = []

    async def handler(event: CreditEvent) -> None:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        amounts.append(event.data.amount)

    credits.add_credits("u1", 1)
    credits.add_credits("u1", 2)
    worker_of(credits, handler).run_until_idle()
    assert (amounts, len(loops)) == ([1, 2], 1)


async def test_a_coroutine_handler_beside_a_loop_is_refused() -> None:
    """A worker that would block the event loop of its thread says what to do instead."""

    async def handler(event: CreditEvent) -> None:
        """Never runs."""

    manager = CreditManager.from_url("memory://")
    with pytest.raises(ConfigError, match=r"asyncio\.to_thread"):
        worker_of(manager, handler).run()
    await asyncio.to_thread(worker_of(manager, handler, claim_seconds=0.1).stop)
    manager.close()


def test_a_handler_that_fails_is_called_again_alone(credits: CreditManager) -> None:
    """While one handler fails, the others are not called again; what comes later waits for it."""
    failures = iter([ValueError("no"), ValueError("no"), None, None, None])
    flaky, steady = Recorder(lambda event: next(failures)), Recorder()
    credits.add_credits("u1", 1)
    credits.add_credits("u1", 2)
    worker_of(credits, flaky, steady).run_until_idle()
    assert [event.data.amount for event in flaky.calls] == [1, 1, 1, 2]
    assert [event.data.amount for event in flaky.done] == [1, 2]
    assert [event.data.amount for event in steady.calls] == [1, 2]


def test_what_one_entry_tells_stays_in_order(credits: CreditManager) -> None:
    """A handler that fails on a charge is not told before what the charge crossed."""
    failures = iter([None, ValueError("no"), None, None])
    flaky = Recorder(lambda event: next(failures))
    credits.add_credits("u1", 10)
    credits.deduct("u1", 6)
    worker_of(credits, flaky).run_until_idle()
    assert [event.type.value.partition(".")[2] for event in flaky.calls] == [
        "added",
        "deducted",
        "deducted",
        "low_balance",
    ]


def test_what_keeps_failing_becomes_a_dead_letter(credits: CreditManager) -> None:
    """After `max_attempts` an entry is given up with the reason, the next one comes, and it can be retried later."""
    broken = Recorder(lambda event: ValueError("no such customer") if event.data.amount == 1 else None)
    credits.add_credits("u1", 1, metadata={"order": "A-17"})
    credits.add_credits("u1", 2)
    worker = worker_of(credits, broken, max_attempts=3)
    worker.run_until_idle()
    assert Counter(event.data.amount for event in broken.calls) == {Decimal(1): 3, Decimal(2): 1}
    assert worker.count_dead_letters() == 1
    (letter,) = list_event_letters(credits.store, "handlers")
    assert (letter.account, letter.event_types, letter.attempts) == ("u1", ["credits.added"], 3)
    assert letter.reason == "ValueError: no such customer"

    mended = Recorder()
    report = worker_of(credits, mended).retry_dead_letters()
    assert (report.succeeded, report.failed) == (1, 0)
    assert mended.done == [broken.calls[0]]
    assert worker.count_dead_letters() == 0


def test_giving_up_needs_no_attempts(credits: CreditManager) -> None:
    """GiveUpError makes a dead letter at once, with all reasons; the other handlers have had their event."""
    hopeless, also, steady = (
        Recorder(lambda event: GiveUpError("it is gone")),
        Recorder(lambda event: GiveUpError("so is this")),
        Recorder(),
    )
    credits.add_credits("u1", 1)
    worker = worker_of(credits, hopeless, also, steady)
    worker.run_until_idle()
    assert [len(it.calls) for it in (hopeless, also, steady)] == [1, 1, 1]
    (letter,) = worker.dead_letters()
    assert "it is gone" in letter.reason
    assert "so is this" in letter.reason


def test_retrying_later_has_no_limit(credits: CreditManager) -> None:
    """A handler whose service is away is called until it is back, and uses nobody's attempts up."""
    away = iter([RetryLaterError("503")] * 6 + [None] * 5)
    patient = Recorder(lambda event: next(away))
    broken = Recorder(lambda event: ValueError("no"))
    credits.add_credits("u1", 1)
    worker = worker_of(credits, broken, patient, max_attempts=2)
    worker.run_until_idle()
    assert len(patient.done) == 1
    (letter,) = worker.dead_letters()
    assert letter.reason == "ValueError: no"


def test_groups_do_not_wait_for_each_other(credits: CreditManager) -> None:
    """A group whose handler fails holds neither another group's nor the charge up."""
    broken, steady = Recorder(lambda event: RetryLaterError("away")), Recorder()
    credits.add_credits("u1", 1)
    stuck = worker_of(credits, broken, group="slow")
    thread = threading.Thread(target=stuck.run)
    thread.start()
    try:
        worker_of(credits, steady, group="quick").run_until_idle()
        assert credits.deduct("u1", 1).balance_after == 0
        worker_of(credits, steady, group="quick").run_until_idle()
    finally:
        stuck.stop()
        thread.join(PATIENCE_SECONDS)
    assert steady.types() == ["added", "deducted", "low_balance"]
    assert not thread.is_alive()


def test_a_worker_that_stops_leaves_the_rest_to_the_next(credits: CreditManager) -> None:
    """What a worker has not done when it stops, the next one does; an event under way may come twice, none is lost."""
    credits.add_credits("u1", 100)
    for _ in range(20):
        credits.deduct("u1", 1)
    stopping = worker_of(credits, Recorder(lambda event: stopping.stop() if event.data.amount == 100 else None))
    stopping.run()
    rest = Recorder()
    worker_of(credits, rest).run_until_idle()
    assert rest.types() == ["deducted"] * 20


def test_refusals_are_told_once_somebody_listens(credits: CreditManager) -> None:
    """A worker that wants refusals gets them from its first run on; one that does not, has none recorded."""
    indifferent = Handlers()
    indifferent.on("credits.added", Recorder())
    EventWorker(credits.store, indifferent, group="indifferent").run_until_idle()
    refuse(credits)
    wait_for_signals(credits, 0)

    recorder = Recorder()
    worker = worker_of(credits, recorder)
    worker.run_until_idle()
    with CreditManager(credits.store) as other:  # which has not found out yet that nobody listened
        refuse(other, "u2")
        wait_for_signals(other, 1)
        worker.run_until_idle()
    assert [(event.account, event.data.error) for event in recorder.done] == [("u2", "insufficient_credits")]


def refuse(manager: CreditManager, account: str = "u1") -> None:
    with pytest.raises(InsufficientCreditsError):
        manager.deduct(account, 1)


def test_a_refusal_that_fails_is_a_dead_letter_too(credits: CreditManager) -> None:
    """Signals are retried and given up like entries of the journal, and listed with them."""
    credits.signals = True
    refuse(credits)
    wait_for_signals(credits, 1)
    worker = worker_of(credits, Recorder(lambda event: ValueError("no")), max_attempts=2)
    worker.run_until_idle()
    (letter,) = list_event_letters(credits.store, "handlers")
    assert (letter.account, letter.event_types, letter.attempts) == ("u1", ["credits.deduct_failed"], 2)


def test_a_signal_that_made_room_is_passed_over(credits: CreditManager, store: JournalledStore) -> None:
    """A refusal that went from the bounded stream before its turn is no dead letter."""
    credits.signals = True
    refuse(credits)
    wait_for_signals(credits, 1)
    recorder = Recorder(lambda event: RetryLaterError("away"))
    stuck = worker_of(credits, recorder, claim_seconds=0.2)
    thread = threading.Thread(target=stuck.run)
    thread.start()
    while not recorder.calls:
        thread.join(0.01)
    stuck.stop()
    thread.join(PATIENCE_SECONDS)
    store.redis().xtrim(store.namespace.signals(store.namespace.partition_of("u1")), maxlen=0)
    worker = worker_of(credits, recorder)
    worker.run_until_idle()
    assert (worker.lag(), worker.count_dead_letters()) == (0, 0)


def test_a_damaged_entry_is_a_dead_letter(credits: CreditManager, store: JournalledStore) -> None:
    """What is no entry and no signal is given up with the reason, and holds nothing up."""
    credits.add_credits("u1", 1)
    partition = store.namespace.partition_of("u1")
    store.redis().xadd(store.namespace.journal(partition), {"entry": "nonsense"})
    store.redis().xadd(store.namespace.signals(partition), {"signal": "nonsense"})
    credits.add_credits("u1", 2)
    recorder = Recorder()
    worker_of(credits, recorder).run_until_idle()
    assert [event.data.amount for event in recorder.done] == [1, 2]
    letters = list_event_letters(credits.store, "handlers")
    assert [letter.account for letter in letters] == ["", ""]
    assert sorted(letter.reason.partition(" ")[0] for letter in letters) == ["a", "a"]


def test_the_journal_waits_for_the_group_and_forgets_it(credits: CreditManager, store: JournalledStore) -> None:
    """The group is registered like any other, so that the journal keeps its entries; it can be forgotten."""
    credits.add_credits("u1", 1)
    worker_of(credits, Recorder()).run_until_idle()
    assert forget_group(store, "handlers")
    assert not forget_group(store, "handlers")


def test_other_consumers_are_not_disturbed(credits: CreditManager, store: JournalledStore) -> None:
    """A consumer of the journal sees entries only, whatever event workers run beside it."""
    credits.signals = True
    credits.add_credits("u1", 1)
    refuse(credits, "u2")
    wait_for_signals(credits, 1)
    worker_of(credits, Recorder()).run_until_idle()
    entries: list[str] = []
    JournalConsumer(store, "audit", lambda entry: entries.append(entry.operation)).run_until_idle()
    assert entries == ["add_credits"]


def test_nothing_to_call_is_refused(credits: CreditManager) -> None:
    """A worker without handlers would only throw events away."""
    with pytest.raises(ConfigError, match="needs a handler"):
        EventWorker(credits.store, Handlers())
    with pytest.raises(ConfigError, match="the ledger's own"):
        worker_of(credits, Recorder(), group="ledger")


def test_pricing_is_told_to_workers(credits: CreditManager) -> None:
    """A document that is activated is an event of no account."""
    recorder = Recorder()
    credits.publish_pricing({"models": {"_default": "input_tokens"}})
    worker_of(credits, recorder).run_until_idle()
    assert [(event.type, event.account) for event in recorder.done] == [(EventType.PRICING_ACTIVATED, "")]
