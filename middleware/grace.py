"""Credits that are let pass unpaid while the engine is away."""

from dataclasses import dataclass


@dataclass(frozen=True)
class UnpaidHold:
    """A part of the grace that one request has taken. `outage` is the outage that it was taken in."""

    micro: int
    outage: int


class Grace:
    """What one process lets pass unpaid in one outage of the engine, in micro-credits.

    The charges of such requests wait in the manager's queue. As soon as the engine answers again, all of the grace
    is there for the next outage.
    """

    def __init__(self, limit_micro: int) -> None:
        self._limit_micro = limit_micro
        self._taken_micro = 0
        self._outage = 0

    def take(self, micro: int) -> UnpaidHold | None:
        """Take the worst case of a request, or return None where the rest of the grace does not cover it."""
        if self._taken_micro + micro > self._limit_micro:
            return None
        self._taken_micro += micro
        return UnpaidHold(micro, self._outage)

    def give_back(self, hold: UnpaidHold) -> None:
        """The request cost nothing after all."""
        if hold.outage == self._outage:
            self._taken_micro -= hold.micro

    def engine_answered(self) -> None:
        """The outage, if there was one, is over."""
        if self._taken_micro:
            self._taken_micro = 0
            self._outage += 1
