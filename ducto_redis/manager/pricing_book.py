"""The pricing documents that a manager prices by.

The active document is asked for again at most once a second, and at once when the engine says that an account was
charged under a newer one. Published versions never change, so each is read and compiled once.
"""

from time import monotonic

from msgspec import Struct

from ducto_redis.errors import PricingNotLoadedError, StoreError
from ducto_redis.pricing import PricingEngine
from ducto_redis.store.contract import CreditStore

_FRESH_SECONDS = 1.0
_VERSIONS_KEPT = 16


class Pricing(Struct, frozen=True):
    """A pricing engine, and the version and activation of its document (0 and 0: it was given, not published)."""

    engine: PricingEngine
    version: int = 0
    activation: int = 0


class PricingBook:
    """Finds the pricing to price by.

    Args:
        store: where documents are published.
        engine: prices by this one alone, and asks nobody.
    """

    def __init__(self, store: CreditStore, engine: PricingEngine | None = None) -> None:
        self._store = store
        self._fixed = engine is not None
        self._active: Pricing | None = None if engine is None else Pricing(engine)
        self._asked_at = -_FRESH_SECONDS
        self._found_none_at = -_FRESH_SECONDS
        self._engines: dict[int, PricingEngine] = {}

    async def active(self) -> Pricing:
        """The active pricing. Raises PricingNotLoadedError where none was published."""
        if not self._fixed and monotonic() - self._asked_at >= _FRESH_SECONDS:
            # Whoever calls meanwhile goes on with what there is.
            self._asked_at = monotonic()
            try:
                await self.refresh()
            except StoreError:
                self._asked_at = -_FRESH_SECONDS
                raise
        elif self._active is None:
            await self.refresh()
        if self._active is None:
            raise PricingNotLoadedError
        return self._active

    async def active_or_none(self) -> Pricing | None:
        """The active pricing, or None where none was published, as of a second ago at the most."""
        if self._active is None and monotonic() - self._found_none_at < _FRESH_SECONDS:
            return None
        try:
            return await self.active()
        except PricingNotLoadedError:
            return None

    async def refresh(self) -> None:
        """Ask for the active pricing now. Raises PricingNotLoadedError where none was published."""
        if self._fixed:
            return
        before = self._active
        known = 0 if before is None else before.version
        try:
            state = await self._store.read_pricing(known=known)
        except PricingNotLoadedError:
            self._found_none_at = monotonic()
            raise
        self._asked_at = monotonic()
        if self._active is None or state.activation >= self._active.activation:
            if before is not None and before.version == state.active:
                engine = before.engine  # its text was not sent again
            else:
                engine = self._engine(state.active, state.asked.document)
            self._active = Pricing(engine, state.active, state.activation)

    async def version(self, version: int) -> Pricing:
        """The pricing of a version, whichever is active."""
        if self._active is not None and self._active.version == version:
            return self._active
        engine = self._engines.get(version)
        if engine is None:
            state = await self._store.read_pricing(version)
            engine = self._engine(version, state.asked.document)
        return Pricing(engine, version)

    def _engine(self, version: int, document: str) -> PricingEngine:
        engine = self._engines.get(version)
        if engine is None:
            if len(self._engines) >= _VERSIONS_KEPT:
                del self._engines[next(iter(self._engines))]
            engine = self._engines[version] = PricingEngine.from_json(document)
        return engine
