"""The payer of a request."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TypeAlias

from starlette.types import Scope

from ducto_redis.engine.ids import check_account
from ducto_redis.errors import ConfigError, InvalidIdError, NoAccountError
from ducto_redis.manager.arguments import check_member
from ducto_redis.payer import Payer

Account: TypeAlias = Callable[[Scope], str | Payer | Awaitable[str | Payer | None] | None]
"""`account(scope)` says who pays: an account id, a Payer, or None, which is answered with 401."""

_REMEMBERED = 1024


def payer_of(found: object) -> Payer:
    """Return who pays, given an account id, a Payer or None.

    Raises:
        NoAccountError: for None, and for an id that no account can have.
        ConfigError: for anything else.
    """
    if found is None:
        raise NoAccountError
    payer = Payer(found) if isinstance(found, str) else found
    if not isinstance(payer, Payer):
        raise ConfigError(f"account must return an id, a Payer or None, not {type(payer).__name__}")
    try:
        check_account(payer.account)
        check_member(payer.member)
    except InvalidIdError as error:
        # What clients send often names account and member: one that can't exist is theirs to correct.
        raise NoAccountError from error
    return payer


@lru_cache(_REMEMBERED)
def payer_of_account(account: str) -> Payer:
    """Return the payer of an account id, which is checked once for many requests. Raises as `payer_of` does."""
    return payer_of(account)
