"""Meters of jobs: work that may start more than once, as by a queue that delivers twice, and is charged once."""

import logging

from msgspec import structs

from ducto_redis.engine.ids import new_id
from ducto_redis.errors import IdempotencyConflictError, LeaseClosedError
from ducto_redis.manager.meter import AsyncMeter, Meter, MeterCore
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.metrics import UsageMetrics
from ducto_redis.results import ReleaseResult, ReserveResult, SettleResult

_log = logging.getLogger("ducto_redis.manager")


class JobCore(MeterCore):
    """A meter whose lease id is the identity of a job: however often the job starts, it is charged once.

    A lease that was released, because the job failed, is followed by another, whose id ends in `#2`, and so on. One
    that expired, because the process was killed, is charged late; meanwhile another lease holds credits for it.
    """

    charged_before = False
    """True if the job was charged before the meter opened: it records nothing more."""

    _job = ""
    _attempt = 1
    _expired = ""

    def record(self, usage: UsageMetrics, *flags: str) -> None:
        """Add usage to the charge; nothing if the job was charged before."""
        if not self.charged_before:
            super().record(usage, *flags)

    async def open_core(self) -> ReserveResult:
        """Reserve the estimate, once. Raises LeaseClosedError if the job was charged before."""
        self._job = self._job or self.lease_id
        while True:
            try:
                return await super().open_core()
            except LeaseClosedError as closed:
                if closed.lease_id != self.lease_id:
                    raise  # the parent is closed: nobody pays for the job
                if closed.how == "settled":
                    self.charged_before = True
                    raise
                if closed.how == "expired":
                    self._expired = self.lease_id
                    self.lease_id = new_id()
                else:
                    self.lease_id = self._next_id()

    async def close_core(self) -> SettleResult | ReleaseResult | None:
        """Settle the usage recorded, or release the lease if there is none. An engine that is away is charged later."""
        if self._closed or self.lease is None or not self._usages:
            return await super().close_core()
        hold = self.lease.amount
        job = self._expired or self.lease_id
        charge = PendingCharge(self.account, job, tuple(self._usages), flags=tuple(self._flags), hold=f"{hold:f}")
        try:
            if not self._expired:
                return await super().close_core()
            self.forget()
            await super().close_core()
            self.result = await self._core.settle_or_later(charge, hold=hold)
        except IdempotencyConflictError:
            _log.warning("job %s was charged for another run of it; this run is not charged", self._job)
        except LeaseClosedError:
            # Another run of the job failed meanwhile, and released the lease that they shared.
            self._core.charge_later(
                structs.replace(
                    charge,
                    key=self._next_id(),
                    lease=False,
                    operation_type=self._options.get("operation_type", "default"),
                    member=self._options.get("member") or "",
                )
            )
        return self.result

    def _next_id(self) -> str:
        self._attempt += 1
        return f"{self._job}#{self._attempt}"


class AsyncJobMeter(JobCore, AsyncMeter):
    """A job's meter for event loops."""


class JobMeter(JobCore, Meter):
    """A job's meter for threads."""
