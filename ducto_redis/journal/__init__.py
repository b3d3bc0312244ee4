"""The journal's consumers: at least once, in order per account, with take-over and dead letters.

The ledger's worker is one, the worker that tells events to handlers, webhooks and automatic top-ups another.
"""

from ducto_redis.journal.consumer import JournalConsumer
from ducto_redis.journal.dead_letters import DeadLetter, RetryReport
from ducto_redis.journal.event_letters import EventLetter, list_event_letters
from ducto_redis.journal.event_worker import EventWorker
from ducto_redis.journal.group import JournalStore, forget_group
from ducto_redis.journal.tail import EventTail
from ducto_redis.journal.top_up import AutoTopUp, TopUp
from ducto_redis.journal.webhooks import Webhook
from ducto_redis.journal.worker import LedgerWorker, WorkerHealth

__all__ = [
    "AutoTopUp",
    "DeadLetter",
    "EventLetter",
    "EventTail",
    "EventWorker",
    "JournalConsumer",
    "JournalStore",
    "LedgerWorker",
    "RetryReport",
    "TopUp",
    "Webhook",
    "WorkerHealth",
    "forget_group",
    "list_event_letters",
]
