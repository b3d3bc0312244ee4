"""The whole examination, from the connection to the ledger."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ducto_redis.doctor.findings import Finding
from ducto_redis.doctor.ledger import examine_ledger
from ducto_redis.doctor.namespace import examine_namespace
from ducto_redis.doctor.server import examine_server
from ducto_redis.errors import CreditError
from ducto_redis.store import JournalledStore

if TYPE_CHECKING:
    from ducto_redis.ledger import Ledger


def examine(store: JournalledStore, ledger: "Ledger | None", journal_limit: int) -> Iterator[Finding]:
    """Yield the findings on server, namespace and ledger. Nothing is changed.

    Args:
        store: the engine.
        ledger: the ledger, or None if none is set.
        journal_limit: the length of a partition's journal above which managers admit nothing new.
    """
    try:
        store.redis().ping()
        yield Finding("connection", "ok", "the server answers")
    except RedisError as error:
        yield Finding("connection", "error", str(error), "check DUCTO_REDIS_URL, and that the server runs")
        yield from examine_ledger(ledger, None)
        return
    for examination in (
        examine_server(store),
        examine_namespace(store, journal_limit),
        examine_ledger(ledger, store),
    ):
        try:
            yield from examination
        except (RedisError, CreditError) as error:
            yield Finding("connection", "error", str(error), "check the server's log, and its user's permissions")
