"""What a new pricing document would have charged for what was really used, before it is activated."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import ConfigError
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.priced_then import engine_of
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.replay import PricingReplay, Replay

_WAIT_SECONDS = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Replaying(ManagerBase):
    """The part of a manager that tries prices out."""

    async def replay_pricing(
        self, document: Mapping[str, Any] | PricingDocument, start: datetime, end: datetime | None = None
    ) -> PricingReplay:
        """Price the ledger's real usage by another document. Nothing is published and nothing is charged.

        Usage is priced under the plan that it was charged under, by the rates that the document gives that plan. The
        ledger is read some entries at a time, so that any stretch of it fits into memory.

        Args:
            document: a mapping, or a PricingDocument that was read from JSON, YAML or a file.
            start: charges from then on, with a time zone.
            end: charges before then; without it, all that the ledger has.

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
        pages = ledger.trace_charges(self.store.namespace.name, start_ms, end_ms)
        while page := await self._in_thread(lambda: next(pages, None)):
            engines = await self._engines_of(page)
            await self._in_thread(partial(_take, replay, page, engines))
        return replay.result(start.astimezone(UTC), until.astimezone(UTC))

    async def _engines_of(self, page: Iterable[JournalEntry]) -> dict[int, PricingEngine | None]:
        """The engines of the versions that charges of several usages were priced under."""
        engines: dict[int, PricingEngine | None] = {}
        for entry in page:
            if entry.version not in engines and "],[" in entry.cause:
                engines[entry.version] = await engine_of(self.pricing, entry.version)
        return engines


def _take(replay: Replay, page: Iterable[JournalEntry], engines: Mapping[int, PricingEngine | None]) -> None:
    for entry in page:
        replay.take(entry, engines.get)


def _milliseconds(time: datetime, what: str) -> int:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigError(f"{what} is a datetime with a time zone, such as datetime.now(UTC), not {time!r:.60}")
    return -(-(time - _EPOCH) // _MILLISECOND)
