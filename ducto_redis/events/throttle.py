"""Signals: refusals, told to workers in other processes. Refusing must cost nobody memory, and the refused no time."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic

from ducto_redis.events.types import CreditEvent

_A_SECOND = 100
_SAME_EVERY_SECONDS = 1.0
_REMEMBERED = 4096
_UNHEARD_FOR_SECONDS = 5.0


class SignalGate:
    """Which refusals are told: of each account one of a kind in a second, of a process 100 in a second.

    Where nobody listens nothing is sent for five seconds. What it remembers is bounded. Threads may share it.

    Args:
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._last: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()
        self._tokens = float(_A_SECOND)
        self._filled = clock()
        self._unheard_until = 0.0

    @property
    def open(self) -> bool:
        """Whether any signal may be sent now."""
        return self._clock() >= self._unheard_until

    def admit(self, event: CreditEvent) -> int | None:
        """Whether to send a signal: how many like it were not sent since the last one, or None where it is not sent."""
        now = self._clock()
        key = (event.type.value, event.account, getattr(event.data, "error", ""))
        with self._lock:
            if now < self._unheard_until:
                return None
            self._tokens = min(float(_A_SECOND), self._tokens + (now - self._filled) * _A_SECOND)
            self._filled = now
            last, suppressed = self._last.get(key, (-_SAME_EVERY_SECONDS, 0))
            admitted = now - last >= _SAME_EVERY_SECONDS and self._tokens >= 1
            self._last[key] = (now, 0) if admitted else (last, suppressed + 1)
            self._last.move_to_end(key)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
            if not admitted:
                return None
            self._tokens -= 1
            return suppressed

    def nobody_listens(self) -> None:
        """Send nothing for a while."""
        with self._lock:
            self._unheard_until = self._clock() + _UNHEARD_FOR_SECONDS
