"""The journal's consumers: at least once, in order per account, with take-over and dead letters.

The ledger's worker is one; the event worker of `ducto_redis.delivery` is another.
"""

from ducto_redis.deprecation import moved_names
from ducto_redis.journal.consumer import JournalConsumer
from ducto_redis.journal.dead_letters import DeadLetter, RetryReport
from ducto_redis.journal.group import JournalStore, forget_group
from ducto_redis.journal.worker import LedgerWorker, WorkerHealth

__all__ = [
    "DeadLetter",
    "JournalConsumer",
    "JournalStore",
    "LedgerWorker",
    "RetryReport",
    "WorkerHealth",
    "forget_group",
]

__getattr__ = moved_names(
    __name__,
    {
        name: f"ducto_redis.delivery:{name}"
        for name in ("AutoTopUp", "EventLetter", "EventTail", "EventWorker", "TopUp", "Webhook", "list_event_letters")
    },
)
