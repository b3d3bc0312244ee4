"""`metered`: a client of a provider becomes one that charges what it is used for."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

from ducto_redis.clients.asynchronous import async_client_class
from ducto_redis.clients.blocking import blocking_client_class
from ducto_redis.clients.metering import CREDIT_ERROR, ClientMetering
from ducto_redis.clients.payer import Account
from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.manager import AsyncCreditManager, CreditManager
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import CountTokens, Estimates
from ducto_redis.middleware.recognisers import DEFAULT_RECOGNISERS, Recogniser
from ducto_redis.middleware.settings import UnknownRoutes

Client = TypeVar("Client")


def metered(
    client: Client,
    manager: AsyncCreditManager | CreditManager,
    *,
    account: Account = None,
    recognisers: Sequence[Recogniser] = DEFAULT_RECOGNISERS,
    default_max_tokens: int = 4096,
    max_tokens_ceiling: int | None = None,
    count_tokens: CountTokens | None = None,
    ttl_seconds: float = 120,
    background_ttl_seconds: float = 3600,
    unknown_routes: UnknownRoutes = "pass",
) -> Client:
    """Return a copy of a client that charges credits for each of its calls.

    Before a call is sent, the most that it can cost is held; when its answer ends, what the provider reports is
    charged. It meters each HTTP request: one that the client tries again releases the hold of the attempt that failed.
    A stream that is closed early is charged what was delivered.

        client = metered(OpenAI(), manager, account="u1")

    A refused call raises what the client raises for the provider's own refusals, such as `openai.APIStatusError` with
    status 402; `credit_error` gives the error behind it.

    Args:
        client: an `openai` or `anthropic` client, asynchronous or not, or another of the same make that has
            `with_options(http_client=...)`; or an `httpx` client, for everything that takes one. It is left as it is;
            closing the copy closes it.
        manager: an AsyncCreditManager for asynchronous clients, a CreditManager for the others.
        account: who pays: an account id, a Payer, or a function of the HTTP request. `paid_by` goes before it.
        recognisers: the APIs that are metered.
        default_max_tokens: output tokens that are held for a request that sets no limit.
        max_tokens_ceiling: output tokens that no model here exceeds, so that more are never held.
        count_tokens: `count_tokens(model, text)`, a tokeniser. Without it a hold assumes a token per UTF-8 byte.
        ttl_seconds: how long a hold outlives a process that was killed.
        background_ttl_seconds: how long the hold stays of work that goes on after its answer, such as a response in the
            background, until a later call shows it finished.
        unknown_routes: what becomes of requests that may cost something, as they are no GET, and belong to no API that
            is metered, such as uploads and batches. They "pass" and are not charged, which the log says once for each
            path; or "refuse" them, with 404.

    Raises:
        ConfigError: where a setting is wrong, or the client is of another kind.
    """
    found: Any = client
    http_client = found if _http_of(found) is not None else getattr(found, "_client", None)
    http = _http_of(http_client)
    if http is None:
        raise ConfigError(f"metered takes an openai, anthropic or httpx client, not {type(client).__name__}")
    ttl_to_ms(ttl_seconds)
    ttl_to_ms(background_ttl_seconds)
    estimates = Estimates(default_max_tokens, max_tokens_ceiling, count_tokens)
    metering = ClientMetering(
        http, account, recognisers, estimates, ttl_seconds, background_ttl_seconds, unknown_routes
    )
    wrapped = _wrapped(http, http_client, metering, manager)
    copy: Client = wrapped if http_client is found else found.with_options(http_client=wrapped)
    return copy


def credit_error(error: BaseException) -> CreditError | BadRequestError | None:
    """Return why a metered client refused a call, given what the client raised; None where the provider itself failed.

    try:
        client.chat.completions.create(...)
    except openai.APIStatusError as error:
        if isinstance(credit_error(error), InsufficientCreditsError):
            ...
    """
    extensions = getattr(getattr(error, "response", None), "extensions", {})
    found: CreditError | BadRequestError | None = extensions.get(CREDIT_ERROR)
    return found


def _wrapped(
    http: ModuleType, http_client: Any, metering: ClientMetering, manager: AsyncCreditManager | CreditManager
) -> Any:
    inner = getattr(http_client, "metered_inner", http_client)
    if isinstance(inner, http.AsyncClient):
        if not isinstance(manager, AsyncCreditManager):
            raise ConfigError(f"an asynchronous client needs an AsyncCreditManager, not {type(manager).__name__}")
        return async_client_class(http)(inner, metering, manager)
    if not isinstance(manager, CreditManager):
        raise ConfigError(f"a client without an event loop needs a CreditManager, not {type(manager).__name__}")
    if inspect.iscoroutinefunction(metering.account):
        raise ConfigError("account must not be a coroutine function: this client has no event loop")
    return blocking_client_class(http)(inner, metering, manager)


def _http_of(client: object) -> ModuleType | None:
    """Return the package that an HTTP client comes from; None for one that is no HTTP client."""
    for http in _http_packages():
        if isinstance(client, (http.Client, http.AsyncClient)):
            return http
    return None


def _http_packages() -> Iterator[ModuleType]:
    # httpx2 is httpx under another name; clients of providers use either. Whoever has a client has loaded its package.
    for name in ("httpx2", "httpx"):
        if name in sys.modules:
            yield sys.modules[name]
