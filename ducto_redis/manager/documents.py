"""Pricing documents: publish, list, activate, and try one out on the usage of the past."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.engine.text import milliseconds_from
from ducto_redis.errors import ConfigError, PricingVersionNotFoundError
from ducto_redis.manager.arguments import GRANT_KEY_KEPT_MS, operation_key
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import tells_pricing
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.replay import PricingReplay, Replay
from ducto_redis.results import PricingVersion

_WAIT_SECONDS = 10.0


class Documents(ManagerBase):
    """The part of a manager that publishes prices and tries them out."""

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
        """Ask for the active pricing document now. The manager asks for it by itself, at most once a second.

        Raises:
            PricingNotLoadedError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        await self.pricing.refresh()
        return await self.get_pricing()

    async def pricing_history(self) -> list[PricingVersion]:
        """Return all published versions, newest first, without their documents."""
        await self._ready()
        state = await self.store.read_pricing()
        history = []
        for version in range(state.latest, 0, -1):
            history.append((await self.store.read_pricing(version, known=version)).asked)
        return history

    async def get_pricing(self, version: int | None = None) -> PricingVersion:
        """Return a published version with its document; the active one by default.

        Raises:
            PricingVersionNotFoundError: names the versions that exist.
            PricingNotLoadedError, ConfigError (not a number), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        with _asking_for(_check_version(version)) as asked:
            return (await self.store.read_pricing(asked)).asked

    @tells_pricing
    async def activate_pricing(self, version: int) -> PricingVersion:
        """Make a published version the active one.

        Raises:
            PricingVersionNotFoundError: names the versions that exist.
            ConfigError (not a number), RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        with _asking_for(_check_version(version)) as asked:
            activated = await self.store.activate_pricing(asked, cause=b"")
        await self.pricing.refresh()
        return activated

    async def replay_pricing(
        self, document: Mapping[str, Any] | PricingDocument, start: datetime, end: datetime | None = None
    ) -> PricingReplay:
        """Price the usage in the ledger by another document. Nothing is published and nothing is charged.

        Usage is priced under the plan that it was charged under, by the document's rates for that plan. The ledger is
        read a page at a time, so that any period fits into memory.

        Args:
            document: a mapping, or a PricingDocument that was read from JSON, YAML or a file.
            start: the time of the first charge, with a time zone.
            end: the end of the period; without it, all that the ledger has.

        Raises:
            ConfigError, ExpressionError: if the document is wrong, a time has no zone, or there is no ledger.
            LedgerError, StoreUnavailableError
        """
        await self._ready()
        start_ms = _milliseconds(start, "start")
        until = datetime.now(UTC) if end is None else end
        end_ms = _milliseconds(until, "end") if end is not None else 2**62
        if end_ms <= start_ms:
            raise ConfigError(f"the end, {until.isoformat()}, must be after the start, {start.isoformat()}")
        ledger = self.ledger
        if ledger is None:
            raise ConfigError("a replay reads the ledger: give the manager a ledger_url")
        checked = document if isinstance(document, PricingDocument) else PricingDocument.from_dict(document)
        replay = Replay(PricingEngine(checked))
        if self.store.local:
            await self._in_thread(lambda: self._ledger_access.wait(_WAIT_SECONDS))
        pages = ledger.charge_entries(self.store.namespace.name, start_ms, end_ms)
        while page := await self._in_thread(lambda: next(pages, None)):
            engines = await self._engines_of(page)
            await self._in_thread(partial(_take, replay, page, engines))
        return replay.result(start.astimezone(UTC), until.astimezone(UTC))

    async def _engines_of(self, page: Iterable[JournalEntry]) -> dict[int, PricingEngine | None]:
        """Return the engines of the versions that priced charges of several usages."""
        engines: dict[int, PricingEngine | None] = {}
        for entry in page:
            if entry.version not in engines and "],[" in entry.cause:
                engines[entry.version] = await self.pricing.engine_of(entry.version)
        return engines


@contextmanager
def _asking_for(version: int) -> Iterator[int]:
    """Name the version asked for in the error that it does not exist."""
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


def _take(replay: Replay, page: Iterable[JournalEntry], engines: Mapping[int, PricingEngine | None]) -> None:
    for entry in page:
        replay.take(entry, engines.get)


def _milliseconds(time: datetime, what: str) -> int:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigError(f"{what} is a datetime with a time zone, such as datetime.now(UTC), not {time!r:.60}")
    return milliseconds_from(time)
