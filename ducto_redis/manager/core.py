"""All parts of a manager, for event loops and for threads alike."""

from ducto_redis.manager.analytics import Spending
from ducto_redis.manager.balances import Balances
from ducto_redis.manager.caps import Caps
from ducto_redis.manager.corrections import Corrections
from ducto_redis.manager.deferred import DeferredCharges
from ducto_redis.manager.documents import Documents
from ducto_redis.manager.explain import Explaining
from ducto_redis.manager.plans import Plans
from ducto_redis.manager.teams import Teams
from ducto_redis.manager.values import Values


class ManagerCore(Teams, Balances, DeferredCharges, Documents, Caps, Plans, Corrections, Explaining, Spending, Values):
    """Prices, holds and charges."""

    async def close(self) -> None:
        """Send the charges that wait in the outbox, give up those that cannot be sent, and close the connections."""
        if self._closed:
            return
        try:
            if len(self.outbox):
                await self.outbox.flush(self.send_charge)
        finally:
            self.outbox.close("the manager was closed before the engine could take it")
            self._closed, self._usable = True, False
            await self._in_thread(self._ledger_access.stop)
            await self.store.close()

    async def wait_for_ledger(self, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the ledger holds everything that was journalled before this call.

        Raises:
            ConfigError: if there is no ledger.
            LedgerError: if it takes longer than `timeout_seconds`.
        """
        await self._ready()
        await self._in_thread(lambda: self._ledger_access.wait(timeout_seconds))
