"""Creation and loss of a namespace, as stores and managers see it on a server of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager
from ducto_redis.engine.operation import Operation
from ducto_redis.errors import RecoveryNeededError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import MemoryStore
from ducto_redis.store.contract import NamespaceState
from tests.servers import Server


@pytest.mark.parametrize("looked_at", range(5))
def test_somebody_creates_it_while_we_look(looked_at: int) -> None:
    """Whoever looks at a namespace while somebody creates it sees it missing or open, never half lost."""
    store = MemoryStore(partitions=4)
    run, seen = store.run, 0

    async def run_and_create(operation: Operation[Any]) -> Any:
        nonlocal seen
        if seen == looked_at and operation.script.name == "read_partition":
            seen += 1
            await store.create_namespace()
        elif operation.script.name == "read_partition":
            seen += 1
        return await run(operation)

    store.run = run_and_create  # type: ignore[method-assign]
    state = run_sync(store.read_namespace())
    assert state is (NamespaceState.OPEN if looked_at < 4 else NamespaceState.MISSING)
    assert run_sync(store.read_namespace()) is NamespaceState.OPEN


async def test_emptied_under_a_manager(start_valkey: Callable[..., Server]) -> None:
    """FLUSHALL makes no fresh accounts: a manager that goes on is refused, reads included."""
    server = start_valkey()
    async with AsyncCreditManager.from_url(server.url, partitions=2) as manager:
        await manager.add_credits("u1", 100)
        lease = await manager.reserve("u1", 10)
        manager.store.redis().flushall()
        for refused in (
            manager.get_balance("u1"),
            manager.get_balance("u2"),
            manager.add_credits("u1", 50, type="bonus"),
            manager.reserve("u1", 1),
            manager.deduct("u1", 1),
            manager.settle("u1", lease.lease_id, 1),
            manager.list_leases("u1"),
        ):
            with pytest.raises(RecoveryNeededError):
                await refused
        assert manager.store.redis().dbsize() == 0


async def test_emptied_before_a_manager(start_valkey: Callable[..., Server], tmp_path: Path) -> None:
    """A manager that starts on an emptied server, with a ledger that knows better, creates nothing."""
    server = start_valkey()
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    first = AsyncCreditManager.from_url(server.url, ledger_url, partitions=2)
    second = AsyncCreditManager.from_url(server.url, ledger_url, partitions=2)
    ledger = first.ledger
    assert ledger is not None
    ledger.migrate()
    async with first:
        await first.add_credits("u1", 100)
        for partition in first.store.partitions():
            journal = first.store.redis().xrange(first.store.namespace.journal(partition))
            entries = [(entry_id.decode(), fields[b"entry"]) for entry_id, fields in journal]
            ledger.write(first.store.namespace.name, partition, entries)
        first.store.redis().flushall()
    with pytest.raises(RecoveryNeededError, match="the ledger knows"):
        await second.get_balance("u1")
    assert second.store.redis().dbsize() == 0
    await second.close()
