"""Frozen accounts: nothing new is admitted, all that is under way goes on."""

import pytest

from ducto_redis.engine.operation import Charge
from ducto_redis.errors import AccountFrozenError, IdempotencyConflictError, LeaseClosedError
from ducto_redis.testing.caller import Caller
from ducto_redis.testing.calls import ACCOUNT, HOUR_MS, entry_of, key, micro, terms
from ducto_redis.testing.opening import ConformanceTests, OpenStore

REASON = "chargeback, by finance"


async def frozen(open_store: OpenStore) -> Caller:
    """Return a caller of a frozen account with credits and some open leases."""
    caller = Caller(await open_store())
    await caller.add(100)
    for lease_id in ("one", "two", "three"):
        await caller.reserve(lease_id, 10, terms(on_expiry="charge"))
    await caller.store.freeze(ACCOUNT, REASON, key("frozen"), cause=b'{"metadata":{}}')
    return caller


@pytest.mark.asyncio
class FreezingConformance(ConformanceTests):
    """Operations of a frozen account."""

    async def test_nothing_new(self, open_store: OpenStore) -> None:
        """Deduct, reserve and extend are refused, with who froze it and why."""
        caller = await frozen(open_store)
        for refused in (caller.deduct(0), caller.reserve("refused", 1), caller.extend("one", 1)):
            with pytest.raises(AccountFrozenError) as error:
                await refused
            assert (error.value.account, error.value.reason) == (ACCOUNT, REASON)
        assert (await caller.describe()).frozen == REASON

    async def test_all_else_goes_on(self, open_store: OpenStore) -> None:
        """Credits come in and back, are corrected, and leases settle, are released, renewed and expire."""
        caller = await frozen(open_store)
        await caller.add(50, "more")
        settled = await caller.settle("one", 8)
        await caller.release("two")
        await caller.store.renew(ACCOUNT, "three", key("renewed"), ttl_ms=1000)
        entry = await entry_of(caller.store, settled)
        charge = Charge(entry.transaction_id, entry.charged, entry.details, entry.time_ms)
        await caller.store.refund(ACCOUNT, charge, 3, key("refund"), expired_to_balance=True, cause=b"")
        await caller.ask(
            lambda c: caller.store.adjust_credits(ACCOUNT, -5, key("corrected"), force=False, conditions=c, cause=b"")
        )
        later = caller.at(await open_store(clock_offset_ms=HOUR_MS))
        assert await later.numbers() == (100 + 50 - 8 + 3 - 5 - 10, 0, 130)

    async def test_unfreeze(self, open_store: OpenStore) -> None:
        """An account that is let go spends again."""
        caller = await frozen(open_store)
        changed = await caller.store.freeze(ACCOUNT, "", key("unfrozen"), cause=b"")
        assert (await entry_of(caller.store, changed)).operation == "unfreeze"
        assert micro((await caller.deduct(70)).amount) == 70
        assert (await caller.describe()).frozen == ""

    async def test_twice_is_once(self, open_store: OpenStore) -> None:
        """Freezing what is frozen changes nothing, nor does letting go what is free; the first reason stays."""
        caller = await frozen(open_store)
        assert (await caller.store.freeze(ACCOUNT, REASON, key("frozen"), cause=b"")).replayed
        assert (await caller.store.freeze(ACCOUNT, "another reason", key("again"), cause=b"")).replayed
        assert (await caller.describe()).frozen == REASON
        with pytest.raises(IdempotencyConflictError):
            await caller.store.freeze(ACCOUNT, REASON, key("frozen", "otherwise"), cause=b"")
        await caller.store.freeze(ACCOUNT, "", key("unfrozen"), cause=b"")
        assert (await caller.store.freeze(ACCOUNT, "", key("unfrozen again"), cause=b"")).replayed

    async def test_what_was_done_is_answered_again(self, open_store: OpenStore) -> None:
        """A repeated call gives its first answer, frozen or not."""
        caller = Caller(await open_store())
        await caller.add(100)
        await caller.deduct(10)
        await caller.reserve("open", 10)
        await caller.reserve("closed", 10)
        await caller.settle("closed", 10)
        changed = await caller.store.freeze(ACCOUNT, REASON, key("frozen"), cause=b"")
        assert (await entry_of(caller.store, changed)).operation == "freeze"
        assert (await caller.deduct(10)).replayed
        assert (await caller.reserve("open", 10)).replayed
        with pytest.raises(LeaseClosedError):
            await caller.reserve("closed", 10)
