"""The conformance suite: what every store must do, as tests that a store's own test suite runs.

    import pytest
    from ducto_redis.store.conformance import StoreConformance, StoreFactory

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store_factory(self) -> StoreFactory:
            return MyStores().open

It needs pytest and pytest-asyncio. A factory gives stores over the same data, empty at first, whose clocks may differ.
After every operation of every test the whole state is looked at: folding the journal gives exactly the accounts' keys,
a change is one entry, and a refusal, a replay or a read changes nothing.
"""

import pytest

# Before the modules with the tests are imported: failed assertions in them are explained as in any test file.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("accounts", "expiry", "inspection", "leases", "namespace", "pricing"))
)

from ducto_redis.store.conformance.accounts import AccountConformance  # noqa: E402
from ducto_redis.store.conformance.expiry import ExpiryConformance  # noqa: E402
from ducto_redis.store.conformance.inspection import Snapshot, assert_fold, dump, read_journal  # noqa: E402
from ducto_redis.store.conformance.leases import LeaseConformance  # noqa: E402
from ducto_redis.store.conformance.namespace import NamespaceConformance  # noqa: E402
from ducto_redis.store.conformance.opening import OpenStore, StoreFactory  # noqa: E402
from ducto_redis.store.conformance.pricing import PricingConformance  # noqa: E402


class StoreConformance(
    AccountConformance, LeaseConformance, ExpiryConformance, PricingConformance, NamespaceConformance
):
    """Every test of the suite. A subclass gives the fixture `store_factory`."""


__all__ = [
    "AccountConformance",
    "ExpiryConformance",
    "LeaseConformance",
    "NamespaceConformance",
    "OpenStore",
    "PricingConformance",
    "Snapshot",
    "StoreConformance",
    "StoreFactory",
    "assert_fold",
    "dump",
    "read_journal",
]
