"""Automatic top-ups: a payment, and credits for it, once each time that a balance runs low."""

import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec import Struct

from ducto_redis.engine.operation import CALLERS_KEY
from ducto_redis.errors import ConfigError, GiveUpError
from ducto_redis.events.types import CreditEvent, LowBalance
from ducto_redis.manager import CreditManager
from ducto_redis.money import Amount, from_micro, to_micro
from ducto_redis.store.contract import JournalledStore

logger = logging.getLogger(__name__)

_KEPT_MS = 35 * 24 * 3600 * 1000
_DECLINED = "declined"


class TopUp(Struct, frozen=True, kw_only=True):
    """A payment to ask for.

    Attributes:
        account: the account that pays, and gets the credits.
        credits: the credits.
        idempotency_key: the key for the payment provider; the same in every attempt for one event.
        event: the `credits.low_balance` event.
    """

    account: str
    credits: Decimal
    idempotency_key: str
    event: CreditEvent


ChargeCustomer: TypeAlias = Callable[[TopUp], "Awaitable[bool] | bool"]
"""A function that takes the payment, and returns True if it was paid, False if it was declined."""


class AutoTopUp:
    """A handler that tops an account up: `handlers.on("credits.low_balance", AutoTopUp(...))`, in an event worker.

    When a charge takes a balance to `level` or below, it calls your function for the payment, with an idempotency key
    made from the event, and adds the credits under the same key. A worker that dies in between, two workers, or a
    repeated event repeat the same payment and the same credits: both take effect once, provided that your payment
    provider supports idempotency keys.

    An event that is too old, or whose balance has risen meanwhile, is ignored. A payment that began longer ago than
    `within_seconds` and whose outcome is unknown becomes a dead letter, for a person to check: the provider may have
    forgotten the key.

    Args:
        level: credits; one of the managers' `low_balance_thresholds`.
        amount: credits to add. They should take the balance above the level, which arms it again.
        charge: your function, plain or a coroutine function; see `ChargeCustomer`. An error of it is retried.
        type: the type of the credits.
        within_seconds: the time for which an event counts, and your provider remembers an idempotency key.

    Raises:
        ConfigError, InvalidAmountError: if a setting is wrong.
    """

    def __init__(
        self,
        *,
        level: Amount,
        amount: Amount,
        charge: ChargeCustomer,
        type: str = "purchase",
        within_seconds: float = 23 * 3600,
    ) -> None:
        if not callable(charge):
            raise ConfigError("charge must be a function that takes a TopUp and returns True or False")
        if within_seconds <= 0:
            raise ConfigError("within_seconds must be above 0")
        self._level = from_micro(to_micro(level, zero=True))
        self._credits = from_micro(to_micro(amount))
        self._charge = charge
        self._type = type
        self._within_seconds = within_seconds
        self._store: JournalledStore | None = None
        self._manager: CreditManager | None = None

    def __repr__(self) -> str:
        return f"AutoTopUp(level={self._level}, amount={self._credits})"

    def attach(self, store: JournalledStore) -> None:
        """Take the store of the accounts; called by the worker."""
        self._store = store
        self._manager = CreditManager(store.blocking_twin())

    def detach(self) -> None:
        """Let go of the store; called by the worker when it has stopped."""
        manager, self._manager, self._store = self._manager, None, None
        if manager is not None:
            manager.close()

    def __call__(self, event: CreditEvent) -> Awaitable[None] | None:
        """Top the account up, if the event is that of the level.

        Raises:
            ConfigError: if no worker gave it a store, or `charge` returned neither True nor False.
            GiveUpError: if a payment began too long ago to be repeated.
            Exception: the errors of `charge` and of `CreditManager.add_credits`; all may be retried.
        """
        if not isinstance(event.data, LowBalance) or event.data.level != self._level:
            return None
        top_up = TopUp(
            account=event.account,
            credits=self._credits,
            idempotency_key=f"top-up:{event.event_id}",
            event=event,
        )
        if not self._begins(top_up):
            return None
        paid = self._charge(top_up)
        if inspect.isawaitable(paid):
            return self._finish_later(top_up, paid)
        self._finish(top_up, paid)
        return None

    def _begins(self, top_up: TopUp) -> bool:
        """Return True if the payment must be made, now or again. A mark of it is written first."""
        manager, store = self._attached()
        client = store.redis()
        account, event = top_up.account, top_up.event
        keys = store.namespace.account(account)
        if client.exists(keys.operation(CALLERS_KEY + top_up.idempotency_key)):
            return False  # the credits were added
        mark = store.namespace.top_up(account, event.event_id)
        begun = client.get(mark)
        if begun is None:
            age = (datetime.now(UTC) - event.time).total_seconds()
            if age > self._within_seconds or manager.get_balance(account).balance > self._level:
                logger.info("no top-up for account %r: the event %s is past", account, event.event_id)
                return False
            client.set(mark, str(int(time.time())), px=_KEPT_MS)
            return True
        if begun.decode() == _DECLINED:
            return False
        if time.time() - int(begun) > self._within_seconds:
            raise GiveUpError(
                f"it is unknown if account {account!r} paid for a top-up: ask your payment provider for the"
                f" idempotency key {top_up.idempotency_key!r}, and add the credits with this key if it paid"
            )
        return True

    async def _finish_later(self, top_up: TopUp, paid: Awaitable[bool]) -> None:
        self._finish(top_up, await paid)

    def _finish(self, top_up: TopUp, paid: Any) -> None:
        manager, store = self._attached()
        if paid is False:
            store.redis().set(store.namespace.top_up(top_up.account, top_up.event.event_id), _DECLINED, px=_KEPT_MS)
            logger.warning("the top-up of account %r was declined", top_up.account)
            return
        if paid is not True:
            raise ConfigError(f"charge must return True if it was paid, False if it was declined, not {paid!r:.40}")
        manager.add_credits(
            top_up.account,
            top_up.credits,
            type=self._type,
            idempotency_key=top_up.idempotency_key,
            metadata={"top_up_of": top_up.event.event_id},
        )
        logger.info("account %r was topped up by %s credits", top_up.account, top_up.credits)

    def _attached(self) -> tuple[CreditManager, JournalledStore]:
        if self._manager is None or self._store is None:
            raise ConfigError("AutoTopUp works in an event worker: EventWorker(store, handlers)")
        return self._manager, self._store
