"""Dead letters of event workers, for people to read."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from ducto_redis.delivery.streams import EventStore, EventStreams
from ducto_redis.engine.entry import UnreadableEntryError
from ducto_redis.engine.ids import entry_ms
from ducto_redis.engine.text import time_of
from ducto_redis.journal.dead_letters import DeadLetter, DeadLetters
from ducto_redis.journal.group import Group
from ducto_redis.store.contract import CreditStore, journalled


class EventLetter(Struct, frozen=True, kw_only=True):
    """The events of one entry that was given up.

    Attributes:
        given_up_at: the time.
        account: the account of the events; empty if the entry cannot be read.
        event_types, event_ids: of all events of the entry; some of them may have succeeded.
        reason: the handler's error.
        attempts: the number of attempts.
    """

    given_up_at: datetime
    account: str
    event_types: Sequence[str]
    event_ids: Sequence[str]
    reason: str
    attempts: int


def list_event_letters(store: CreditStore, group: str, *, limit: int = 100) -> list[EventLetter]:
    """Return the dead letters of a group of event workers, at most `limit` of each stream, oldest first."""
    events = EventStore(journalled(store, "event workers"))
    letters = [_read(events.streams, letter) for letter in DeadLetters(Group(events, group)).oldest(limit)]
    return sorted(letters, key=lambda letter: letter.given_up_at)


def _read(streams: EventStreams, letter: DeadLetter) -> EventLetter:
    try:
        events = list(streams.read(letter.partition, letter.entry_id, letter.text))
    except UnreadableEntryError:
        events = []
    return EventLetter(
        given_up_at=time_of(entry_ms(letter.letter_id)),
        account=events[0].account if events else "",
        event_types=[event.type.value for event in events],
        event_ids=[event.event_id for event in events],
        reason=letter.reason,
        attempts=letter.attempts,
    )
