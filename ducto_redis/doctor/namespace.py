"""The examination of the namespace: its partitions, the consumer groups, the pricing document."""

import time
from collections.abc import Iterator, Mapping

from ducto_redis.delivery.streams import EventStore
from ducto_redis.display import counted
from ducto_redis.doctor.findings import Finding
from ducto_redis.engine.scripts import run_script
from ducto_redis.errors import CreditError, PricingNotLoadedError
from ducto_redis.journal.dead_letters import DeadLetters
from ducto_redis.journal.group import LEDGER_GROUP, Group
from ducto_redis.pricing import PricingEngine
from ducto_redis.run_sync import run_sync
from ducto_redis.store import JournalledStore

_LAG_IN_ORDER = 10_000
_GROUP_FIELD = "group/"


def examine_namespace(store: JournalledStore, journal_limit: int) -> Iterator[Finding]:
    """Yield findings on the namespace's records, each group's lag and dead letters, and the active pricing document.

    Args:
        store: the store of the namespace.
        journal_limit: the length of a partition's journal above which managers admit nothing new.
    """
    records = [_record(store, partition) for partition in store.partitions()]
    partitions = _partitions(store, records)
    yield partitions
    if partitions.status != "ok":
        return
    for name in _groups(records):
        yield from _group(store, name, journal_limit)
    yield _pricing(store)


def _record(store: JournalledStore, partition: int) -> dict[str, str]:
    reply = run_script(store.redis(), store.scripts["read_partition"], (store.namespace.meta(partition),), ())
    texts = [part.decode() for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _partitions(store: JournalledStore, records: list[dict[str, str]]) -> Finding:
    name = store.namespace.name
    if not any(records):
        return Finding(
            "namespace",
            "warning",
            f"{name!r} does not exist",
            "check DUCTO_NAMESPACE; the first application, or `ducto credits add`, creates it",
        )
    created_with = {record["partitions"] for record in records if record}
    if created_with != {str(store.namespace.partitions)}:
        number = ", ".join(sorted(created_with))
        return Finding("namespace", "error", f"{name!r} has {number} partitions", f"set DUCTO_PARTITIONS={number}")
    first = records[0].get("namespace_id")
    lost = [
        str(partition)
        for partition, record in enumerate(records)
        if record.get("state") != "open" or record["namespace_id"] != first
    ]
    if lost:
        return Finding(
            "namespace",
            "error",
            f"{name!r} lacks the records of partition {', '.join(lost)}: a server lost its data",
            "restore its data (AOF, RDB or a replica)",
        )
    epochs = sorted({int(record["epoch"]) for record in records})
    return Finding(
        "namespace", "ok", f"{name!r}, {counted(len(records), 'partition')}, epoch {', '.join(map(str, epochs))}"
    )


def _groups(records: list[Mapping[str, str]] | list[dict[str, str]]) -> list[str]:
    found = {
        field.removeprefix(_GROUP_FIELD) for record in records for field in record if field.startswith(_GROUP_FIELD)
    }
    return [LEDGER_GROUP, *sorted(found - {LEDGER_GROUP})]


def _group(store: JournalledStore, name: str, journal_limit: int) -> Iterator[Finding]:
    group = Group(store, name)
    lag = group.lag()
    behind, longest = sum(lag.values()), max(lag.values())
    seconds, microseconds = store.redis().time()
    now_ms = seconds * 1000 + microseconds // 1000
    workers = store.redis().zcount(store.namespace.workers(name), f"({now_ms}", "+inf")
    check = f"group {name}"
    detail = f"{counted(behind, 'entry', 'entries')} behind, {counted(workers, 'worker')}"
    start = "start `ducto worker`" if name == LEDGER_GROUP else f"start the consumer of {name!r}, or forget the group"
    if longest > journal_limit // 2:
        yield Finding(check, "error", f"{detail}; at {journal_limit} a partition admits nothing new", start)
    elif not workers and not store.local:
        yield Finding(check, "error" if behind else "warning", detail, start)
    elif behind > _LAG_IN_ORDER:
        yield Finding(check, "warning", detail, "start more workers, or find the cause of the delay")
    else:
        yield Finding(check, "ok", detail)
    yield from _letters(store, group)


def _letters(store: JournalledStore, group: Group) -> Iterator[Finding]:
    entries = DeadLetters(group).count()
    # Event workers also read refusals, from streams of their own; their group counts both.
    signals = DeadLetters(Group(EventStore(store), group.name)).count() - entries
    if not entries and not signals:
        return
    given_up = [counted(entries, "entry", "entries")] if entries else []
    given_up += [counted(signals, "refusal")] if signals else []
    if group.name == LEDGER_GROUP:
        advice = "read their reasons (JournalConsumer.dead_letters), repair the cause, and retry them"
        advice += " (retry_dead_letters)"
    else:
        advice = f"read their reasons: ducto events dead-letters --group {group.name}; repair the cause, then: ducto"
        advice += f" events retry --group {group.name} with its handlers; a consumer of your own: retry_dead_letters"
    yield Finding(
        f"dead letters {group.name}",
        "error" if group.name == LEDGER_GROUP else "warning",
        f"{' and '.join(given_up)} given up",
        advice,
    )


def _pricing(store: JournalledStore) -> Finding:
    try:
        state = run_sync(store.read_pricing())
    except PricingNotLoadedError:
        return Finding("pricing", "warning", "no document is active", "publish one: ducto pricing set FILE")
    try:
        PricingEngine.from_json(state.asked.document)
    except CreditError as error:
        return Finding(
            "pricing",
            "error",
            f"version {state.active} cannot be read: {error}",
            "upgrade this package, or activate another version: ducto pricing activate",
        )
    return Finding(
        "pricing", "ok", f"version {state.active} is active, since {_since(state.asked.published_at.timestamp())}"
    )


def _since(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(timestamp))
