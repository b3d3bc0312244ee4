"""The payer of a metered client's calls."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from ducto_redis.manager.meter import MeterCore
from ducto_redis.middleware.payer import payer_of
from ducto_redis.payer import Payer

FoundPayer: TypeAlias = str | Payer | None

Account: TypeAlias = str | Payer | Callable[[Any], FoundPayer | Awaitable[FoundPayer]] | None
"""An account id, a Payer, or a function of the HTTP request that returns either, or None: the call is refused with 401.
For an asynchronous client it may be a coroutine function. None: only calls inside of `paid_by` are admitted."""

_paying: ContextVar[str | Payer | MeterCore | None] = ContextVar("ducto_redis.paying", default=None)


@contextmanager
def paid_by(account: str | Payer | MeterCore) -> Iterator[None]:
    """Let an account pay for what metered clients are asked for inside of it, whatever account they were given.

    It holds for this thread or task, and for the tasks that are started inside of it.

        with paid_by("u1"):
            client.chat.completions.create(...)

        with manager.meter("u1", estimate=10) as budget, paid_by(budget):   # an agent that may spend ten credits
            run(agent)

    Args:
        account: the account id, a Payer, or a meter that is open: calls are held and charged inside of its lease, and
            never cost more than that one holds.
    """
    before = _paying.set(account)
    try:
        yield
    finally:
        _paying.reset(before)


def found_payer(account: Account, request: Any) -> Payer | Awaitable[FoundPayer]:
    """Return who pays for a request, or what is to be awaited to know it.

    Raises:
        NoAccountError: where nobody pays.
        ConfigError: where the function returned something else.
    """
    paying = _paying.get()
    if isinstance(paying, MeterCore):
        return Payer(paying.account, parent=paying.lease_id)
    if paying is not None:
        return payer_of(paying)
    found = account(request) if callable(account) else account
    return found if isinstance(found, Awaitable) else payer_of(found)
