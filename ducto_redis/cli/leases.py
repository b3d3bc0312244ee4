"""`ducto leases`: the holds of an account."""

from typing import Annotated

import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, format_seconds, show, show_table
from ducto_redis.display import format_credits

leases_app = typer.Typer(help="See and release what running work holds.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(leases_app, name="leases")


@leases_app.command(name="list", epilog=example("ducto leases list u1"))
def _list(
    account: Annotated[str, typer.Argument(help="Whose leases.")],
    as_json: Json = False,
) -> None:
    """List an account's open leases, oldest first."""
    with open_manager() as manager:
        leases = manager.list_leases(account)
    inside = any(it.parent for it in leases)
    show_table(
        leases,
        ("lease", "held", *(("inside",) if inside else ()), "operation", "owner", "age", "expires"),
        [
            (
                it.lease_id,
                it.amount,
                *((it.parent or "",) if inside else ()),
                it.operation_type,
                it.owner,
                format_seconds(it.age_seconds),
                it.expires_at,
            )
            for it in leases
        ],
        numbers=("held",),
        as_json=as_json,
        empty=f"{account} has no open leases",
    )


@leases_app.command(name="release", epilog=example("ducto leases release u1 3f1c9a"))
def _release(
    account: Annotated[str, typer.Argument(help="Whose lease.")],
    lease: Annotated[str, typer.Argument(help="The lease's id, as `ducto leases list` shows it.")],
    as_json: Json = False,
) -> None:
    """Close a lease without a charge.

    Only for work that is known to be dead: what it settles later is refused.
    """
    with open_manager() as manager:
        released = manager.release(account, lease)
    before = " (it was done before)" if released.replayed else ""
    text = (
        f"released {format_credits(released.amount)} credits{before}: {account} has"
        f" {format_credits(released.available)} available"
    )
    show(released, text, as_json)
