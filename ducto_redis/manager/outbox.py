"""Charges for finished work that wait for an engine that cannot take them.

The work is delivered, so its charge must not be lost: it is sent again, under the same key, until the engine takes it.
The outbox is bounded; while it is full, nothing new is admitted.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock

import msgspec
from msgspec import Struct

from ducto_redis.errors import CreditError, StoreError, StoreUnavailableError
from ducto_redis.metrics import UsageMetrics

DEFAULT_LIMIT = 10_000

_log = logging.getLogger("ducto_redis.outbox")


class PendingCharge(Struct, frozen=True):
    """A charge that waits.

    Attributes:
        account: the account that pays.
        key: the lease to settle.
        usage: the usage; without it and without credits, the lease is released.
        credits: the amount to charge if there is no usage, as decimal text.
        hold: the lease's hold, as decimal text; charged if the usage has no price.
        lease: True if the lease was opened; otherwise the engine was away, and the lease is opened with the charge.
        operation_type, member, flags: for the journal.
    """

    account: str
    key: str
    usage: Sequence[UsageMetrics] = ()
    credits: str = ""
    hold: str = ""
    lease: bool = True
    operation_type: str = "default"
    member: str = ""
    flags: Sequence[str] = ()


class PendingWork(Struct, frozen=True):
    """The work that a manager still has to do: charges that wait for the engine, and tasks that settle."""

    outbox: int
    tasks: int = 0


Send = Callable[[PendingCharge], Awaitable[object]]


class Outbox:
    """A bounded queue of charges, in the order in which they came. Threads may share it.

    From `limit` on nothing new is admitted; as many charges again still fit, for work that runs already.

    Attributes:
        full: True while nothing new may be admitted.
        given_up: the number of charges that were given up, each logged whole.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.full = limit <= 0
        self.given_up = 0
        self._charges: deque[PendingCharge] = deque()
        self._lock = Lock()
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._charges)

    def put(self, charge: PendingCharge) -> None:
        """Add a charge. One that does not fit, or comes when the outbox is closed, is given up."""
        with self._lock:
            reason = self._closed
            if reason is None and len(self._charges) < self.limit * 2:
                self._charges.append(charge)
                self.full = len(self._charges) >= self.limit
                return
        self._give_up(charge, reason or "the outbox is full")

    async def flush(self, send: Send) -> bool:
        """Send the charges until all are sent or the engine cannot be reached. Return True if all are sent.

        A charge that the engine refuses for good is given up. One that it cannot take now lets the next ones pass. Two
        flushes at a time do no harm: a charge that is sent twice takes effect once.
        """
        passed = 0
        while (charge := self._at(passed)) is not None:
            # It leaves only once it is sent, so that it counts until then and is not lost.
            try:
                await send(charge)
            except StoreUnavailableError:
                return False
            except CreditError as error:
                if isinstance(error, StoreError):
                    if not passed:
                        _log.warning("charges wait, the first for account %r: %s", charge.account, error)
                    passed += 1
                elif self._remove(charge):
                    self._give_up(charge, str(error))
            else:
                self._remove(charge)
        return not passed

    def close(self, reason: str) -> None:
        """Give up every charge that waits or still comes."""
        with self._lock:
            self._closed = reason
            waiting = list(self._charges)
            self._charges.clear()
            self.full = self.limit <= 0
        for charge in waiting:
            self._give_up(charge, reason)

    def _at(self, position: int) -> PendingCharge | None:
        with self._lock:
            return self._charges[position] if position < len(self._charges) else None

    def _remove(self, charge: PendingCharge) -> bool:
        with self._lock:
            if charge not in self._charges:
                return False
            self._charges.remove(charge)
            self.full = len(self._charges) >= self.limit
            return True

    def _give_up(self, charge: PendingCharge, reason: str) -> None:
        with self._lock:
            self.given_up += 1
        _log.error("gave up a charge (%s): %s", reason, msgspec.json.encode(charge).decode())
