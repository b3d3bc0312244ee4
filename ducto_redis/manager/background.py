"""What a blocking manager does by itself, later: renew leases, send what waits in the outbox."""

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic

from ducto_redis.errors import CreditError

_log = logging.getLogger("ducto_redis.manager")


class Background:
    """Calls functions at their time, in one daemon thread that is started by the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._reset()

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call `function` after that many seconds. A CreditError that it raises is logged."""
        if self._process != os.getpid():
            self._reset()  # a forked child has no such thread, and nothing of the parent's to do
        with self._changed:
            heapq.heappush(self._planned, (monotonic() + seconds, next(self._order), function))
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Call nothing more. A call that runs is waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._thread = None
        self._stopped = False

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._planned or self._planned[0][0] > monotonic()):
                    self._changed.wait(self._planned[0][0] - monotonic() if self._planned else None)
                if self._stopped:
                    return
                _, _, function = heapq.heappop(self._planned)
            try:
                function()
            except CreditError as error:
                _log.warning("%s: %s", self._name, error)
