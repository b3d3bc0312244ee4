"""The contract: custom stores need no more than it says, and the page about them says all of it."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from ducto_redis import AsyncCreditManager, CreditManager, UsageMetrics
from ducto_redis.engine.scripts import Script
from ducto_redis.errors import ConfigError, StoreError
from ducto_redis.journal import JournalConsumer
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store import CreditStore, JournalledStore, ScriptStore
from ducto_redis.testing import StoreConformance

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "custom-stores.md").read_text()


@pytest.fixture
def custom_store(monkeypatch: pytest.MonkeyPatch, namespace: str) -> ScriptStore:
    """A store without a journal: the example of the docs."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    store: ScriptStore = importlib.import_module("dict_store").make_store(namespace)
    assert not isinstance(store, JournalledStore)
    return store


@pytest.mark.parametrize("name", sorted(CreditStore.__abstractmethods__ | JournalledStore.__abstractmethods__))
def test_every_method_is_documented(name: str) -> None:
    """The page about custom stores says of every method what it does, with the arguments that it has."""
    described = re.search(rf"\*\*`{name}(?:\(([^`]*)\))?`\*\*", PAGE)
    assert described, f"docs/custom-stores.md does not describe {name}"
    if described[1]:
        documented = {argument.strip() for argument in described[1].split(",")} - {"…"}
        assert documented <= set(inspect.signature(getattr(JournalledStore, name)).parameters)


def test_no_test_hides_another() -> None:
    """No two parts of the suite have a test of the same name: one of them would never run."""
    names = [name for part in StoreConformance.__bases__ for name in vars(part) if name.startswith("test_")]
    assert len(names) == len(set(names))


def test_every_part_is_in_the_suite() -> None:
    """Every file with tests in the suite's folder is a part of the suite."""
    folder = ROOT / "ducto_redis" / "testing"
    with_tests = {path.stem for path in folder.glob("*.py") if "async def test_" in path.read_text()}
    assert len(with_tests) > 20
    assert with_tests == {part.__module__.rpartition(".")[2] for part in StoreConformance.__bases__}


def test_a_manager_needs_no_journal(custom_store: CreditStore) -> None:
    """A manager prices, holds, charges and refunds on a store without a journal, as long as it has no ledger."""
    with CreditManager(custom_store) as manager:
        manager.publish_pricing({"version": 1, "models": {"a": "output_tokens"}})
        manager.add_credits("u1", 10)
        with manager.meter("u1", 5) as meter:
            meter.record(UsageMetrics("a", output_tokens=2))
        charged = manager.deduct("u1", 3)
        manager.refund_credits(charged.transaction_id)
        assert manager.get_balance("u1").balance == 8


async def test_an_async_manager_needs_none(custom_store: CreditStore) -> None:
    """So does one on an event loop, over a store that blocks."""
    async with AsyncCreditManager(custom_store) as manager:
        await manager.add_credits("u1", 10)
        lease = await manager.reserve("u1", 5)
        await manager.settle("u1", lease.lease_id, 2)
        assert (await manager.get_balance("u1")).balance == 8


@pytest.mark.parametrize("failing", ["error('broken')", "redis.call('FLUSHALL')"])
def test_a_step_that_fails_is_taken_back(custom_store: ScriptStore, failing: str) -> None:
    """A script of the example that fails half-way is a StoreError, and nothing of what it wrote is kept."""
    steps = "redis.call('HSET', KEYS[1], 'a', '2', 'b', '1') redis.call('HDEL', KEYS[1], 'c')"
    before = Script("before", b"redis.call('HSET', KEYS[1], 'a', '1', 'c', '1')", b"1")
    broken = Script("broken", f"{steps} {failing}".encode(), b"2")
    after = Script("after", b"return redis.call('HMGET', KEYS[1], 'a', 'b', 'c')", b"3")
    run_sync(custom_store.execute(before, (b"key",), ()))
    with pytest.raises(StoreError, match=r"broken|FLUSHALL"):
        run_sync(custom_store.execute(broken, (b"key",), ()))
    assert run_sync(custom_store.execute(after, (b"key",), ())) == [b"1", None, b"1"]


def test_what_needs_a_journal_says_so(custom_store: CreditStore, tmp_path: Path) -> None:
    """A ledger and a consumer are refused where there is no journal for them to read, by name."""
    with Ledger.from_url(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        with pytest.raises(ConfigError, match="the ledger reads the journal, and DictStore has none"):
            CreditManager(custom_store, ledger=ledger)
        with pytest.raises(ConfigError, match="consumer group 'mails' reads the journal"):
            JournalConsumer(custom_store, "mails", lambda entry: None)
