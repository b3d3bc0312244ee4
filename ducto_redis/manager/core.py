"""Everything that a manager does, for event loops and for threads alike."""

from contextlib import suppress

from msgspec import structs

from ducto_redis.errors import CreditError, LeaseNotFoundError, StoreError
from ducto_redis.manager.balances import Balances
from ducto_redis.manager.documents import Documents
from ducto_redis.manager.leases import Leases
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.manager.requests import UsageOrAmount, split
from ducto_redis.money import from_micro
from ducto_redis.results import ReleaseResult, SettleResult


class ManagerCore(Balances, Leases, Documents):
    """Prices, holds and charges."""

    async def close(self) -> None:
        """Send what waits in the outbox, give up what cannot be sent, and let go of connections."""
        if self._closed:
            return
        try:
            if len(self.outbox):
                await self.outbox.flush(self.send_charge)
        finally:
            self.outbox.close("the manager was closed before the engine could take it")
            self._closed = True
            await self._in_thread(self._ledger_access.stop)
            await self.store.close()

    def charge_later(self, charge: PendingCharge) -> None:
        """Put a charge into the outbox, which sends it once the engine is back."""
        self.outbox.put(charge)

    def release_later(self, account: str, lease_id: str) -> None:
        """Release, once the engine is back, a lease that may have been opened when it went away.

        Only where it would be charged otherwise: by default a lease that nobody closes is released when it expires.
        Charges come first: while the outbox is half full, no release is taken in.
        """
        if self._on_lease_expiry == "charge" and len(self.outbox) * 2 < self.outbox.limit:
            self.charge_later(PendingCharge(account, lease_id, ()))

    async def settle_or_later(self, charge: PendingCharge, *, hold: str = "") -> SettleResult | None:
        """Settle a lease; None where the engine is away and gets the charge later.

        Args:
            charge: what to settle.
            hold: what is to be charged later where the usage turns out to have no price: nobody is there to hear then.
        """
        try:
            return await self._settle_charge(charge)
        except StoreError:
            self.charge_later(structs.replace(charge, hold=hold))
            return None
        except CreditError:
            raise
        except BaseException:
            # Interrupted: whether it was charged is unknown, and its key makes it safe to ask again.
            self.charge_later(structs.replace(charge, hold=hold))
            raise

    async def release_or_later(self, account: str, lease_id: str) -> ReleaseResult | None:
        """Release a lease; None where the engine is away."""
        try:
            return await self.release(account, lease_id)
        except StoreError:
            self.release_later(account, lease_id)
            return None

    async def release_if_opened(self, account: str, lease_id: str) -> None:
        """Release a lease that the engine may have opened, and may have not: its reserve was interrupted."""
        with suppress(LeaseNotFoundError):
            await self.release_or_later(account, lease_id)

    async def wait_for_ledger(self, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the ledger holds everything that was journalled before this call.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer than `timeout_seconds`.
        """
        await self._ready()
        await self._in_thread(lambda: self._ledger_access.wait(timeout_seconds))


def charge_for(account: str, lease_id: str, consumed: UsageOrAmount) -> PendingCharge:
    """The charge that settles a lease for what was consumed. Raises InvalidAmountError, InvalidUsageError."""
    usages, amount = split(consumed, zero=True)
    return PendingCharge(account, lease_id, tuple(usages), "" if usages else str(from_micro(amount)))
