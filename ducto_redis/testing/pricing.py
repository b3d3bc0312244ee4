"""Pricing documents: published as versions, one of them active."""

import pytest

from ducto_redis.engine.ids import RESERVED_ACCOUNT
from ducto_redis.errors import ConfigError, IdempotencyConflictError, PricingNotLoadedError
from ducto_redis.results import PricingVersion
from ducto_redis.store.contract import CreditStore
from ducto_redis.testing.calls import key
from ducto_redis.testing.inspection import read_journal
from ducto_redis.testing.opening import ConformanceTests, OpenStore

DOCUMENTS = ['{"models":{"a":"1"}}', '{"models":{"ü":"2"}}', '{"models":{"c":"3"}}']


async def publish(store: CreditStore, number: int, name: str | None = None) -> PricingVersion:
    """Publish one of the documents."""
    return await store.publish_pricing(DOCUMENTS[number], key(name or f"document {number}", str(number)), cause=b"")


@pytest.mark.asyncio
class PricingConformance(ConformanceTests):
    """Publishing, reading and activating."""

    async def test_nothing_is_published_at_first(self, open_store: OpenStore) -> None:
        """Without a document there is no price to read, and none to activate."""
        store = await open_store()
        with pytest.raises(PricingNotLoadedError):
            await store.read_pricing()
        with pytest.raises(PricingNotLoadedError):
            await store.read_pricing(1)
        with pytest.raises(ConfigError):
            await store.activate_pricing(1, cause=b"")

    async def test_publish(self, open_store: OpenStore) -> None:
        """Documents become versions 1, 2, 3; the last one is active, and all can be read."""
        store = await open_store()
        published = [await publish(store, number) for number in range(3)]
        assert [document.version for document in published] == [1, 2, 3]
        assert [document.activation for document in published] == [1, 2, 3]
        state = await store.read_pricing()
        assert (state.active, state.latest, state.activation) == (3, 3, 3)
        assert (state.asked.document, state.asked.active) == (DOCUMENTS[2], True)
        first = await store.read_pricing(1)
        assert (first.asked.version, first.asked.document, first.asked.active) == (1, DOCUMENTS[0], False)
        assert first.asked.published_at == published[0].published_at
        assert (await store.read_pricing(2)).asked.document == DOCUMENTS[1]

    async def test_documents_are_journalled(self, open_store: OpenStore) -> None:
        """A document is journalled whole, under the reserved account in the first partition."""
        store = await open_store.journalled()
        await publish(store, 1)
        (entry,) = read_journal(store)
        assert (entry.partition, entry.account, entry.operation) == (0, RESERVED_ACCOUNT, "publish_pricing")
        assert (entry.version, dict(entry.changes)["document/1"]) == (1, DOCUMENTS[1])

    async def test_known_documents_are_not_sent_again(self, open_store: OpenStore) -> None:
        """A caller that knows the version does not get its text."""
        store = await open_store()
        await publish(store, 0)
        await publish(store, 1)
        assert (await store.read_pricing(known=2)).asked.document == ""
        assert (await store.read_pricing(known=1)).asked.document == DOCUMENTS[1]

    async def test_publishing_is_safe_to_repeat(self, open_store: OpenStore) -> None:
        """The same key publishes once; with another document it is a conflict."""
        store = await open_store()
        first = await publish(store, 0, "one")
        await publish(store, 1)
        assert await publish(store, 0, "one") == first
        assert (await store.read_pricing()).latest == 2
        with pytest.raises(IdempotencyConflictError):
            await publish(store, 1, "one")

    async def test_activate(self, open_store: OpenStore) -> None:
        """An older version can be made active again: every activation has a higher number than those before."""
        store = await open_store()
        for number in range(2):
            await publish(store, number)
        activated = await store.activate_pricing(1, cause=b"")
        assert (activated.version, activated.activation, activated.active) == (1, 3, True)
        state = await store.read_pricing()
        assert (state.active, state.latest, state.activation, state.asked.document) == (1, 2, 3, DOCUMENTS[0])
        assert (await publish(store, 2)).activation == 4

    async def test_activating_the_active_version_changes_nothing(self, open_store: OpenStore) -> None:
        """The active version keeps its activation."""
        store = await open_store()
        await publish(store, 0)
        assert (await store.activate_pricing(1, cause=b"")).activation == 1
        assert (await store.read_pricing()).activation == 1

    async def test_unknown_versions(self, open_store: OpenStore) -> None:
        """A version that was never published can be neither read nor activated."""
        store = await open_store()
        await publish(store, 0)
        with pytest.raises(ConfigError, match="there is version 1"):
            await store.read_pricing(2)
        with pytest.raises(ConfigError, match="there is version 1"):
            await store.activate_pricing(2, cause=b"")
