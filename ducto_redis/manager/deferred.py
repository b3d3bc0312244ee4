"""Charges for finished work: now, or once the engine can take them."""

import logging
from contextlib import suppress
from decimal import Decimal

from msgspec import structs

from ducto_redis.errors import (
    CreditError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    LeaseClosedError,
    LeaseNotFoundError,
    StoreError,
)
from ducto_redis.manager.arguments import UsageOrAmount, fingerprint, split
from ducto_redis.manager.leases import Leases
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.repricing import PRICING_ERRORS, Attempt
from ducto_redis.money import from_micro, to_signed_micro
from ducto_redis.results import ReleaseResult, SettleResult

_log = logging.getLogger("ducto_redis.manager")


class DeferredCharges(Leases):
    """The part of a manager that charges work even if the engine is away when it ends."""

    def charge_later(self, charge: PendingCharge) -> None:
        """Put a charge into the outbox, which sends it once the engine is back."""
        self.outbox.put(charge)

    def release_later(self, account: str, lease_id: str) -> None:
        """Release a lease once the engine is back, if the engine may have opened it before it went away.

        This is necessary only where an expired lease is charged: by default it is released. Charges come first: while
        the outbox is half full, it takes no release.
        """
        if self._on_lease_expiry == "charge" and len(self.outbox) * 2 < self.outbox.limit:
            self.charge_later(PendingCharge(account, lease_id, ()))

    async def settle_or_later(self, charge: PendingCharge, *, hold: Decimal | None = None) -> SettleResult | None:
        """Settle a lease; None if the engine is away and gets the charge later.

        Args:
            charge: the charge.
            hold: credits to charge later if the usage turns out to have no price: nobody is there to hear then.
        """
        try:
            try:
                return await self.settle(charge.account, charge.key, charge.usage or charge.credits, flags=charge.flags)
            except PRICING_ERRORS as error:
                return await self._settle_hold(charge, error)
        except StoreError:
            self._settle_later(charge, hold)
            return None
        except CreditError:
            raise
        except BaseException:
            # Interrupted: whether it was charged is unknown, and its key makes it safe to ask again.
            self._settle_later(charge, hold)
            raise

    def _settle_later(self, charge: PendingCharge, hold: Decimal | None) -> None:
        self.charge_later(structs.replace(charge, hold="" if hold is None else f"{hold:f}"))

    async def release_or_later(self, account: str, lease_id: str) -> ReleaseResult | None:
        """Release a lease; None if the engine is away."""
        try:
            return await self.release(account, lease_id)
        except StoreError:
            self.release_later(account, lease_id)
            return None

    async def release_if_opened(self, account: str, lease_id: str) -> None:
        """Release a lease that the engine may or may not have opened, for its reserve was interrupted."""
        with suppress(LeaseNotFoundError):
            await self.release_or_later(account, lease_id)

    async def send_charge(self, charge: PendingCharge) -> SettleResult | ReleaseResult | None:
        """Settle a lease that waited in the outbox, or release it if no usage was recorded.

        If the lease could not be opened in time, one without a hold is opened instead: so the account is charged what
        it can pay, and the rest is journalled as the shortfall.
        """
        await self._ready()
        if not charge.usage and not charge.credits:
            try:
                return await self.release(charge.account, charge.key)
            except LeaseNotFoundError:
                return None  # it was unknown if it had been opened; it had not
        if not charge.lease:
            await self._open_empty(charge)
        try:
            return await self.settle(charge.account, charge.key, charge.usage or charge.credits, flags=charge.flags)
        except PRICING_ERRORS as error:
            return await self._settle_hold(charge, error)

    async def _settle_hold(self, charge: PendingCharge, error: CreditError) -> SettleResult:
        """Charge the hold that a charge names, because its usage has no price. Raise the error if it names none."""
        if not charge.hold:
            raise error
        _log.error("lease %s is charged its whole hold, because its usage has no price: %s", charge.key, error)
        return await self.settle(charge.account, charge.key, charge.hold, flags=(*charge.flags, "hold_charged"))

    async def _open_empty(self, charge: PendingCharge) -> None:
        attempt = Attempt(charge.account, operation_type=charge.operation_type, member=charge.member)
        passed = fingerprint("later", charge.usage)
        try:
            try:
                await self._hold(attempt, charge.key, self._default_ttl_ms, passed=passed, on_expiry="release")
            except InsufficientCreditsError as short:
                # The account is below its floor already: it can pay nothing, and the whole charge is shortfall.
                lowest = to_signed_micro(short.available)
                await self._hold(
                    attempt, charge.key, self._default_ttl_ms, passed=passed, on_expiry="release", floor=lowest
                )
        except IdempotencyConflictError:
            return  # it was opened in time, and only the reply was lost
        except LeaseClosedError as closed:
            if closed.how == "released":
                raise


def charge_for(account: str, lease_id: str, consumed: UsageOrAmount) -> PendingCharge:
    """Return the charge that settles a lease for some usage or credits.

    Raises:
        InvalidAmountError, InvalidUsageError
    """
    usages, amount = split(consumed, zero=True)
    return PendingCharge(account, lease_id, tuple(usages), "" if usages else str(from_micro(amount)))
