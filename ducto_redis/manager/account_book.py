"""Which plan each account has, as far as this process knows.

The engine knows better: a call that names another plan than the account's is asked again, and that is how this book
learns. It only saves that question on the next call.
"""

from threading import Lock

_ACCOUNTS_KEPT = 50_000


class AccountBook:
    """The plans of the accounts that the engine asked about. Threads may share it.

    Args:
        limit: how many accounts it keeps; of more, those that it learned of first are forgotten.
    """

    def __init__(self, limit: int = _ACCOUNTS_KEPT) -> None:
        self._limit = limit
        self._plans: dict[str, str] = {}
        self._lock = Lock()

    def plan_of(self, account: str) -> str | None:
        """The account's plan, "" for none; None where the engine never asked about the account."""
        return self._plans.get(account)

    def learn(self, account: str, plan: str) -> None:
        """Keep what the engine said."""
        with self._lock:
            if account not in self._plans and len(self._plans) >= self._limit:
                del self._plans[next(iter(self._plans))]
            self._plans[account] = plan
