"""`ducto credits add` and `ducto balance`."""

import json
from typing import Annotated, Any
from uuid import uuid4

import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, print_json, print_line, print_table
from ducto_redis.display import format_credits
from ducto_redis.errors import ConfigError, LedgerError, StoreUnavailableError
from ducto_redis.money import to_micro

credits_app = typer.Typer(help="Give accounts credits.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(credits_app, name="credits")
    app.command(name="balance", epilog=example("ducto balance u1"))(_balance)


@credits_app.callback()
def _credits() -> None:
    pass


@credits_app.command(name="add", epilog=example("ducto credits add u1 100 --type purchase --key invoice-4711"))
def _add(
    account: Annotated[str, typer.Argument(help="Who gets them.")],
    amount: Annotated[str, typer.Argument(help="Credits, above zero, with at most six places.")],
    kind: Annotated[str, typer.Option("--type", help="What they are: purchase, bonus, adjustment, ...")] = "purchase",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key adds them once; remembered for 35 days.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object that is journalled with the change.")] = None,
    as_json: Json = False,
) -> None:
    """Add credits to an account's balance."""
    details = _metadata(metadata)
    to_micro(amount)  # refused before a namespace is created for it
    own_key = key or f"cli-{uuid4().hex}"
    with open_manager(create=True) as manager:
        try:
            added = manager.add_credits(account, amount, type=kind, idempotency_key=own_key, metadata=details)
        except (StoreUnavailableError, LedgerError) as error:
            again = f"the same command with --key {own_key} is safe: it adds them once"
            raise type(error)(f"{error}. Whether the credits were added is not known; {again}") from error
    if as_json:
        print_json(added)
        return
    before = " (it was done before; nothing was added now)" if added.replayed else ""
    print_line(
        f"added {format_credits(added.amount)} credits to {account}{before}: balance"
        f" {format_credits(added.balance_after)}, available {format_credits(added.available)}"
    )
    where = "in the engine and in the ledger" if added.durability == "ledger" else "in the engine"
    print_line(f"transaction {added.transaction_id}, {where}")


def _balance(
    account: Annotated[str, typer.Argument(help="Whose balance.")],
    as_json: Json = False,
) -> None:
    """Show what an account has, what is held of it, and what is available."""
    with open_manager() as manager:
        balance = manager.get_balance(account)
    if as_json:
        print_json(balance)
        return
    numbers = ("balance", "held", "available", "changes")
    print_table(
        ("account", *numbers),
        [(balance.account, balance.balance, balance.held, balance.available, balance.seq)],
        numbers=numbers,
    )


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"--metadata is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError('--metadata is a JSON object, such as \'{"invoice": "4711"}\'')
    return value
