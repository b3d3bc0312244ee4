"""Entries that a consumer group gave up, kept beside the journal until somebody looks at them."""

import logging
from collections.abc import Callable, Iterator

from msgspec import Struct

from ducto_redis.journal.group import Group

logger = logging.getLogger(__name__)

_PAGE = 100


class DeadLetter(Struct, frozen=True, kw_only=True):
    """An entry that was given up.

    Attributes:
        letter_id: its id among the dead letters; the first part is when it was given up, in milliseconds.
        partition, entry_id, text: the journal entry.
        reason: why it was given up.
        attempts: how often it was tried.
    """

    letter_id: str
    partition: int
    entry_id: str
    text: bytes
    reason: str
    attempts: int


class RetryReport(Struct, frozen=True, kw_only=True):
    """The outcome of dead letters that were handed over again."""

    succeeded: int
    failed: int


class DeadLetters:
    """The dead letters of a consumer group."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def oldest(self, limit: int) -> list[DeadLetter]:
        """At most `limit` of each partition, oldest first."""
        return [letter for partition in self._group.partitions for letter in self._page(partition, "-", limit)]

    def count(self) -> int:
        """Return their number."""
        pipeline = self._group.client.pipeline(transaction=False)
        for partition in self._group.partitions:
            pipeline.xlen(self._key(partition))
        return sum(pipeline.execute())

    def retry(self, handle: Callable[[DeadLetter], None]) -> RetryReport:
        """Hand each over once; remove those that succeed."""
        succeeded = failed = 0
        for partition in self._group.partitions:
            for letter in self._all(partition):
                try:
                    handle(letter)
                except Exception:
                    failed += 1
                    logger.exception("dead letter %s of partition %d failed again", letter.entry_id, partition)
                else:
                    succeeded += 1
                    self._group.client.xdel(self._key(partition), letter.letter_id)
        return RetryReport(succeeded=succeeded, failed=failed)

    def _all(self, partition: int) -> Iterator[DeadLetter]:
        page = self._page(partition, "-", _PAGE)
        while page:
            yield from page
            page = self._page(partition, f"({page[-1].letter_id}", _PAGE)

    def _page(self, partition: int, first: str, count: int) -> list[DeadLetter]:
        return [
            DeadLetter(
                letter_id=letter_id.decode(),
                partition=partition,
                entry_id=fields[b"entry_id"].decode(),
                text=fields[b"entry"],
                reason=fields[b"reason"].decode(errors="replace"),
                attempts=int(fields[b"attempts"]),
            )
            for letter_id, fields in self._group.client.xrange(self._key(partition), min=first, count=count)
        ]

    def _key(self, partition: int) -> bytes:
        return self._group.namespace.dead_letters(partition, self._group.name)
