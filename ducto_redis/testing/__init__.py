"""The conformance suite: what every store must do, as tests.

    pytest --ducto-store=mypkg.testing:make_store

runs it on the stores that a function makes, see `MakeStore`; docs/custom-stores.md shows one. Who wants the suite among
tests of their own makes a subclass:

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self) -> MakeStore:
            return make_my_store

It needs pytest and pytest-asyncio: pip install 'ducto-redis[conformance]'. Every operation of every test is watched,
see `WatchedStore`.
"""

import pytest

# Before the modules with the tests are imported: failed assertions in them are explained as in any test file.
_PARTS = (
    "accounts",
    "adjustments",
    "allowance",
    "asking",
    "budgets",
    "caller",
    "caps",
    "concurrency",
    "describing",
    "dry_runs",
    "expiry",
    "freezing",
    "grant_expiry",
    "grants",
    "inspection",
    "kept_values",
    "leases",
    "loss",
    "low_balance",
    "namespace",
    "new_accounts",
    "own_caps",
    "plans",
    "pricing",
    "refunds",
    "rolling_caps",
    "teams",
    "watching",
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from ducto_redis.testing.accounts import AccountConformance  # noqa: E402
from ducto_redis.testing.adjustments import AdjustmentConformance  # noqa: E402
from ducto_redis.testing.allowance import AllowanceConformance  # noqa: E402
from ducto_redis.testing.asking import AskingConformance  # noqa: E402
from ducto_redis.testing.budgets import BudgetConformance  # noqa: E402
from ducto_redis.testing.caps import CapConformance  # noqa: E402
from ducto_redis.testing.concurrency import ConcurrencyConformance  # noqa: E402
from ducto_redis.testing.describing import DescribingConformance  # noqa: E402
from ducto_redis.testing.dry_runs import DryRunConformance  # noqa: E402
from ducto_redis.testing.expiry import ExpiryConformance  # noqa: E402
from ducto_redis.testing.freezing import FreezingConformance  # noqa: E402
from ducto_redis.testing.grant_expiry import GrantExpiryConformance  # noqa: E402
from ducto_redis.testing.grants import GrantConformance  # noqa: E402
from ducto_redis.testing.inspection import Snapshot, assert_fold, dump, read_journal  # noqa: E402
from ducto_redis.testing.kept_values import KeptValueConformance  # noqa: E402
from ducto_redis.testing.leases import LeaseConformance  # noqa: E402
from ducto_redis.testing.loss import LossConformance  # noqa: E402
from ducto_redis.testing.low_balance import LowBalanceConformance  # noqa: E402
from ducto_redis.testing.namespace import NamespaceConformance  # noqa: E402
from ducto_redis.testing.new_accounts import NewAccountConformance  # noqa: E402
from ducto_redis.testing.opening import MakeStore, OpenStore  # noqa: E402
from ducto_redis.testing.own_caps import OwnCapConformance  # noqa: E402
from ducto_redis.testing.plans import PlanConformance  # noqa: E402
from ducto_redis.testing.pricing import PricingConformance  # noqa: E402
from ducto_redis.testing.refunds import RefundConformance  # noqa: E402
from ducto_redis.testing.rolling_caps import RollingCapConformance  # noqa: E402
from ducto_redis.testing.teams import TeamConformance  # noqa: E402


class StoreConformance(
    AccountConformance,
    AdjustmentConformance,
    AllowanceConformance,
    AskingConformance,
    BudgetConformance,
    CapConformance,
    ConcurrencyConformance,
    DescribingConformance,
    DryRunConformance,
    ExpiryConformance,
    FreezingConformance,
    GrantExpiryConformance,
    GrantConformance,
    KeptValueConformance,
    LeaseConformance,
    LossConformance,
    LowBalanceConformance,
    NamespaceConformance,
    NewAccountConformance,
    OwnCapConformance,
    PlanConformance,
    PricingConformance,
    RefundConformance,
    RollingCapConformance,
    TeamConformance,
):
    """Every test of the suite, on the stores of the fixture `make_store`."""


__all__ = [
    "AccountConformance",
    "AdjustmentConformance",
    "AllowanceConformance",
    "AskingConformance",
    "BudgetConformance",
    "CapConformance",
    "ConcurrencyConformance",
    "DescribingConformance",
    "DryRunConformance",
    "ExpiryConformance",
    "FreezingConformance",
    "GrantConformance",
    "GrantExpiryConformance",
    "KeptValueConformance",
    "LeaseConformance",
    "LossConformance",
    "LowBalanceConformance",
    "MakeStore",
    "NamespaceConformance",
    "NewAccountConformance",
    "OpenStore",
    "OwnCapConformance",
    "PlanConformance",
    "PricingConformance",
    "RefundConformance",
    "RollingCapConformance",
    "Snapshot",
    "StoreConformance",
    "TeamConformance",
    "assert_fold",
    "dump",
    "read_journal",
]
