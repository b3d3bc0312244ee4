"""The opening of a request's hold, clamped or refused where the account cannot cover it."""

import logging
from functools import partial

from msgspec import structs

from ducto_redis.errors import CapReachedError, InsufficientCreditsError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.holds.clamping import (
    Shortage,
    budget_micro,
    largest_limit,
    note_largest_limit,
    with_limit,
    with_output,
)
from ducto_redis.middleware.holds.incremental import IncrementalHold
from ducto_redis.middleware.holds.learned import LearnedHolds, Learning
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.routing import without_ids
from ducto_redis.middleware.settings import Holds
from ducto_redis.payer import Payer
from ducto_redis.results import ReleaseResult, SettleResult

logger = logging.getLogger("ducto_redis.middleware")

# Between pricing and holding others may take what was there; after so many times a request is refused.
_CLAMP_ATTEMPTS = 4


class HoldPolicy:
    """The way to hold for requests, from the settings.

    Args:
        manager: where accounts are charged.
        holds: the settings.
        estimates: that requests are read with.
        counts: counts how accurate holds are; None where nobody asks.
    """

    def __init__(
        self, manager: AsyncCreditManager, holds: Holds, estimates: Estimates, counts: MeteringCounts | None
    ) -> None:
        learned = holds.learned
        self.manager = manager
        self.estimates = estimates
        self.counts = counts
        self.step_tokens = holds.step_tokens if holds.strategy == "incremental" else 0
        self.least_output = holds.min_output_tokens if holds.on_short == "clamp" else 0
        self.learning = Learning(LearnedHolds() if learned is True else learned, manager) if learned else None


class RequestHold:
    """The hold of one request.

    Args:
        policy: how it is held for.
        meter: the request's.
        recogniser: knows the API.
        request: what was read from it.
        asked: the request.

    Attributes:
        request: the request; once it is open, with the limit that it was lowered to.
        reader: what reads its answer.
        application_body: the body that the application gets.
        output_limit: the limit on the tokens of one answer that it was lowered to; None where it was not.
        growing: what grows with the answer; None where all that is to be held is held.
    """

    def __init__(
        self,
        policy: HoldPolicy,
        meter: RequestMeter,
        recogniser: Recogniser,
        request: MeteredRequest,
        asked: ApiRequest,
    ) -> None:
        self.request = request
        self.reader = recogniser.read_response(request, policy.estimates)
        self.application_body = recogniser.application_body(asked.body, request, None)
        self.output_limit: int | None = None
        self.growing: IncrementalHold | None = None
        self._policy = policy
        self._meter = meter
        self._recogniser = recogniser
        self._asked = asked

    async def open(self) -> None:
        """Hold what the request may cost, or what is held of that to begin with.

        Raises:
            CreditError: as `manager.reserve`. A refusal that a smaller request would pass names the largest limit on
                output that would.
        """
        policy, meter = self._policy, self._meter
        payer = meter.payer or await meter.find_payer()
        operation_type = payer.operation_type or self._recogniser.operation_type
        estimate = worst_case = self.request.estimate
        learning = policy.learning
        route = "" if learning is None else without_ids(self._asked.sent_path)
        grows = False
        if policy.step_tokens:
            most_tokens = self._most_tokens()
            grows = policy.step_tokens < most_tokens and self._can_grow()
        if grows:
            estimate = with_output(worst_case, policy.step_tokens)
        elif learning is not None and worst_case.output_tokens and not self.request.holds_worst_case:
            tokens = learning.output_tokens(route, worst_case.model, worst_case.output_tokens)
            estimate = with_output(worst_case, tokens)
        try:
            await meter.reserve(estimate, operation_type=operation_type, worst_case=worst_case)
        except (InsufficientCreditsError, CapReachedError) as error:
            refused: Shortage = error
        else:
            if grows and not meter.unpaid:
                price = partial(policy.manager.price_micro, payer.account)
                self.growing = IncrementalHold(
                    policy.manager, meter, price, estimate, worst_case, most_tokens, policy.step_tokens
                )
            if learning is not None or policy.counts is not None:
                self._watch(learning, route)
            return
        await self._open_lowered(refused, payer, operation_type)

    def _most_tokens(self) -> int:
        """Return what bounds the output: not the default, which only says what to hold where nothing does."""
        request, ceiling = self.request, self._policy.estimates.max_tokens_ceiling
        if request.output_limit is not None or not request.estimate.output_tokens:
            return request.estimate.output_tokens
        return MAX_COUNT if ceiling is None else ceiling * max(1, request.answers)

    def _can_grow(self) -> bool:
        """Tell whether this is a stream that says as it runs how much of it is to be held for."""
        kind, request = type(self.reader), self.request
        counts = (
            kind.delivered_tokens is not ResponseReader.delivered_tokens
            or kind.tokens_to_cover is not ResponseReader.tokens_to_cover
        )
        return request.streams and counts and not (request.may_reason_hidden or request.holds_worst_case)

    async def _open_lowered(self, refused: Shortage, payer: Payer, operation_type: str) -> None:
        """Hold the worst case of the request with a lower limit, or raise what refused it."""
        policy = self._policy
        price = partial(policy.manager.price_micro, payer.account)
        for _ in range(_CLAMP_ATTEMPTS if policy.least_output else 0):
            limit = await largest_limit(self.request, policy.estimates, price, budget_micro(refused))
            if limit is None or limit < policy.least_output or (lowered := self._lowered(limit)) is None:
                break
            request, application_body = lowered
            try:
                await self._meter.reserve(request.estimate, operation_type=operation_type)
            except (InsufficientCreditsError, CapReachedError) as error:
                refused = error
                continue
            self.request, self.application_body, self.output_limit = request, application_body, limit
            self.reader = self._recogniser.read_response(request, policy.estimates)
            if policy.counts is not None:
                policy.counts.clamped += 1
            if policy.counts is not None:
                self._watch(None, "")
            return
        check = partial(
            policy.manager.check_affordable,
            payer.account,
            operation_type=operation_type,
            member=payer.member,
            required_feature=payer.required_feature,
            parent=payer.parent,
        )
        await note_largest_limit(refused, self.request, policy.estimates, price, check)
        raise refused

    def _lowered(self, limit: int) -> tuple[MeteredRequest, bytes] | None:
        """Return the request with another limit, and its body; None where the body can't be made to say so."""
        estimates = self._policy.estimates
        lowered = with_limit(self.request, limit, estimates)
        if lowered is None:
            return None
        try:
            body = self._recogniser.application_body(self._asked.body, self.request, limit)
            asks = self._recogniser.read_request(structs.replace(self._asked, body=body), estimates)
        except BadRequestError as error:
            logger.info("a request can't be lowered to %d output tokens: %s", limit, error)
            return None
        return (lowered, body) if asks.estimate.output_tokens <= lowered.estimate.output_tokens else None

    def _watch(self, learning: Learning | None, route: str) -> None:
        """See to it that it is counted, and learned, how much of what could be used is used."""
        self._meter.on_settled = partial(self._settled, learning, route, self.request.estimate)

    def _settled(
        self,
        learning: Learning | None,
        route: str,
        worst_case: UsageMetrics,
        result: SettleResult | ReleaseResult | None,
    ) -> None:
        meter = self._meter
        if not isinstance(result, SettleResult):
            return
        if self._policy.counts is not None:
            self._policy.counts.holds.add(meter.held, result.amount + result.shortfall)
        if learning is not None and not meter.flagged:
            used = sum(usage.output_tokens for usage in meter.recorded if usage.model == worst_case.model)
            learning.answered(route, worst_case.model, used, worst_case.output_tokens)
