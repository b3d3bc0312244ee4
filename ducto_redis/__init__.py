"""ducto-redis: the credit and metering engine that AI products put in front of their models.

A name is imported when it is first used: `import ducto_redis` alone loads neither redis nor msgspec.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ducto_redis.errors import (
        AccountFrozenError,
        AlreadyChargedError,
        CapNotFoundError,
        CapReachedError,
        ConcurrencyLimitError,
        ConfigError,
        ConsumerGroupLostError,
        CreditError,
        ExpressionError,
        FeatureNotEntitledError,
        GiveUpError,
        IdempotencyConflictError,
        InsufficientCreditsError,
        InvalidAmountError,
        InvalidIdError,
        InvalidMetadataError,
        InvalidUsageError,
        InvalidValueError,
        JournalFullError,
        LeaseClosedError,
        LeaseExpiredError,
        LeaseNotFoundError,
        LedgerError,
        LedgerUnavailableError,
        MemberNotFoundError,
        NoAccountError,
        PartitionMismatchError,
        PlanNotFoundError,
        PricingNotLoadedError,
        PricingVersionNotFoundError,
        RecoveryNeededError,
        RefundError,
        RetryLaterError,
        StoreError,
        StoreUnavailableError,
        TeamNotFoundError,
        TransactionNotFoundError,
        UnpricedModelError,
        WebhookSignatureError,
    )
    from ducto_redis.events.types import CreditEvent
    from ducto_redis.manager import AsyncCreditManager, CreditManager
    from ducto_redis.manager.decorating import current_meter
    from ducto_redis.metrics import ToolCall, UsageMetrics
    from ducto_redis.payer import Payer
    from ducto_redis.pricing import CostBreakdown, PricingEngine
    from ducto_redis.store import CreditStore, MemoryStore, RedisStore

__version__ = "0.1.0"

__all__ = [
    "AccountFrozenError",
    "AlreadyChargedError",
    "AsyncCreditManager",
    "CapNotFoundError",
    "CapReachedError",
    "ConcurrencyLimitError",
    "ConfigError",
    "ConsumerGroupLostError",
    "CostBreakdown",
    "CreditError",
    "CreditEvent",
    "CreditManager",
    "CreditStore",
    "ExpressionError",
    "FeatureNotEntitledError",
    "GiveUpError",
    "IdempotencyConflictError",
    "InsufficientCreditsError",
    "InvalidAmountError",
    "InvalidIdError",
    "InvalidMetadataError",
    "InvalidUsageError",
    "InvalidValueError",
    "JournalFullError",
    "LeaseClosedError",
    "LeaseExpiredError",
    "LeaseNotFoundError",
    "LedgerError",
    "LedgerUnavailableError",
    "MemberNotFoundError",
    "MemoryStore",
    "NoAccountError",
    "PartitionMismatchError",
    "Payer",
    "PlanNotFoundError",
    "PricingEngine",
    "PricingNotLoadedError",
    "PricingVersionNotFoundError",
    "RecoveryNeededError",
    "RedisStore",
    "RefundError",
    "RetryLaterError",
    "StoreError",
    "StoreUnavailableError",
    "TeamNotFoundError",
    "ToolCall",
    "TransactionNotFoundError",
    "UnpricedModelError",
    "UsageMetrics",
    "WebhookSignatureError",
    "__version__",
    "current_meter",
]

if not TYPE_CHECKING:
    # The modules that have the names above, each before those that import it.
    _HOMES = ("errors", "metrics", "payer", "events.types", "pricing", "store", "manager", "manager.decorating")

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"{__name__}.{home}")
                if hasattr(module, name):
                    return globals().setdefault(name, getattr(module, name))
        if any(name == home.partition(".")[0] for home in _HOMES):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
