"""Pricing documents: versions, activation, and asking again."""

import pytest

from ducto_redis import AsyncCreditManager, UsageMetrics
from ducto_redis.errors import IdempotencyConflictError, PricingNotLoadedError, PricingVersionNotFoundError

from .conftest import DEARER, DOCUMENT

USAGE = UsageMetrics(model="gpt-4o", input_tokens=1000)


async def test_without_a_document_usage_cannot_be_priced(valkey_url: str, namespace: str) -> None:
    """Amounts work without a document, usage does not, and a publication elsewhere is found by the next call."""
    async with (
        AsyncCreditManager.from_url(valkey_url, namespace=namespace) as manager,
        AsyncCreditManager.from_url(valkey_url, namespace=namespace) as other,
    ):
        await manager.add_credits("u1", 10)
        await manager.deduct("u1", 1)
        with pytest.raises(PricingNotLoadedError):
            await manager.deduct("u1", USAGE)
        with pytest.raises(PricingNotLoadedError):
            await manager.pricing_history()
        await other.publish_pricing(DOCUMENT)
        assert (await manager.deduct("u1", USAGE)).amount == 1


async def test_versions_count_up_and_never_change(manager: AsyncCreditManager) -> None:
    """Each publication is the next version and the active one; an older one can be activated again."""
    first = await manager.get_pricing()
    second = await manager.publish_pricing(DEARER)
    assert (first.version, second.version) == (1, 2)
    assert [(each.version, each.active) for each in await manager.pricing_history()] == [(2, True), (1, False)]
    back = await manager.activate_pricing(1)
    assert (back.version, back.active) == (1, True)
    assert back.activation > second.activation
    assert (await manager.activate_pricing(1)).activation == back.activation
    assert (await manager.get_pricing()).document == first.document
    assert (await manager.get_pricing(2)).document != first.document
    assert await manager.price(USAGE) == 1


async def test_publishing_twice_with_one_key_makes_one_version(manager: AsyncCreditManager) -> None:
    """The key covers the document."""
    once = await manager.publish_pricing(DEARER, idempotency_key="spring")
    again = await manager.publish_pricing(DEARER, idempotency_key="spring")
    assert once.version == again.version == 2
    with pytest.raises(IdempotencyConflictError):
        await manager.publish_pricing(DOCUMENT, idempotency_key="spring")


async def test_an_old_process_is_told_to_price_again(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """Once an account was charged under a new document, a process that has the old one cannot charge old prices."""
    await manager.add_credits("u1", 10)
    assert (await manager.deduct("u1", USAGE)).amount == 1
    await other.publish_pricing(DEARER)
    assert (await other.deduct("u1", USAGE)).amount == 2
    # Less than a second has passed for `manager`, or more; either way the account's next charge is at the new price.
    assert (await manager.deduct("u1", USAGE)).amount == 2
    assert (await manager.reserve("u1", USAGE)).amount == 2


async def test_a_lease_settles_at_the_prices_it_was_reserved_under(
    manager: AsyncCreditManager, other: AsyncCreditManager
) -> None:
    """In whichever process it is settled or extended, and whatever was published meanwhile."""
    await manager.add_credits("u1", 10)
    lease = await manager.reserve("u1", USAGE)
    assert lease.version == 1
    await other.publish_pricing(DEARER)
    assert (await other.extend("u1", lease.lease_id, USAGE)).amount == 2
    assert (await other.settle("u1", lease.lease_id, USAGE)).amount == 1
    assert (await other.deduct("u1", USAGE)).amount == 2


async def test_publishing_is_journalled_under_the_reserved_account(manager: AsyncCreditManager) -> None:
    """The document can be rebuilt from the journal of partition 0."""
    client = manager.store.redis()
    entries = client.xrange(manager.store.namespace.journal(0))
    assert any(b"publish_pricing\t@ducto\t" in fields[b"entry"] for _, fields in entries)


async def test_versions_that_there_are_not(manager: AsyncCreditManager) -> None:
    """The error says which version was asked for, and which there are; nothing is activated."""
    await manager.publish_pricing(DOCUMENT)
    latest = (await manager.pricing_history())[0]
    for call in (manager.get_pricing, manager.activate_pricing):
        with pytest.raises(PricingVersionNotFoundError, match=rf"no version 9 .* 1 to {latest.version}") as refused:
            await call(9)
        assert (refused.value.version, refused.value.latest) == (9, latest.version)
    assert (await manager.get_pricing()).version == latest.version


async def test_no_version_at_all() -> None:
    """Before anything was published."""
    async with AsyncCreditManager.from_url("memory://") as empty:
        with pytest.raises(PricingVersionNotFoundError, match="none was published"):
            await empty.activate_pricing(1)
