"""The circuit breaker of a node: while it is open, nothing new is admitted, and nobody waits for a node that is away.

It knows no clock and does no I/O: the time is given, in seconds of any monotonic clock.
"""

import random

FAILURES = 5
FIRST_COOL_DOWN_SECONDS = 0.05
LONGEST_COOL_DOWN_SECONDS = 1.0


class Breaker:
    """Closed while the node answers; open after failures in a row; then one call at a time is let through to see.

    A failure is one of the way to the node, however many calls shared it: a connection that could not be made, that
    was lost under calls, or that fell silent. Error replies are answers. The breaker opens at the fifth failure in a
    row, or once failing has lasted as long as a call may take.

    Args:
        patience_seconds: how long failing may last.

    Attributes:
        failures: in a row.
        is_open: whether calls have to ask `admits`.
    """

    __slots__ = (
        "_cool_down",
        "_failing_since",
        "_is_probing",
        "_next_probe",
        "failures",
        "is_open",
        "patience_seconds",
    )

    def __init__(self, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self.failures = 0
        self.is_open = False
        self._failing_since = 0.0
        self._cool_down = FIRST_COOL_DOWN_SECONDS
        self._next_probe = 0.0
        self._is_probing = False

    def failed(self, now: float, *, since: float) -> None:
        """Note that the way to the node failed; the attempt, or the silence, had begun at `since`."""
        if not self.failures:
            self._failing_since = since
        self.failures += 1
        if self.is_open:
            if not self._is_probing:
                return  # calls that are not refused go on trying: that is no reason to refuse the others for longer
            self._cool_down = min(2 * self._cool_down, LONGEST_COOL_DOWN_SECONDS)
        elif self.failures >= FAILURES or now - self._failing_since >= self.patience_seconds:
            self.is_open = True
            self._cool_down = FIRST_COOL_DOWN_SECONDS
        else:
            return
        self._is_probing = False
        self._wait(now)

    def succeeded(self) -> None:
        """Note that the node answered."""
        self.failures = 0
        self.is_open = self._is_probing = False

    def admits(self, now: float) -> bool:
        """Tell whether a call may go to the node. While the breaker is open, one call after each cool-down may."""
        if not self.is_open:
            return True
        if now < self._next_probe:
            return False
        self._wait(now)
        self._is_probing = True
        return True

    def seconds_failing(self, now: float) -> float:
        """For how long the node has not answered."""
        return now - self._failing_since

    def seconds_closed(self, now: float) -> float:
        """For how long from now nothing is let through."""
        return max(0.0, self._next_probe - now)

    def _wait(self, now: float) -> None:
        # At random, so that processes that lost the node together do not come back together.
        self._next_probe = now + random.uniform(0.5, 1.0) * self._cool_down
