"""Delivery of events to people: handlers, webhooks, automatic top-ups and the tail, fed from the journal."""

from ducto_redis.delivery.dead_letters import EventLetter, list_event_letters
from ducto_redis.delivery.tail import EventTail
from ducto_redis.delivery.top_up import AutoTopUp, TopUp
from ducto_redis.delivery.webhook import Webhook
from ducto_redis.delivery.worker import EventWorker

__all__ = ["AutoTopUp", "EventLetter", "EventTail", "EventWorker", "TopUp", "Webhook", "list_event_letters"]
