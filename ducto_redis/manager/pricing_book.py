"""The pricing documents that a manager prices by.

No call is priced by a document that was replaced more than a second ago, and the engine says at once when an account
was charged under a newer one. Published versions never change, so each is read and compiled once.
"""

from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Self

from msgspec import Struct

from ducto_redis.engine.operation import PLAIN, Conditions
from ducto_redis.errors import ConfigError, PricingNotLoadedError, StoreError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import Plan, PricingEngine
from ducto_redis.store.contract import CreditStore

_FRESH_SECONDS = 1.0
# One caller asks this early while the others go on, so that a busy process never has to wait for the answer.
_ASKED_AFTER_SECONDS = 0.5
_VERSIONS_KEPT = 16


class Pricing(Struct, frozen=True):
    """A pricing engine, and the version and activation of its document (0 and 0: it was given, not published).

    Attributes:
        opening: the conditions of an unknown account. It may be new, and begin with the document's bonus and default
            plan; `PLAIN` if the document gives neither.
    """

    engine: PricingEngine
    version: int = 0
    activation: int = 0
    opening: Conditions = PLAIN

    @classmethod
    def of(cls, engine: PricingEngine, version: int = 0, activation: int = 0) -> Self:
        """Return the pricing of a document, with the conditions that open new accounts."""
        opening = PLAIN
        if engine.default_plan or engine.signup_bonus_micro:
            opening = Conditions(True, engine.signup_bonus_micro, activation, engine.default_plan or "")
        return cls(engine, version, activation, opening)

    def plan(self, plan_id: str) -> Plan | None:
        """Return a plan of the document; None for "", and for a plan that the document does not have."""
        return self.engine.document.plans.get(plan_id) if plan_id else None

    def total_micro(self, usages: Sequence[UsageMetrics], plan_id: str = "") -> int:
        """Return the price of usages under a plan, in micro-credits; without one, by the document's own rates."""
        engine = self.engine
        if plan_id and plan_id in engine.document.plans:
            engine = engine.for_plan(plan_id)
        if len(usages) == 1:
            return engine.total_micro(usages[0])
        return engine.total_micro_of(usages)

    def models(self, usages: Sequence[UsageMetrics], plan_id: str, total: int) -> tuple[tuple[str, int], ...]:
        """Return each model's part of the price of usages, in micro-credits, by its name in spend caps."""
        if len(usages) == 1:
            model = self.engine.cap_model(usages[0].model)
            return ((model, total),) if model else ()
        parts: dict[str, int] = {}
        for usage in usages:
            model = self.engine.cap_model(usage.model)
            if model:
                parts[model] = parts.get(model, 0) + self.total_micro((usage,), plan_id)
        return tuple(parts.items())


class PricingBook:
    """Finds the pricing to price by.

    Args:
        store: the store of published documents.
        engine: prices everything; the store is not asked then.
    """

    def __init__(self, store: CreditStore, engine: PricingEngine | None = None) -> None:
        self._store = store
        self._fixed = engine is not None
        self._active: Pricing | None = None if engine is None else Pricing.of(engine)
        self._asked_at = -_FRESH_SECONDS
        self._known_at = inf if self._fixed else -_FRESH_SECONDS
        self._found_none_at = -_FRESH_SECONDS
        self._engines: dict[int, PricingEngine] = {}

    def fresh(self) -> Pricing | None:
        """Return the active pricing if the last question was a moment ago; otherwise None."""
        return self._active if monotonic() - self._known_at < _ASKED_AFTER_SECONDS else None

    async def active(self) -> Pricing:
        """Return the active pricing. Raises PricingNotLoadedError if none was published."""
        if not self._fixed:
            now = monotonic()
            known_for = now - self._known_at
            if known_for >= _FRESH_SECONDS or (
                known_for >= _ASKED_AFTER_SECONDS and now - self._asked_at >= _ASKED_AFTER_SECONDS
            ):
                await self.refresh()
        if self._active is None:
            raise PricingNotLoadedError
        return self._active

    async def known(self) -> Pricing:
        """Return the pricing that was active at the last question, however long ago. Raises PricingNotLoadedError."""
        return await self.active() if self._active is None else self._active

    async def active_or_none(self) -> Pricing | None:
        """Return the active pricing, or None if none was published, as of a second ago at most."""
        if self._active is None and monotonic() - self._found_none_at < _FRESH_SECONDS:
            return None
        try:
            return await self.active()
        except PricingNotLoadedError:
            return None

    async def refresh(self) -> None:
        """Ask for the active pricing now. Raises PricingNotLoadedError if none was published."""
        if self._fixed:
            return
        before = self._active
        known = 0 if before is None else before.version
        asked_at = self._asked_at = monotonic()
        try:
            state = await self._store.read_pricing(known=known)
        except PricingNotLoadedError:
            self._found_none_at = asked_at
            raise
        except StoreError:
            self._asked_at = -_FRESH_SECONDS  # the next call asks again, instead of going on with an old document
            raise
        self._known_at = max(self._known_at, asked_at)
        active = self._active
        if active is not None and (active.version, active.activation) == (state.active, state.activation):
            return
        if active is None or state.activation >= active.activation:
            if before is not None and before.version == state.active:
                engine = before.engine  # its text was not sent again
            else:
                engine = self._engine(state.active, state.asked.document)
            self._active = Pricing.of(engine, state.active, state.activation)

    async def version(self, version: int) -> Pricing:
        """Return the pricing of a version, active or not."""
        if self._active is not None and self._active.version == version:
            return self._active
        engine = self._engines.get(version)
        if engine is None:
            state = await self._store.read_pricing(version)
            engine = self._engine(version, state.asked.document)
        return Pricing.of(engine, version)

    async def engine_of(self, version: int) -> PricingEngine | None:
        """Return the engine of the version that a journal entry names; None if there is no way to get it.

        Version 0 is an engine that a manager was given: this manager's own, or one that nobody can be asked for.
        """
        active = await self.active_or_none()
        if active is not None and active.version == version:
            return active.engine
        if version == 0:
            return None
        try:
            return (await self.version(version)).engine
        except (ConfigError, PricingNotLoadedError):
            return None

    def _engine(self, version: int, document: str) -> PricingEngine:
        engine = self._engines.get(version)
        if engine is None:
            if len(self._engines) >= _VERSIONS_KEPT:
                del self._engines[next(iter(self._engines))]
            engine = self._engines[version] = PricingEngine.from_json(document)
        return engine
