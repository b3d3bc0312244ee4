"""ducto-redis: the credit and metering engine that AI products put in front of their models."""

from ducto_redis.events.types import CreditEvent
from ducto_redis.manager import AsyncCreditManager, CreditManager
from ducto_redis.manager.decorating import current_meter
from ducto_redis.metrics import ToolCall, UsageMetrics
from ducto_redis.payer import Payer
from ducto_redis.pricing import CostBreakdown, PricingEngine
from ducto_redis.store import CreditStore, MemoryStore, RedisStore

__all__ = [
    "AsyncCreditManager",
    "CostBreakdown",
    "CreditEvent",
    "CreditManager",
    "CreditStore",
    "MemoryStore",
    "Payer",
    "PricingEngine",
    "RedisStore",
    "ToolCall",
    "UsageMetrics",
    "current_meter",
]
