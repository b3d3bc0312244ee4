"""The suite, on the stores that `--ducto-store` names."""

from ducto_redis.store.conformance import StoreConformance


class TestStore(StoreConformance):
    """Every test of the suite."""
