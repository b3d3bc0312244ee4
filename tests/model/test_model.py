"""The store does what the model says, whatever is asked of it in whatever order."""

import os
import uuid

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from ducto_redis.store import MemoryStore, RedisStore
from tests.model.account_rules import SideBySide
from tests.model.trees import Trees
from tests.searching import chosen_seed

GIVEN_SEED = os.environ.get("DUCTO_MODEL_SEED")
SEED = chosen_seed("DUCTO_MODEL_SEED")


def run(machine: type[SideBySide], *, examples: int, steps: int, share: int = 0) -> None:
    """Run the machine, from a seed that is printed where it fails; with a seed that was given, a failure is shrunk."""
    its_seed = SEED + (0 if GIVEN_SEED else share)
    print(f"to repeat, and to shrink: DUCTO_MODEL_SEED={its_seed}")
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink) if GIVEN_SEED else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(its_seed)(machine), settings=bounds)


class OverMemory(SideBySide):
    @staticmethod
    def make_store() -> MemoryStore:
        return MemoryStore(partitions=1)


class TreesOverMemory(Trees):
    make_store = OverMemory.make_store


@pytest.mark.timeout(600)
def test_memory_store() -> None:
    """MemoryStore and the model agree on every reply and on the whole state."""
    run(OverMemory, examples=100, steps=30)


@pytest.mark.timeout(600)
def test_leases_inside_leases() -> None:
    """They agree on leases inside leases too, and nothing that is inside a lease ever spends more than it held."""
    run(TreesOverMemory, examples=30, steps=40)


# In shares: what hypothesis remembers of all examples together would take gigabytes.
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("machine", "share"), [*((SideBySide, share) for share in range(10)), *((Trees, share) for share in range(3))]
)
def test_redis_store(server_url: str, machine: type[SideBySide], share: int) -> None:
    """RedisStore and the model agree, for minutes."""

    class OverRedis(machine):  # type: ignore[misc, valid-type]
        shebang = True

        @staticmethod
        def make_store() -> RedisStore:
            name = f"model-{uuid.uuid4().hex}"
            return RedisStore(server_url, namespace=name, partitions=1, blocking=True, timeout_seconds=30)

        def teardown(self) -> None:
            keys = list(self.client.scan_iter(f"{self.store.namespace.name}:*", count=10_000))
            if keys:
                self.client.delete(*keys)
            super().teardown()

    run(OverRedis, examples=200, steps=50, share=share)
