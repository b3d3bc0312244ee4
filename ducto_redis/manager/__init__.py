"""Managers: price, hold and charge; `AsyncCreditManager` for event loops, `CreditManager`, its blocking face."""

from ducto_redis.manager.asynchronous import AsyncCreditManager
from ducto_redis.manager.blocking import CreditManager
from ducto_redis.manager.meter import AsyncMeter, Meter

__all__ = ["AsyncCreditManager", "AsyncMeter", "CreditManager", "Meter"]
