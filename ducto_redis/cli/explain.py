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
    """Say all that there is to say of a transaction.

    What was used, how it was priced, who paid, which lease and caps it belongs to, and what was refunded since.
    """
    with open_manager() as manager:
        explanation = manager.explain(transaction)
    show(explanation, str(explanation), as_json)


def print_why(account: str, *, as_json: bool) -> None:
    """Print how an account's balance came about. Exits with 1 where it does not add up."""
    with open_manager() as manager:
        explanation = manager.explain_balance(account)
    show(explanation, str(explanation), as_json)
    if not explanation.adds_up:
        raise typer.Exit(1)
