"""The throttle of refusals that are sent to other processes. It costs a bounded memory and the caller no time."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic

from ducto_redis.events.types import CreditEvent

_PER_SECOND = 100
_SAME_EVERY_SECONDS = 1.0
_REMEMBERED = 4096
_PAUSE_SECONDS = 5.0


class RefusalThrottle:
    """A limit for the refusals of a process: one of a kind a second for each account, and 100 a second in all.

    After `pause`, it admits nothing for five seconds. It remembers at most 4,096 kinds. Threads may share it.

    Args:
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._last: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()
        self._tokens = float(_PER_SECOND)
        self._filled = clock()
        self._paused_until = 0.0

    @property
    def open(self) -> bool:
        """True while it is not paused."""
        return self._clock() >= self._paused_until

    def admit(self, event: CreditEvent) -> int | None:
        """Return the number of similar refusals dropped since the last one admitted, or None if this one is dropped."""
        now = self._clock()
        key = (event.type.value, event.account, getattr(event.data, "error", ""))
        with self._lock:
            if now < self._paused_until:
                return None
            self._tokens = min(float(_PER_SECOND), self._tokens + (now - self._filled) * _PER_SECOND)
            self._filled = now
            last, dropped = self._last.get(key, (-_SAME_EVERY_SECONDS, 0))
            admitted = now - last >= _SAME_EVERY_SECONDS and self._tokens >= 1
            self._last[key] = (now, 0) if admitted else (last, dropped + 1)
            self._last.move_to_end(key)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
            if not admitted:
                return None
            self._tokens -= 1
            return dropped

    def pause(self) -> None:
        """Admit nothing for five seconds, because nobody listens."""
        with self._lock:
            self._paused_until = self._clock() + _PAUSE_SECONDS
