"""The background work of a blocking manager: it renews leases and sends the charges that wait in the outbox."""

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from weakref import WeakMethod

from ducto_redis.errors import CreditError

_STOP_SECONDS = 2.0
_log = logging.getLogger("ducto_redis.manager")


class Planned:
    """A call that is planned."""

    __slots__ = ("before_stop", "function")

    def __init__(self, function: Callable[[], None], *, before_stop: bool) -> None:
        self.function: Callable[[], None] | None = function
        self.before_stop = before_stop

    def cancel(self) -> None:
        """Cancel the call, unless it runs already."""
        self.function = None


class Background:
    """Calls functions at their time, in one daemon thread that is started by the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._order = itertools.count()
        self._planned: list[tuple[float, int, Planned]] = []
        self._reset()
        reset = WeakMethod(self._reset)
        # A forked child has no such thread, and the parent does its own work.
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        for _, _, planned in self._planned:
            planned.cancel()
        self._planned = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._last_call_at = 0.0

    def later(self, seconds: float, function: Callable[[], None], *, before_stop: bool = False) -> Planned:
        """Call `function` after that many seconds. A CreditError that it raises is logged.

        Args:
            seconds: until the call.
            function: the function.
            before_stop: has `stop` make the call early instead of dropping it.
        """
        planned = Planned(function, before_stop=before_stop)
        with self._changed:
            heapq.heappush(self._planned, (monotonic() + seconds, next(self._order), planned))
            if not self._stopped and self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return planned

    def stop(self) -> None:
        """Drop the planned calls, but make those marked `before_stop`, for two seconds at most.

        A call that runs already is waited for.
        """
        with self._changed:
            self._stopped = True
            self._last_call_at = monotonic() + _STOP_SECONDS
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._planned or self._planned[0][0] > monotonic()):
                    self._changed.wait(self._planned[0][0] - monotonic() if self._planned else None)
                if not self._planned:
                    return
                _, _, planned = heapq.heappop(self._planned)
                if self._stopped and not (planned.before_stop and monotonic() < self._last_call_at):
                    continue
            function = planned.function
            try:
                if function is not None:
                    function()
            except CreditError as error:
                _log.warning("%s: %s", self._name, error)
            except Exception:
                # The other planned calls must not wait for ever.
                _log.exception("%s: a planned call failed", self._name)
