"""Credits that are let pass unpaid while the engine is away."""

from ducto_redis.manager.outbox import Outbox


class Grace:
    """The amount that one process lets pass unpaid, in micro-credits.

    The worst cases of requests that run unpaid, and of those whose charges the engine has not taken yet, are never more
    than the limit together.

    Attributes:
        pricing_version: the pricing document that the last hold was priced under; 0 before the first.
    """

    def __init__(self, limit_micro: int, outbox: Outbox) -> None:
        self.pricing_version = 0
        self._limit_micro = limit_micro
        self._outbox = outbox
        self._running_micro = 0
        self._waiting_micro = 0

    def take(self, micro: int) -> bool:
        """Let a request run that costs at most so much. Returns whether the grace covers it."""
        if not len(self._outbox):
            self._waiting_micro = 0
        if self._outbox.full or self._running_micro + self._waiting_micro + micro > self._limit_micro:
            return False
        self._running_micro += micro
        return True

    def take_anyway(self, micro: int) -> None:
        """Take so much more for a request that runs already, even if the grace does not cover it."""
        self._running_micro += micro

    def give_back(self, micro: int) -> None:
        """Give back what a request took: it cost nothing after all."""
        self._running_micro -= micro

    def charge_waits(self, micro: int) -> None:
        """Note that the request has ended, and that its charge waits in the outbox."""
        self._running_micro -= micro
        self._waiting_micro += micro
