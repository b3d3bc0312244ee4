"""Automatic top-ups: one payment and one addition for every crossing, whatever dies in between."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import redis
from msgspec import structs

from ducto_redis import CreditEvent, CreditManager
from ducto_redis.delivery import AutoTopUp, EventWorker, TopUp
from ducto_redis.errors import ConfigError, GiveUpError, InvalidAmountError
from ducto_redis.events.handlers import Handlers
from ducto_redis.store.contract import JournalledStore
from ducto_redis.store.redis import RedisStore

PATIENCE_SECONDS = 30
CLAIM_SECONDS = 0.3


class Provider:
    """A payment provider that knows idempotency keys. `asked` are all requests, `paid` the payments by key."""

    def __init__(self) -> None:
        self.asked: list[TopUp] = []
        self.paid = dict[str, Decimal]()
        self.declines = False

    def charge(self, top_up: TopUp) -> bool:
        self.asked.append(top_up)
        if not self.declines:
            self.paid.setdefault(top_up.idempotency_key, top_up.credits)
        return not self.declines


@pytest.fixture
def credits(store: JournalledStore) -> Iterator[CreditManager]:
    with CreditManager(store, low_balance_thresholds=[10, 5]) as manager:
        yield manager


@pytest.fixture
def provider() -> Provider:
    return Provider()


def worker_of(manager: CreditManager, top_up: AutoTopUp, **options: object) -> EventWorker:
    handlers = Handlers()
    handlers.on("credits.low_balance", top_up)
    return EventWorker(manager.store, handlers, **{"backoff_seconds": 0.001, **options})  # type: ignore[arg-type]


def top_up_of(provider: Provider, **options: object) -> AutoTopUp:
    return AutoTopUp(**{"level": 10, "amount": 50, "charge": provider.charge, **options})  # type: ignore[arg-type]


def test_a_crossing_is_paid_for_once(credits: CreditManager, provider: Provider) -> None:
    """Running low tops up once; the next time it runs low, once more, under another key."""
    worker = worker_of(credits, top_up_of(provider))
    credits.add_credits("u1", 20)
    credits.deduct("u1", 11)
    worker.run_until_idle()
    assert credits.get_balance("u1").balance == 59
    (asked,) = provider.asked
    assert (asked.account, asked.credits, asked.event.data.level) == ("u1", 50, 10)
    worker.run_until_idle()
    credits.deduct("u1", 50)
    worker.run_until_idle()
    assert credits.get_balance("u1").balance == 59
    assert [*provider.paid.values()] == [50, 50]
    assert len(provider.asked) == 2


def test_only_its_own_level(credits: CreditManager, provider: Provider) -> None:
    """Another level, and events of other types, top nothing up."""
    handlers = Handlers()
    handlers.on("credits.*", top_up_of(provider, level="5.0"))
    credits.add_credits("u1", 20)
    credits.deduct("u1", 11)
    EventWorker(credits.store, handlers).run_until_idle()
    assert provider.asked == []
    credits.deduct("u1", 4)
    EventWorker(credits.store, handlers).run_until_idle()
    assert len(provider.asked) == 1


def test_the_credits_say_where_they_come_from(credits: CreditManager, provider: Provider) -> None:
    """What is added has its type, and names the event that it answers."""
    told: list[CreditEvent] = []
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    worker_of(credits, top_up_of(provider, type="auto_top_up")).run_until_idle()
    handlers = Handlers()
    handlers.on("credits.added", told.append)
    EventWorker(credits.store, handlers, group="other").run_until_idle()
    assert told[1].data.type == "auto_top_up"
    assert told[1].metadata == {"top_up_of": provider.asked[0].event.event_id}


def test_coroutines_may_charge(credits: CreditManager, provider: Provider) -> None:
    """The function that asks for the payment may be a coroutine function."""

    async def charge(top_up: TopUp) -> bool:
        return provider.charge(top_up)

    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    worker_of(credits, top_up_of(provider, charge=charge)).run_until_idle()
    assert credits.get_balance("u1").balance == 60


def test_an_event_that_comes_again_pays_nothing(credits: CreditManager, provider: Provider) -> None:
    """The same crossing, told again by another group, another worker, or from the beginning, is done already."""
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    for group in ("handlers", "other", "another"):
        worker_of(credits, top_up_of(provider), group=group).run_until_idle()
    assert len(provider.asked) == 1
    assert credits.get_balance("u1").balance == 60


def test_a_payment_that_fails_is_asked_for_again_under_its_key(credits: CreditManager, provider: Provider) -> None:
    """Whatever goes wrong between payment and credits, the next attempt repeats both under the same key."""
    failures = iter([ConnectionError("reset"), None])

    def charge(top_up: TopUp) -> bool:
        provider.charge(top_up)
        if (error := next(failures)) is not None:
            raise error
        return True

    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    worker_of(credits, top_up_of(provider, charge=charge)).run_until_idle()
    assert len(provider.asked) == 2
    assert len(provider.paid) == 1
    assert credits.get_balance("u1").balance == 60


def test_a_payment_that_began_is_finished_though_the_balance_rose(credits: CreditManager, provider: Provider) -> None:
    """A customer who paid gets the credits, even if others came in while the worker was dead."""
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)

    def charge(top_up: TopUp) -> bool:
        provider.charge(top_up)
        raise ConnectionError("the answer was lost")

    worker = worker_of(credits, top_up_of(provider, charge=charge), max_attempts=1)
    worker.run_until_idle()
    credits.add_credits("u1", 100)
    report = worker_of(credits, top_up_of(provider)).retry_dead_letters()
    assert (report.succeeded, len(provider.paid)) == (1, 1)
    assert credits.get_balance("u1").balance == 160


def test_a_declined_payment_is_not_repeated(credits: CreditManager, provider: Provider) -> None:
    """A customer whose card was declined is asked once for a crossing, and gets nothing."""
    provider.declines = True
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    for group in ("handlers", "other"):
        worker_of(credits, top_up_of(provider), group=group).run_until_idle()
    assert len(provider.asked) == 1
    assert credits.get_balance("u1").balance == 10


def test_a_crossing_that_is_past_is_left_alone(credits: CreditManager, provider: Provider) -> None:
    """Nobody is charged for a balance that has risen since."""
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    credits.add_credits("u1", 1)
    worker_of(credits, top_up_of(provider)).run_until_idle()
    assert provider.asked == []


def crossing(credits: CreditManager) -> CreditEvent:
    told: list[CreditEvent] = []
    credits.on("credits.low_balance", told.append)
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    return told[0]


def test_an_old_crossing_is_left_alone(credits: CreditManager, provider: Provider) -> None:
    """A crossing that nobody began to pay for within the time is none any more."""
    event = crossing(credits)
    old = structs.replace(event, time=datetime.now(UTC) - timedelta(hours=24))
    top_up = top_up_of(provider)
    top_up.attach(credits.store)  # type: ignore[arg-type]
    top_up(old)
    assert provider.asked == []
    top_up(event)
    assert len(provider.asked) == 1
    top_up.detach()


def test_a_payment_of_unknown_outcome_is_left_to_people(credits: CreditManager, provider: Provider) -> None:
    """Where a payment began so long ago that the provider may have forgotten the key, it is not asked for again."""
    event = crossing(credits)

    def charge(top_up: TopUp) -> bool:
        provider.charge(top_up)
        raise ConnectionError("the answer was lost")

    top_up = top_up_of(provider, charge=charge)
    top_up.attach(credits.store)  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        top_up(event)
    top_up.detach()
    impatient = top_up_of(provider, within_seconds=1e-9)
    impatient.attach(credits.store)  # type: ignore[arg-type]
    client = credits.store.redis()  # type: ignore[attr-defined]
    mark = credits.store.namespace.top_up("u1", event.event_id)
    client.set(mark, int(client.get(mark)) - 1)
    with pytest.raises(GiveUpError, match="ask your payment provider for the idempotency key 'top-up:"):
        impatient(event)
    assert len(provider.asked) == 1
    impatient.detach()


def test_what_charge_returns_is_checked(credits: CreditManager, provider: Provider) -> None:
    """A function that forgets to say whether it was paid adds nothing."""
    credits.add_credits("u1", 11)
    credits.deduct("u1", 1)
    worker = worker_of(credits, top_up_of(provider, charge=lambda top_up: None), max_attempts=2)
    worker.run_until_idle()
    (letter,) = worker.dead_letters()
    assert "charge must return True if it was paid" in letter.reason
    assert credits.get_balance("u1").balance == 10


def test_settings_are_checked(credits: CreditManager, provider: Provider) -> None:
    """A setting that makes no sense, and a use outside of a worker, are errors."""
    with pytest.raises(InvalidAmountError):
        top_up_of(provider, amount=0)
    with pytest.raises(ConfigError, match="charge must be a function"):
        top_up_of(provider, charge=None)
    with pytest.raises(ConfigError, match="within_seconds"):
        top_up_of(provider, within_seconds=0)
    event = crossing(credits)
    with pytest.raises(ConfigError, match="works in an event worker"):
        top_up_of(provider)(event)


def test_two_workers_at_once(credits: CreditManager, provider: Provider) -> None:
    """Two workers that both have the event, as after a take-over, repeat one payment and add its credits once."""
    event = crossing(credits)
    both = threading.Barrier(2)

    def charge(top_up: TopUp) -> bool:
        both.wait(PATIENCE_SECONDS)
        return provider.charge(top_up)

    def work() -> None:
        top_up = top_up_of(provider, charge=charge)
        top_up.attach(credits.store)  # type: ignore[arg-type]
        top_up(event)
        top_up.detach()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(provider.asked) == 2
    assert len(provider.paid) == 1
    assert credits.get_balance("u1").balance == 60


# The provider is a Redis hash of payments by key.
def work(url: str, namespace: str, dies: str) -> None:
    """A worker process that kills itself where it is told to."""
    client = redis.Redis.from_url(url)
    store = RedisStore(url, namespace=namespace, partitions=4, blocking=True)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def charge(top_up: TopUp) -> bool:
        client.incr(f"{namespace}-asked")
        if dies == "before paying":
            die()
        client.hsetnx(f"{namespace}-paid", top_up.idempotency_key, str(top_up.credits))
        if dies == "after paying":
            die()
        return True

    class DyingAfterwards(AutoTopUp):
        def _finish(self, top_up: TopUp, paid: object) -> None:
            super()._finish(top_up, paid)
            if dies == "after adding":
                die()

    handlers = Handlers()
    handlers.on("credits.low_balance", DyingAfterwards(level=10, amount=50, charge=charge))
    worker = EventWorker(store, handlers, claim_seconds=CLAIM_SECONDS)
    worker.run_until_idle()
    while worker.lag():  # a claim of the dead may still hold
        worker.run_until_idle()


@pytest.mark.parametrize("dies", ["before paying", "after paying", "after adding"])
def test_a_worker_that_is_killed_charges_nobody_twice(valkey_url: str, namespace: str, dies: str) -> None:
    """SIGKILL before the payment, between payment and credits, or after both: the next worker makes it one of each."""
    client = redis.Redis.from_url(valkey_url)
    store = RedisStore(valkey_url, namespace=namespace, partitions=4, blocking=True)
    context = multiprocessing.get_context("spawn")
    with CreditManager(store, low_balance_thresholds=[10]) as manager:
        manager.add_credits("u1", 15)
        manager.deduct("u1", 5)
        for death in (dies, "never"):
            process = context.Process(target=work, args=(valkey_url, namespace, death), daemon=True)
            process.start()
            process.join(PATIENCE_SECONDS)
            assert process.exitcode == (0 if death == "never" else -signal.SIGKILL)
        provider = Provider()
        worker_of(manager, top_up_of(provider)).run_until_idle()
        assert provider.asked == []
        assert manager.get_balance("u1").balance == 60
        assert len(client.hgetall(f"{namespace}-paid")) == 1
        assert int(client.get(f"{namespace}-asked")) == (1 if dies == "after adding" else 2)
    client.close()
