"""The output that an account can pay, and a request that asks for no more."""

import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TypeAlias

from msgspec import structs

from ducto_redis.errors import CapReachedError, CreditError, InsufficientCreditsError
from ducto_redis.manager.repricing import PRICING_ERRORS
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest

logger = logging.getLogger("ducto_redis.middleware")

Price: TypeAlias = Callable[[UsageMetrics], Awaitable[int]]
"""What usage costs an account, in micro-credits."""

Check: TypeAlias = Callable[[UsageMetrics], Awaitable[None]]
"""Raises what a hold for usage would be refused with."""

Shortage: TypeAlias = InsufficientCreditsError | CapReachedError
"""A refusal that a smaller request may pass."""

_OUTPUT_PARTS = ("reasoning_tokens", "audio_output_tokens", "image_output_tokens")
_MICRO = 1_000_000
# After a spend cap another one may refuse, or the balance; few accounts have more limits that bind at once.
_MOST_LIMITS = 4


def budget_micro(refused: Shortage) -> int:
    """Return what a request may cost at most for the limit that refused to let it pass, in micro-credits."""
    if isinstance(refused, CapReachedError):
        return _micro(refused.limit - refused.used - refused.held)
    return _micro(refused.available + refused.allowance - refused.floor)


def with_output(estimate: UsageMetrics, output_tokens: int) -> UsageMetrics:
    """Return an estimate with another number of output tokens, and parts that fit into it."""
    parts = {name: min(part, output_tokens) for name in _OUTPUT_PARTS if (part := getattr(estimate, name))}
    return structs.replace(estimate, output_tokens=output_tokens, **parts)


def with_limit(request: MeteredRequest, limit: int, estimates: Estimates) -> MeteredRequest | None:
    """Return a request as it would be with another limit on the tokens of one answer; None where that limits nothing.

    What a limit does not bound, such as a predicted output, stays in the estimate.
    """
    limited = estimates.output(request.output_limit) * request.answers
    unlimited = request.estimate.output_tokens - limited
    if unlimited < 0 or not limited:
        return None
    estimate = with_output(request.estimate, unlimited + limit * request.answers)
    return structs.replace(request, estimate=estimate, output_limit=limit)


async def largest_limit(request: MeteredRequest, estimates: Estimates, price: Price, most_micro: int) -> int | None:
    """Return the largest limit on the tokens of one answer with which a request costs at most so much.

    Prices may rise in steps, or fall, as tokens grow: whatever is returned was priced.

    Args:
        request: the request.
        estimates: that it was read with.
        price: the account's prices.
        most_micro: what it may cost, in micro-credits.

    Returns:
        0 where even a single token of output is too dear; None where a limit changes nothing of what is held.
    """
    asked = estimates.output(request.output_limit)

    async def fits(limit: int) -> bool:
        lowered = with_limit(request, limit, estimates)
        if lowered is None:
            return False
        try:
            return await price(lowered.estimate) <= most_micro
        except PRICING_ERRORS:
            return False  # a formula may have no price for this number of tokens

    if with_limit(request, asked, estimates) is None:
        return None
    if await fits(asked):
        return asked
    if not await fits(1):
        return 0
    passes, too_dear = 1, asked
    while too_dear - passes > 1:
        middle = (passes + too_dear) // 2
        if await fits(middle):
            passes = middle
        else:
            too_dear = middle
    return passes


async def note_largest_limit(
    refused: Shortage, request: MeteredRequest, estimates: Estimates, price: Price, check: Check
) -> None:
    """Note in a refusal the largest limit on output that would pass.

    What a spend cap refused may be refused by the next cap, or the balance, once it is lowered: so the engine is asked,
    without holding anything. It stays unknown where the engine can't say, or limits change in between.
    """
    try:
        limit = await largest_limit(request, estimates, price, budget_micro(refused))
        if not isinstance(refused, CapReachedError):
            refused.max_output_tokens = limit  # all spend caps have let it pass, as it was
            return
        for _ in range(_MOST_LIMITS):
            lowered = with_limit(request, limit, estimates) if limit else None
            if lowered is None:
                refused.max_output_tokens = limit
                return
            try:
                await check(lowered.estimate)
            except (InsufficientCreditsError, CapReachedError) as other:
                limit = await largest_limit(lowered, estimates, price, budget_micro(other))
            else:
                refused.max_output_tokens = limit
                return
    except CreditError as error:
        logger.info("the largest limit on output that would pass is not known: %s", error)


def _micro(credits: Decimal) -> int:
    return int(credits * _MICRO)
