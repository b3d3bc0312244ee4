"""`ducto explain` and `ducto balance --why`."""

from typing import Annotated

import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, show


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="explain", epilog=example("ducto explain 3-1-1795461646172-0"))(_explain)


def _explain(
    transaction: Annotated[str, typer.Argument(help="A transaction id, as every command and result shows it.")],
    as_json: Json = False,
) -> None:
    """Explain a transaction: usage, price, sources, lease, spend caps, refunds and balance."""
    with open_manager() as manager:
        explanation = manager.explain(transaction)
    show(explanation, str(explanation), as_json)


def print_why(account: str, *, as_json: bool) -> None:
    """Print how an account's balance came about, and exit with 1 if it does not add up."""
    with open_manager() as manager:
        explanation = manager.explain_balance(account)
    show(explanation, str(explanation), as_json)
    if not explanation.adds_up:
        raise typer.Exit(1)
