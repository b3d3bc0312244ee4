"""Pricing documents: publish, list, activate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ducto_redis.errors import ConfigError, PricingVersionNotFoundError
from ducto_redis.manager.arguments import GRANT_KEY_KEPT_MS, operation_key
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import tells_pricing
from ducto_redis.pricing import PricingDocument
from ducto_redis.results import PricingVersion


class Documents(ManagerBase):
    """The part of a manager that publishes prices."""

    @tells_pricing
    async def publish_pricing(
        self, document: Mapping[str, Any] | PricingDocument, *, idempotency_key: str | None = None
    ) -> PricingVersion:
        """Store a pricing document as the next version and activate it.

        Args:
            document: a mapping, or a PricingDocument that was read from JSON, YAML or a file.
            idempotency_key: the same key with the same document publishes once.

        Raises:
            ConfigError, ExpressionError: if the document is wrong; nothing is stored then.
            IdempotencyConflictError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        checked = document if isinstance(document, PricingDocument) else PricingDocument.from_dict(document)
        text = checked.to_json()
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "publish_pricing", text)
        published = await self.store.publish_pricing(text, key, cause=b"")
        await self.pricing.refresh()
        return published

    async def load_pricing(self) -> PricingVersion:
        """Ask for the active pricing document now; otherwise it is asked for by itself, at most once a second.

        Raises:
            PricingNotLoadedError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        await self.pricing.refresh()
        return await self.get_pricing()

    async def pricing_history(self) -> list[PricingVersion]:
        """All published versions, newest first, without their documents."""
        await self._ready()
        state = await self.store.read_pricing()
        history = []
        for version in range(state.latest, 0, -1):
            history.append((await self.store.read_pricing(version, known=version)).asked)
        return history

    async def get_pricing(self, version: int | None = None) -> PricingVersion:
        """A published version with its document; the active one by default.

        Raises:
            PricingVersionNotFoundError: says which versions there are.
            PricingNotLoadedError, ConfigError (not a number), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        with _asking_for(_check_version(version)) as asked:
            return (await self.store.read_pricing(asked)).asked

    @tells_pricing
    async def activate_pricing(self, version: int) -> PricingVersion:
        """Make a published version the active one.

        Raises:
            PricingVersionNotFoundError: says which versions there are.
            ConfigError (not a number), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        with _asking_for(_check_version(version)) as asked:
            activated = await self.store.activate_pricing(asked, cause=b"")
        await self.pricing.refresh()
        return activated


@contextmanager
def _asking_for(version: int) -> Iterator[int]:
    """Have the error that there is no such version say which one was asked for."""
    try:
        yield version
    except PricingVersionNotFoundError as error:
        raise PricingVersionNotFoundError(version, latest=error.latest) from None


def _check_version(version: int | None) -> int:
    if version is None:
        return 0
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"a version of the pricing document is a number from 1, not {version!r:.40}")
    return version
