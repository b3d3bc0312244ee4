"""Arguments that several commands share: keys, times, actors and reasons."""

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from uuid import uuid4

import typer

from ducto_redis.errors import ConfigError, CreditError, StoreUnavailableError

Account: TypeAlias = Annotated[str, typer.Argument(help="The account: a user or a team.", show_default=False)]
Key: TypeAlias = Annotated[
    str | None, typer.Option(help="Idempotency key: the same key takes effect once; remembered for 35 days.")
]
Metadata: TypeAlias = Annotated[
    str | None, typer.Option(help="A JSON object that is journalled with the change.", show_default=False)
]
Actor: TypeAlias = Annotated[
    str | None, typer.Option(help="Who does it; the name that you are logged in with by default.", show_default=False)
]
Reason: TypeAlias = Annotated[str, typer.Option(help="Why. It stays in the ledger.", show_default=False)]
Member: TypeAlias = Annotated[str | None, typer.Option(help="A member of the team.", show_default=False)]
Model: TypeAlias = Annotated[str | None, typer.Option(help="A model.", show_default=False)]
TimeZone: TypeAlias = Annotated[
    str | None, typer.Option(help="An IANA name, such as Europe/Berlin.", show_default=False)
]


@contextmanager
def repeatable(key: str | None, *unknown: type[CreditError]) -> Iterator[str]:
    """Yield the idempotency key of a command; where the outcome is unknown, the error names it.

    Args:
        key: what the user gave, or None for one that is made here.
        unknown: errors that leave the outcome unknown, besides StoreUnavailableError.
    """
    own_key = f"cli-{uuid4().hex}" if key is None else key
    not_known: tuple[type[CreditError], ...] = (StoreUnavailableError, *unknown)
    try:
        yield own_key
    except not_known as error:
        again = f"the same command with --key {own_key} is safe: it takes effect once"
        raise type(error)(f"{error}. Whether it was done is not known; {again}") from error


def read_actor(actor: str | None) -> str:
    """Return the actor. Raises ConfigError where none is known."""
    try:
        return getpass.getuser() if actor is None else actor
    except (OSError, KeyError):
        raise ConfigError("who are you? Say so with --actor") from None


def read_metadata(text: str | None) -> dict[str, Any] | None:
    """Return the metadata in `--metadata`. Raises ConfigError."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"--metadata is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError('--metadata is a JSON object, such as \'{"invoice": "4711"}\'')
    return value


def read_time(text: str, option: str) -> datetime:
    """Return a time in ISO 8601, in UTC where it names no offset. Raises ConfigError."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{option} is a time such as 2030-01-31 or 2030-01-31T12:00:00+01:00, not {text!r:.60}"
        ) from None
    return time if time.utcoffset() is not None else time.replace(tzinfo=UTC)
