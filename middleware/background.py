"""Work that goes on after its answer: what is remembered of it, until somebody sees it finished."""

import asyncio
import logging
from collections.abc import Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct, structs

from ducto_redis.errors import CreditError, LeaseClosedError, StoreError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.manager.core import ManagerCore
from ducto_redis.manager.outbox import PendingCharge
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

# An expired lease can be settled for a day.
_LATE_SECONDS = 24 * 3600
_LONGEST_SECONDS = 30 * 24 * 3600
_WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0)


class OpenWork(Struct, frozen=True, omit_defaults=True):
    """Work that goes on, and what is to be charged for it.

    Attributes:
        account: who pays.
        lease_id: what is held for it.
        estimate, counted_input_tokens: of the request that started it.
        hold: what is held, in credits as decimal text; charged where what it used turns out to have no price.
        recorded: what else is charged with it.
        flags: what is unusual about it, for the journal.
        leased: whether the lease was opened; otherwise the engine was away, and it is opened with the charge.
        operation_type, member: as they are journalled.
    """

    account: str
    lease_id: str
    estimate: UsageMetrics
    counted_input_tokens: int = 0
    hold: str = ""
    recorded: Sequence[UsageMetrics] = ()
    flags: Sequence[str] = ()
    leased: bool = True
    operation_type: str = "default"
    member: str = ""

    def as_request(self, work_id: str) -> MeteredRequest:
        """Return what the reader of a later answer must know."""
        return MeteredRequest(self.estimate, self.counted_input_tokens, continues=work_id)


async def leave_open(manager: AsyncCreditManager, work_id: str, work: OpenWork, ttl_seconds: float) -> None:
    """Remember work that goes on, and let its lease hold for `ttl_seconds`.

    While the engine is away it is tried again in the background; work that is given up is logged whole, and its lease
    expires.
    """
    if not await try_to_leave_open(manager, work_id, work, ttl_seconds):
        manager.settle_task(_leave_open_later(manager, work_id, work, ttl_seconds))


async def find_work(manager: ManagerCore, work_id: str) -> OpenWork | None:
    """Return what is known of work; None where nothing waits for its outcome.

    Raises:
        RecoveryNeededError, StoreUnavailableError
    """
    kept = await manager.get_value(None, _name(work_id))
    return None if kept is None else _decoder.decode(kept)


async def finish_work(
    manager: ManagerCore, work: OpenWork, charge: Charge | None
) -> SettleResult | ReleaseResult | None:
    """Charge finished work, or release its hold where it cost nothing. Any number of processes may do it, at once too.

    Args:
        manager: where the account is charged.
        work: the work.
        charge: what it used, see `ResponseReader.charge`.

    Returns:
        What happened, again where it had happened before; None where the work goes on, where it was closed in another
        way, or where the engine is away and gets the charge later.
    """
    if charge is not None and charge.later:
        return None
    usages = (*([] if charge is None else [charge.usage]), *work.recorded)
    flags = (*([] if charge is None else charge.flags), *work.flags)
    pending = PendingCharge(
        work.account, work.lease_id, usages, "", work.hold, work.leased, work.operation_type, work.member, flags
    )
    try:
        try:
            return await manager.send_charge(pending)
        except LeaseClosedError as closed:
            if closed.how != "released" or not usages:
                raise
            # Somebody saw it cancelled, and yet it ran to its end.
            pending = structs.replace(pending, key=f"{work.lease_id}/again", lease=False)
            return await manager.send_charge(pending)
    except StoreError:
        manager.charge_later(pending)
    except CreditError as error:
        # Such as a charge of another usage, or one that is long forgotten: the first outcome stands.
        logger.info("lease %s of work that went on is not charged again: %s", work.lease_id, error)
    return None


async def try_to_leave_open(manager: ManagerCore, work_id: str, work: OpenWork, ttl_seconds: float) -> bool:
    """`leave_open`, once. Returns False where the engine is away."""
    kept_seconds = min(ttl_seconds + _LATE_SECONDS, _LONGEST_SECONDS)
    try:
        await manager.put_value(None, _name(work_id), msgspec.json.encode(work), ttl=kept_seconds)
        if work.leased:
            await manager.renew(work.account, work.lease_id, ttl=ttl_seconds)
    except StoreError:
        return False
    except CreditError as error:
        logger.warning("lease %s of work that goes on is no longer held: %s", work.lease_id, error)
    return True


async def _leave_open_later(manager: AsyncCreditManager, work_id: str, work: OpenWork, ttl_seconds: float) -> None:
    for wait in _WAITS_SECONDS:
        await asyncio.sleep(wait)
        if await try_to_leave_open(manager, work_id, work, ttl_seconds):
            return
    logger.error(
        "gave up work that goes on, for the engine is away: %r, %s", work_id, msgspec.json.encode(work).decode()
    )


def _name(work_id: str) -> str:
    # Ids are of others' making: of any length, and any characters.
    return "ducto/work/" + blake2b(work_id.encode(errors="surrogatepass"), digest_size=20).hexdigest()


_decoder = msgspec.json.Decoder(OpenWork)
