"""A hold that grows while a stream runs, so that little is held and a stream ends when its account can pay no more."""

import asyncio
import logging

from ducto_redis.engine.ids import new_id
from ducto_redis.errors import CreditError, StoreError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.holds.clamping import Price, with_output
from ducto_redis.middleware.request_meter import RequestMeter

logger = logging.getLogger("ducto_redis.middleware")


class IncrementalHold:
    """Holds a stream's prompt and its first step of output, then a step at a time.

    A step is asked for while half of the one before is left, so that the stream need not wait for it. One that is
    refused is asked for once more when all that is held is used up, for credits may have come in; then the stream is to
    end. An engine that is away ends no stream: it goes on, and what it used is held, or charged, once the engine is
    back.

    Args:
        manager: owns the tasks that extend.
        meter: the request's, which holds `first`.
        price: the account's prices.
        first: the estimate that is held.
        estimate: what the request may use, whatever its output.
        most_tokens: output tokens that it can't exceed.
        step_tokens: output tokens of a step.
    """

    def __init__(
        self,
        manager: AsyncCreditManager,
        meter: RequestMeter,
        price: Price,
        first: UsageMetrics,
        estimate: UsageMetrics,
        most_tokens: int,
        step_tokens: int,
    ) -> None:
        self.covered_tokens = 0
        """Output tokens up to which it need not be asked."""
        self._manager = manager
        self._meter = meter
        self._price = price
        self._held = first
        self._estimate = estimate
        self._most_tokens = most_tokens
        self._step_tokens = step_tokens
        self._allowed_tokens = first.output_tokens
        self._tokens = 0
        self._refused = False
        self._away = False
        self._unanswered: tuple[UsageMetrics, str] | None = None
        self._extending: asyncio.Task[None] | None = None
        self._ask_in_time()

    async def cover(self, tokens: int) -> bool:
        """See to it that more is held than so many output tokens need. Returns False where it can't be: the end.

        It waits only where all that is held is used up.
        """
        self._tokens = tokens
        extending = self._extending
        if extending is None or extending.done():
            if tokens >= self._allowed_tokens:
                self._refused = False  # credits may have come in since
            if not (self._refused or self._whole):
                extending = self._start_to_extend()
        while tokens >= self._allowed_tokens and not (self._whole or self._refused):
            if extending is None or extending.done():
                extending = self._start_to_extend()
            await asyncio.shield(extending)
        return self._whole or tokens < self._allowed_tokens

    def _start_to_extend(self) -> "asyncio.Task[None]":
        self._extending = self._manager.settle_task(self._extend())
        return self._extending

    @property
    def _whole(self) -> bool:
        return self._allowed_tokens >= self._most_tokens

    @property
    def _next_tokens(self) -> int:
        wanted = max(self._allowed_tokens, self._tokens) + self._step_tokens
        return min(wanted, self._most_tokens)

    async def _extend(self) -> None:
        wanted = self._next_tokens
        try:
            if self._unanswered is not None:
                await self._hold(*self._unanswered)
            if self._held.output_tokens < wanted:
                await self._hold(with_output(self._estimate, wanted), f"call/{new_id()}")
            self._allowed_tokens = max(self._allowed_tokens, wanted)
            self._away = False
            self._meter.steps_are_held()
        except StoreError as error:
            if not self._away:
                logger.warning("the engine is away: a stream goes on beyond its hold: %s", error)
            self._away = True
            await self._go_on_unpaid(wanted)
        except CreditError as error:
            logger.info("a stream's hold can't grow beyond %d output tokens: %s", self._held.output_tokens, error)
            self._refused = True
        except Exception:
            # Whatever it is, it is not the client's to bear: the answer goes on, and is charged at its end.
            logger.exception("a stream's hold failed to grow")
            self._allowed_tokens = self._most_tokens
        finally:
            self._ask_in_time()

    async def _hold(self, estimate: UsageMetrics, key: str) -> None:
        # Where the engine's answer is lost, the same is asked for again before anything else: so it is held once.
        self._unanswered = (estimate, key)
        try:
            await self._meter.extend(estimate, beyond=self._held, key=key)
        except StoreError:
            raise
        except CreditError:
            self._unanswered = None
            raise
        self._unanswered = None
        self._held = estimate

    async def _go_on_unpaid(self, tokens: int) -> None:
        before, self._allowed_tokens = self._allowed_tokens, max(self._allowed_tokens, tokens)
        self._ask_in_time()
        try:
            costs = await self._price(with_output(self._estimate, self._allowed_tokens))
            self._meter.pass_unpaid(max(0, costs - await self._price(with_output(self._estimate, before))))
        except Exception:
            logger.exception("what a stream uses beyond its hold has no price")

    def _ask_in_time(self) -> None:
        if self._whole:
            self.covered_tokens = MAX_COUNT
        elif self._refused:
            self.covered_tokens = self._allowed_tokens - 1
        else:
            self.covered_tokens = self._allowed_tokens - (self._step_tokens + 1) // 2
