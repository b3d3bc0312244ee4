"""The worker that calls handlers with events: at least once, in order for each account, apart from any charge."""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol, runtime_checkable

from ducto_redis.delivery.streams import EventStore, EventStreams, listen
from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import ConfigError, GiveUpError, RetryLaterError
from ducto_redis.events.handlers import EventHandler, Handlers, is_coroutine, name_of
from ducto_redis.events.types import SIGNALS, CreditEvent
from ducto_redis.journal.consumer import JournalConsumer
from ducto_redis.journal.dead_letters import DeadLetter, RetryReport
from ducto_redis.store.contract import CreditStore, JournalledStore, journalled

logger = logging.getLogger(__name__)

HANDLERS_GROUP = "handlers"

_LISTENS_SECONDS = 3600.0
_LISTENS_AGAIN_SECONDS = 600.0


@runtime_checkable
class StoreHandler(Protocol):
    """A handler that changes accounts, and gets the store of its events."""

    def attach(self, store: JournalledStore) -> None:
        """Take the store, before the first event."""

    def detach(self) -> None:
        """Let go of the store, after the last event."""

    def __call__(self, event: CreditEvent) -> object: ...


class EventWorker:
    """A worker that calls handlers with the events and refusals of a namespace until it is stopped.

    Several may run, in as many processes: those of one group share the work, and take over the work of a dead one. A
    handler that raises is called with the event again, after a growing delay and before any later event of the same
    partition; handlers that succeeded are not called again meanwhile. After `max_attempts` the entry goes to the
    group's dead letters. RetryLaterError is retried without a limit; GiveUpError makes a dead letter at once.

    Args:
        store: the store of the events.
        handlers: the functions to call, by type of event.
        group: the consumer group. Groups do not wait for each other: give a slow endpoint its own.
        worker_id: a different one for every worker; random by default.
        claim_seconds: the time after which the partitions of a dead worker are taken over. A handler should take less.
        max_attempts: calls of a handler before an event becomes a dead letter.
        backoff_seconds: the first delay before another attempt; it doubles with each, up to 10 seconds.

    Raises:
        ConfigError: for the group "ledger", and if there is no handler.
    """

    def __init__(
        self,
        store: CreditStore,
        handlers: Handlers,
        *,
        group: str = HANDLERS_GROUP,
        worker_id: str | None = None,
        claim_seconds: float = 30.0,
        max_attempts: int = 8,
        backoff_seconds: float = 0.5,
    ) -> None:
        if not handlers:
            raise ConfigError("an event worker needs a handler: handlers.on('credits.low_balance', function)")
        self._store = journalled(store, "an event worker")
        self._handlers = handlers
        self.consumer: JournalConsumer = _EventConsumer(
            self._store,
            group,
            handlers,
            worker_id=worker_id,
            claim_seconds=claim_seconds,
            max_attempts=max_attempts,
            backoff_seconds=backoff_seconds,
        )

    @property
    def worker_id(self) -> str:
        """The id of this worker."""
        return self.consumer.worker_id

    def run(self) -> None:
        """Work until `stop` is called. An unreachable server is retried.

        Raises:
            ConsumerGroupLostError: if the group was removed meanwhile.
            ConfigError: if a handler is a coroutine function, and an event loop runs in this thread already.
        """
        with self._attached():
            self.consumer.run()

    def run_until_idle(self) -> None:
        """Work until no event is left. Raises as `run` does, and redis-py's errors."""
        with self._attached():
            self.consumer.run_until_idle()

    def stop(self) -> None:
        """Make `run` return after the current event; called from another thread."""
        self.consumer.stop()

    def lag(self) -> int:
        """Return the number of journal entries and signals that the group has not done yet."""
        return sum(self.consumer.lag().values())

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return entries that were given up, at most `limit` of each partition, oldest first."""
        return self.consumer.dead_letters(limit=limit)

    def count_dead_letters(self) -> int:
        """Return the number of entries that were given up."""
        return self.consumer.count_dead_letters()

    def retry_dead_letters(self) -> RetryReport:
        """Call the handlers with all dead letters, and remove those that succeed. Raises as `run` does."""
        with self._attached():
            return self.consumer.retry_dead_letters()

    @contextmanager
    def _attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for handler in dict.fromkeys(self._handlers.all()):
                if isinstance(handler, StoreHandler):
                    handler.attach(self._store)
                    stack.callback(handler.detach)
            yield


class _EventConsumer(JournalConsumer):
    def __init__(
        self,
        store: JournalledStore,
        group: str,
        handlers: Handlers,
        *,
        worker_id: str | None,
        claim_seconds: float,
        max_attempts: int,
        backoff_seconds: float,
    ) -> None:
        event_store = EventStore(store)
        super().__init__(
            event_store,
            group,
            _unused,
            worker_id=worker_id,
            claim_seconds=claim_seconds,
            max_attempts=max_attempts,
            backoff_seconds=backoff_seconds,
            housekeeping=self._listen,
        )
        self._store = store
        self._streams: EventStreams = event_store.streams
        self._handlers = handlers
        self._listens_again = 0.0
        self._under_way: dict[int, _UnderWay] = {}

    def _call(self, partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        for entry_id, text in entries:
            under_way = self._under_way.get(partition)
            if under_way is None or under_way.entry_id != entry_id:
                under_way = self._under_way[partition] = _UnderWay(entry_id)
            self._tell(under_way, list(self._streams.read(partition, entry_id, text)))
            del self._under_way[partition]

    def _tell(self, under_way: "_UnderWay", events: Sequence[CreditEvent]) -> None:
        """Call the handlers that have not had the events of an entry yet, then raise a failure."""
        failures: list[Exception] = []
        for handler in dict.fromkeys(handler for event in events for handler in self._handlers.of(event.type)):
            for event in events:
                told = (handler, event.event_id)
                if told in under_way.told or handler not in self._handlers.of(event.type):
                    continue
                try:
                    self._complete(handler(event))
                except GiveUpError as error:
                    under_way.given_up.append(f"{name_of(handler)}: {error}")
                except Exception as error:
                    error.add_note(f"raised by the handler {name_of(handler)} of {event.type} {event.event_id}")
                    failures.append(error)
                    break  # later events must wait for this one
                under_way.told.add(told)
        if failures:
            # RetryLaterError comes first: the attempts of a broken handler must not count for it.
            raise next((error for error in failures if isinstance(error, RetryLaterError)), failures[0])
        if under_way.given_up:
            raise GiveUpError("; ".join(under_way.given_up))

    def _is_lost(self, partition: int, text: bytes) -> bool:
        return super()._is_lost(partition, text) and not self._streams.is_signals(partition)

    def _is_coroutine(self) -> bool:
        return any(is_coroutine(handler) for handler in self._handlers.all())

    def _listen(self, _: Collection[int]) -> None:
        if time.monotonic() >= self._listens_again and any(self._handlers.of(signal) for signal in SIGNALS):
            listen(self._store, _LISTENS_SECONDS)
            self._listens_again = time.monotonic() + _LISTENS_AGAIN_SECONDS


def _unused(_: JournalEntry) -> None:
    """Do nothing: this consumer calls handlers itself."""


class _UnderWay:
    """The progress of an entry: the events each handler was told, and those given up."""

    __slots__ = ("entry_id", "given_up", "told")

    def __init__(self, entry_id: str) -> None:
        self.entry_id = entry_id
        self.told: set[tuple[EventHandler, str]] = set()
        self.given_up: list[str] = []
