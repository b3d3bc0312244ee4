"""The suite, on the stores that `--ducto-store` names."""

from ducto_redis.testing import StoreConformance


class TestStore(StoreConformance):
    """Every test of the suite."""
