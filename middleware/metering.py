"""The middleware itself: which requests are metered, for whom, and what they are held."""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis.engine.ids import check_account
from ducto_redis.errors import ConfigError, CreditError, InvalidIdError, NoAccountError
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.manager.requests import check_member, ttl_to_ms
from ducto_redis.middleware.answers import BadRequestError, refusal_for
from ducto_redis.middleware.body import ReplayedBody, WatchedReceive, read_body
from ducto_redis.middleware.estimates import CountTokens, Estimates
from ducto_redis.middleware.grace import Grace
from ducto_redis.middleware.recognisers import AnswerReader, OpenAIChat, Recogniser
from ducto_redis.middleware.request_meter import RequestMeter
from ducto_redis.middleware.responder import Responder
from ducto_redis.money import Amount, to_micro
from ducto_redis.payer import Payer

Account: TypeAlias = Callable[[Scope], str | Payer | Awaitable[str | Payer | None] | None]
"""`account(scope)` says who pays: an account id, a Payer, or None, which is answered with 401."""

logger = logging.getLogger("ducto_redis.middleware")

_METERED = "ducto_redis.metered"


class MeteringMiddleware:
    """Charges credits for the requests to model APIs that pass through it.

    It holds the worst case before the application runs, and charges what the answer reports. Authentication, CORS and
    compression belong around it.

        app.add_middleware(MeteringMiddleware, manager=manager, account=payer)

    Args:
        app: the application.
        manager: where accounts are charged.
        account: called with the scope of every metered request, async or not; says who pays.
        routes: paths of the application's own, such as "/chat" or "/bots/{bot}/chat", and the API that each speaks.
        recognisers: APIs that are recognised by the end of their paths.
        default_max_tokens: output tokens that are held for a request that sets no limit.
        max_tokens_ceiling: output tokens that no model here exceeds, so that more are never held.
        count_tokens: `count_tokens(model, text)`, a tokeniser. Without it a hold assumes a token per UTF-8 byte.
        body_limit: the largest request body, in bytes.
        hold_json_up_to: the size in bytes up to which a JSON answer is held back until it is charged, so that its
            headers can say what it cost.
        on_unavailable: "refuse" (503) while the engine is away, or "allow": let pass, and charge once it is back.
        grace: credits, with on_unavailable="allow": the most that requests may cost together which this process has let
            pass and the engine has not charged yet. More is refused.
        ttl_seconds: how long a hold outlives a process that was killed. While a request runs it is renewed.

    Raises:
        ConfigError: where a setting is wrong. (InvalidAmountError: the grace.)
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        manager: AsyncCreditManager,
        account: Account,
        routes: Mapping[str, Recogniser] | None = None,
        recognisers: Sequence[Recogniser] | None = None,
        default_max_tokens: int = 4096,
        max_tokens_ceiling: int | None = None,
        count_tokens: CountTokens | None = None,
        body_limit: int = 16 * 2**20,
        hold_json_up_to: int = 2**20,
        on_unavailable: Literal["refuse", "allow"] = "refuse",
        grace: Amount | None = None,
        ttl_seconds: float = 120,
    ) -> None:
        if not isinstance(manager, AsyncCreditManager):
            raise ConfigError(f"the middleware needs an AsyncCreditManager, not {type(manager).__name__}")
        if not callable(account):
            raise ConfigError("account must be a function that takes the scope and says who pays")
        if on_unavailable not in ("refuse", "allow"):
            raise ConfigError(f"on_unavailable must be 'refuse' or 'allow', not {on_unavailable!r}")
        if (on_unavailable == "allow") != (grace is not None):
            raise ConfigError("grace (credits) and on_unavailable='allow' go together")
        for name, value in (("body_limit", body_limit), ("hold_json_up_to", hold_json_up_to)):
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name} must be a number of bytes, not {value!r}")
        self.app = app
        self._manager = manager
        self._account = account
        self._recognisers = (OpenAIChat(),) if recognisers is None else tuple(recognisers)
        self._routes = [(_path_pattern(path), recogniser) for path, recogniser in (routes or {}).items()]
        for recogniser in (*self._recognisers, *(recogniser for _, recogniser in self._routes)):
            if not isinstance(recogniser, Recogniser):
                raise ConfigError(f"routes and recognisers take objects such as OpenAIChat(), not {recogniser!r}")
        self._estimates = Estimates(default_max_tokens, max_tokens_ceiling, count_tokens)
        self._body_limit = body_limit
        self._hold_json_up_to = hold_json_up_to
        self._grace = None if grace is None else Grace(to_micro(grace), manager.outbox)
        self._ttl_seconds = ttl_seconds
        ttl_to_ms(ttl_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _METERED in scope:
            await self.app(scope, receive, send)
            return
        meter = RequestMeter(self._manager, partial(self._find_payer, scope), self._grace, self._ttl_seconds)
        recogniser = self._recogniser(scope)
        if recogniser is None:
            await self._run(None, None, meter, scope, WatchedReceive(receive), send)
            return
        try:
            payer = await meter.find_payer()
            body = await read_body(scope, receive, self._body_limit)
            if body is None:
                return
            request = recogniser.read_request(body, scope, self._estimates)
            reader = recogniser.read_answer(request, self._estimates)
            await meter.reserve(request.estimate, operation_type=payer.operation_type or recogniser.operation_type)
        except (BadRequestError, CreditError, HTTPException) as error:
            await _refuse(recogniser, error, send)
            return
        scope[_METERED] = True
        await self._run(recogniser, reader, meter, scope, ReplayedBody(body, receive), send)

    def _recogniser(self, scope: Scope) -> Recogniser | None:
        method, path = scope["method"], scope["path"].rstrip("/") or "/"
        root = scope.get("root_path", "").rstrip("/")
        inside = path.removeprefix(root) if path.startswith(f"{root}/") else path
        for pattern, recogniser in self._routes:
            if method in recogniser.methods and (pattern.match(path) or pattern.match(inside)):
                return recogniser
        for recogniser in self._recognisers:
            if method in recogniser.methods and recogniser.matches(path):
                return recogniser
        return None

    async def _run(
        self,
        recogniser: Recogniser | None,
        reader: AnswerReader | None,
        meter: RequestMeter,
        scope: Scope,
        receive: WatchedReceive,
        send: Send,
    ) -> None:
        scope.setdefault("state", {})["meter"] = meter
        responder = Responder(send, meter, reader, self._manager, self._hold_json_up_to)
        try:
            await self.app(scope, receive, responder.send)
        except BaseException as error:
            await responder.finish(interrupted_by=error, client_left=receive.client_left)
            if not isinstance(error, CreditError) or responder.passed:
                raise
            await _refuse(recogniser, error, send)
        else:
            await responder.finish()

    async def _find_payer(self, scope: Scope) -> Payer:
        payer = self._account(scope)
        if not isinstance(payer, str | Payer) and inspect.isawaitable(payer):
            payer = await payer
        if payer is None:
            raise NoAccountError
        if isinstance(payer, str):
            payer = Payer(payer)
        if not isinstance(payer, Payer):
            raise ConfigError(f"account(scope) must return an id, a Payer or None, not {type(payer).__name__}")
        try:
            check_account(payer.account)
            check_member(payer.member)
        except InvalidIdError as error:
            # What clients send often names account and member: one that can't exist is theirs to correct.
            raise NoAccountError from error
        return payer


def _path_pattern(path: str) -> re.Pattern[str]:
    if not path.startswith("/"):
        raise ConfigError(f"a path in routes starts with a slash, unlike {path!r}")
    return compile_path(path.rstrip("/") or "/")[0]


async def _refuse(
    recogniser: Recogniser | None, error: CreditError | BadRequestError | HTTPException, send: Send
) -> None:
    refusal = refusal_for(error)
    if not isinstance(error, HTTPException) and refusal.status >= 500:
        level, traceback = (logging.WARNING, None) if refusal.status == 503 else (logging.ERROR, error)
        logger.log(level, "a request is refused with %d: %s", refusal.status, error, exc_info=traceback)
    body = refusal.as_openai() if recogniser is None else recogniser.error_body(refusal)
    await refusal.send(send, body)
