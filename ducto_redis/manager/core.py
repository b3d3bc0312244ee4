"""Everything that a manager does, for event loops and for threads alike."""

from ducto_redis.errors import StoreError
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
        if self._opened and not await self.outbox.flush(self.send_charge):
            self.outbox.give_up_all("the manager was closed while the engine was away")
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

    async def settle_or_later(self, account: str, lease_id: str, consumed: UsageOrAmount) -> SettleResult | None:
        """Settle a lease; None where the engine is away and gets the charge later."""
        usages, amount = split(consumed, zero=True)
        try:
            return await self.settle(account, lease_id, consumed)
        except StoreError:
            credits = "" if usages else str(from_micro(amount))
            self.charge_later(PendingCharge(account, lease_id, tuple(usages), credits))
            return None

    async def release_or_later(self, account: str, lease_id: str) -> ReleaseResult | None:
        """Release a lease; None where the engine is away."""
        try:
            return await self.release(account, lease_id)
        except StoreError:
            self.release_later(account, lease_id)
            return None

    async def wait_for_ledger(self, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the ledger holds everything that was journalled before this call.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer than `timeout_seconds`.
        """
        await self._ready()
        await self._in_thread(lambda: self._ledger_access.wait(timeout_seconds))
