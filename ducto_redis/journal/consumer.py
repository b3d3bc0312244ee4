"""Hands a journal's entries to a handler: at least once, and in order for every account."""

import asyncio
import inspect
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeAlias

from redis.exceptions import RedisError

from ducto_redis.engine.entry import JournalEntry, UnreadableEntryError, decode_entry
from ducto_redis.errors import ConfigError, ConsumerGroupLostError, GiveUpError, RetryLaterError, StoreError
from ducto_redis.journal.dead_letters import DeadLetter, DeadLetters, RetryReport
from ducto_redis.journal.division import Division
from ducto_redis.journal.group import LEDGER_GROUP, Group, JournalStore
from ducto_redis.journal.reader import PartitionReader
from ducto_redis.store.contract import CreditStore

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[JournalEntry], Awaitable[None] | None]
BatchHandler: TypeAlias = Callable[[int, Sequence[tuple[str, bytes]]], None]

_SHORTEST_WAIT_SECONDS = 0.002
_LONGEST_WAIT_SECONDS = 0.1
_SHORTEST_RECONNECT_SECONDS = 0.05
_LONGEST_RECONNECT_SECONDS = 5.0
_ACKNOWLEDGED_EVERY_SECONDS = 1.0


class JournalConsumer:
    """A consumer of every change to every account.

    Consumers with the same group share the work: each partition of the journal is read by one of them at a time, and
    what a dead one left is taken over. The group is registered at the first run, from the beginning of what the journal
    holds; from then on the journal keeps what the group has not acknowledged.

    A handler sees an account's entries in order, each at least once: after a take-over, some may come again. One that
    raises gets the entry again, after a growing delay, while its partition waits and the others go on. After
    `max_attempts` the entry goes to the group's dead letters, with the reason. A handler that raises RetryLaterError
    gets it again without a limit; after GiveUpError it is a dead letter at once.

    Args:
        store: whose journal it is.
        group: the consumer group's name. "ledger" is the ledger's own.
        handler: called with each entry; may be a coroutine function.
        worker_id: another one for every consumer; made up by default.
        batch: entries that are read at a time.
        claim_seconds: within which the partitions of a consumer that died are taken over. A call of the handler should
            take less.
        max_attempts: calls of the handler before an entry becomes a dead letter.
        backoff_seconds: the first delay before another attempt; it doubles with each.
        batch_handler: called with a partition and all that was read of it, (entry id, text) as the journal holds them,
            instead of `handler`. A batch that keeps failing is handed over entry by entry.
        housekeeping: called about once in a second with the partitions that this consumer owns.

    Raises:
        ConfigError: for the group "ledger", or if there is no handler.
    """

    _own_groups: tuple[str, ...] = ()

    def __init__(
        self,
        store: JournalStore | CreditStore,
        group: str,
        handler: Handler | None = None,
        *,
        worker_id: str | None = None,
        batch: int = 500,
        claim_seconds: float = 10.0,
        max_attempts: int = 5,
        backoff_seconds: float = 0.1,
        batch_handler: BatchHandler | None = None,
        housekeeping: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        if group == LEDGER_GROUP and group not in self._own_groups:
            raise ConfigError("the group 'ledger' is the ledger's own: choose another name")
        if (handler is None) == (batch_handler is None):
            raise ConfigError("a consumer needs a handler or a batch_handler, and not both")
        if batch < 1 or max_attempts < 1 or claim_seconds <= 0 or backoff_seconds < 0:
            raise ConfigError(
                "batch and max_attempts must be at least 1, claim_seconds above 0, backoff_seconds 0 or more"
            )
        self.group = group
        self.worker_id = worker_id or f"{os.getpid()}-{secrets.token_hex(6)}"
        self.redis_error: str | None = None
        """What is wrong with the server now, or None."""
        self._group = Group(store, group)
        self._division = Division(self._group, self.worker_id, claim_seconds)
        self._letters = DeadLetters(self._group)
        self._handler = handler
        self._batch_handler = batch_handler
        self._housekeeping = housekeeping
        self._batch = batch
        self._max_attempts = max_attempts
        self._backoff_seconds = backoff_seconds
        self._readers: dict[int, PartitionReader] = {}
        self._registered = False
        self._stopping = threading.Event()
        self._draining = False
        self._runner: asyncio.Runner | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that this consumer owns now."""
        return tuple(sorted(self._division.owned))

    def stop(self) -> None:
        """Let `run` return, once the entry or batch that is being handled is done.

        Call it from another thread; a signal handler, which may interrupt `run` anywhere, starts one for it.
        """
        self._stopping.set()

    def drain(self) -> None:
        """Let `run` return, once nothing is left that this consumer could read."""
        self._draining = True

    def run(self) -> None:
        """Consume until `stop` is called. While the server is away it is tried again.

        Raises:
            ConsumerGroupLostError: if the group was removed meanwhile.
            ConfigError: if the handler is a coroutine function, and an event loop runs in this thread already.
        """
        self._refuse_a_second_loop()
        delay = _SHORTEST_WAIT_SECONDS
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    busy = self._step()
                except ConsumerGroupLostError:
                    raise
                except (RedisError, StoreError) as error:
                    failures = min(failures + 1, 10)
                    self._server_failed(error)
                    longest = min(_SHORTEST_RECONNECT_SECONDS * 2**failures, _LONGEST_RECONNECT_SECONDS)
                    self._stopping.wait(longest * random.uniform(0.5, 1.0))
                    continue
                failures = 0
                self._server_answers()
                delay = _SHORTEST_WAIT_SECONDS if busy else min(delay * 2, _LONGEST_WAIT_SECONDS)
                if not busy:
                    if self._draining and not any(reader.entries for reader in self._readers.values()):
                        return
                    self._stopping.wait(min(delay, self._division.due_in_seconds))
        finally:
            self._leave()

    def run_until_idle(self) -> None:
        """Consume until nothing is left that this consumer could read, or `stop` is called.

        Raises:
            RecoveryNeededError, ConsumerGroupLostError; redis-py's errors where the server cannot be reached.
            ConfigError: as `run` does.
        """
        self._refuse_a_second_loop()
        try:
            while not self._stopping.is_set():
                if self._step():
                    continue
                waiting = [reader.ready_in_seconds for reader in self._readers.values() if reader.entries]
                if not waiting:
                    return
                self._stopping.wait(min(*waiting, self._division.due_in_seconds, _LONGEST_WAIT_SECONDS))
        finally:
            self._leave()

    def lag(self) -> dict[int, int]:
        """Return the number of entries that the group has not acknowledged, by partition."""
        return self._group.lag()

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the group's dead letters, at most `limit` of each partition, oldest first."""
        return self._letters.oldest(limit)

    def count_dead_letters(self) -> int:
        """Return the number of the group's dead letters."""
        return self._letters.count()

    def retry_dead_letters(self) -> RetryReport:
        """Hand every dead letter to the handler once more; those that succeed are removed. Raises as `run` does."""
        self._refuse_a_second_loop()
        try:
            return self._letters.retry(self._handle_letter)
        finally:
            self._close_runner()

    def _step(self) -> bool:
        """Read what there is, hand it over, acknowledge it. Returns whether there was anything."""
        self._keep_claims()
        self._read()
        busy = False
        for reader in list(self._readers.values()):
            if self._stopping.is_set():
                break
            self._keep_claims_when_due()
            if self._owns(reader) and reader.entries and reader.ready_in_seconds == 0:
                busy = True
                self._hand_over(reader)
        return busy or any(not reader.entries and reader.idle_id is None for reader in self._readers.values())

    def _keep_claims(self) -> None:
        if not self._registered:
            self._group.register()
            self._registered = True
        if self._division.due_in_seconds == 0:
            self._division.renew()
            if self._housekeeping is not None:
                self._housekeeping(self.partitions)
        owned = self._division.owned
        for partition, reader in list(self._readers.items()):
            if owned.get(partition) != reader.token:
                del self._readers[partition]
        for partition, token in owned.items():
            if partition not in self._readers:
                self._readers[partition] = PartitionReader(partition, token, self._backoff_seconds)

    def _keep_claims_when_due(self) -> None:
        if self._division.due_in_seconds == 0:
            self._keep_claims()

    def _owns(self, reader: PartitionReader) -> bool:
        return self._readers.get(reader.partition) is reader

    def _read(self) -> None:
        empty = {partition: reader for partition, reader in self._readers.items() if not reader.entries}
        idle = {partition: reader.idle_id for partition, reader in empty.items() if reader.idle_id is not None}
        new = self._group.has_new(idle)
        wanted = {
            partition: (reader.token, reader.position)
            for partition, reader in empty.items()
            if partition in new or partition not in idle
        }
        for partition, read in self._group.read(wanted, self._batch).items():
            if read.status == "lost":
                self._lose(partition)
                continue
            if read.status == "recreated":
                logger.warning(
                    "group %r of partition %d was gone and was created again: all that the journal holds comes again",
                    self.group,
                    partition,
                )
            empty[partition].take(read)

    def _hand_over(self, reader: PartitionReader) -> None:
        done: list[str] = []
        acknowledged = time.monotonic()
        while reader.entries and not self._stopping.is_set():
            if not self._hand_over_first(reader, done):
                break
            if time.monotonic() - acknowledged > _ACKNOWLEDGED_EVERY_SECONDS:
                if not self._acknowledge(reader, done):
                    return
                done, acknowledged = [], time.monotonic()
            self._keep_claims_when_due()
            if not self._owns(reader):
                return
        self._acknowledge(reader, done)

    def _hand_over_first(self, reader: PartitionReader, done: list[str]) -> bool:
        """Hand the first entry over, or the batch. Returns whether the partition can go on at once."""
        count = len(reader.entries) if self._batch_handler is not None and not reader.one_by_one else 1
        entries = [reader.entries[index] for index in range(count)]
        if self._handler is not None and self._is_lost(reader.partition, entries[0][1]):
            return self._give_up(reader, "the entry was deleted from the journal")
        try:
            self._call(reader.partition, entries)
        except RetryLaterError as error:
            delay = reader.postpone()
            logger.warning("group %r waits %.1f s, partition %d: %s", self.group, delay, reader.partition, error)
            return False
        except (UnreadableEntryError, GiveUpError) as error:
            if count > 1:  # any of them may be the one
                reader.hand_over_one_by_one()
                return True
            return self._give_up(reader, str(error))
        except Exception as error:
            return self._failed(reader, count, error)
        done.extend(entry_id for entry_id, _ in entries)
        reader.succeeded(count)
        return True

    def _call(self, partition: int, entries: Sequence[tuple[str, bytes]]) -> None:
        if self._batch_handler is not None:
            self._batch_handler(partition, entries)
            return
        assert self._handler is not None
        for entry_id, text in entries:
            self._complete(self._handler(decode_entry(partition, entry_id, text)))

    def _complete(self, result: Awaitable[None] | None) -> None:
        """Wait for what a handler returned."""
        if inspect.isawaitable(result):
            if self._runner is None:
                self._runner = asyncio.Runner()
            self._runner.run(_await(result))

    def _is_lost(self, partition: int, text: bytes) -> bool:
        """Tell whether an entry that was read is missing from the stream, and should be there."""
        return not text

    def _refuse_a_second_loop(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._is_coroutine():
            raise ConfigError(
                "a consumer blocks its thread, and runs a coroutine handler on an event loop of its own: call it in"
                " another thread, with asyncio.to_thread(consumer.run)"
            )

    def _is_coroutine(self) -> bool:
        return inspect.iscoroutinefunction(self._handler)

    def _failed(self, reader: PartitionReader, count: int, error: Exception) -> bool:
        reader.attempts += 1
        entry_id = reader.entries[0][0]
        what = f"entry {entry_id}" if count == 1 else f"{count} entries from {entry_id}"
        logger.warning(
            "group %r failed on %s of partition %d, attempt %d of %d",
            self.group,
            what,
            reader.partition,
            reader.attempts,
            self._max_attempts,
            exc_info=error,
        )
        if reader.attempts < self._max_attempts:
            reader.postpone()
            return False
        if count > 1:
            reader.hand_over_one_by_one()
            return True
        return self._give_up(reader, f"{type(error).__name__}: {error}")

    def _give_up(self, reader: PartitionReader, reason: str) -> bool:
        entry = reader.entries[0]
        logger.error(
            "group %r gives entry %s of partition %d up, it is a dead letter: %s",
            self.group,
            entry[0],
            reader.partition,
            reason,
        )
        if not self._group.dead_letter(reader.partition, reader.token, entry, reason, max(1, reader.attempts)):
            self._lose(reader.partition)
            return False
        reader.succeeded(1)
        return True

    def _acknowledge(self, reader: PartitionReader, done: Sequence[str]) -> bool:
        if done and not self._group.acknowledge(reader.partition, reader.token, done):
            self._lose(reader.partition)
            return False
        return True

    def _handle_letter(self, letter: DeadLetter) -> None:
        self._call(letter.partition, [(letter.entry_id, letter.text)])

    def _lose(self, partition: int) -> None:
        self._division.lose(partition)
        self._readers.pop(partition, None)

    def _server_failed(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        if message != self.redis_error:
            logger.error("consumer group %r cannot go on, it tries again: %s", self.group, message)
        self.redis_error = message
        # What was sent last may or may not have taken effect: claims are renewed, and what is pending is read again.
        self._registered = False
        self._division.expire()
        for reader in self._readers.values():
            reader.begin_again()

    def _server_answers(self) -> None:
        if self.redis_error is not None:
            logger.warning("consumer group %r goes on", self.group)
            self.redis_error = None

    def _leave(self) -> None:
        self._readers.clear()
        try:
            self._division.leave()
        except (RedisError, ConsumerGroupLostError) as error:
            logger.warning("consumer %s left without a word, its claims run out: %s", self.worker_id, error)
        self._close_runner()

    def _close_runner(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable
