"""`ducto cap`: spend caps."""

from collections.abc import Sequence
from typing import Annotated

import typer

from ducto_redis.cli.arguments import Account, Member, Model, TimeZone, read_time
from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, show, show_table
from ducto_redis.manager.caps import CapAction, Window
from ducto_redis.results import CapStatus

cap_app = typer.Typer(help="Limit what may be spent in a window.", no_args_is_help=True)

Cap = Annotated[str, typer.Argument(help="The cap's id, as `ducto cap list` shows it.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(cap_app, name="cap")


@cap_app.command(name="set", epilog=example("ducto cap set u1 100 day --time-zone Europe/Berlin"))
def _set(
    account: Account,
    limit: Annotated[str, typer.Argument(help="Credits, zero or more.", show_default=False)],
    window: Annotated[Window, typer.Argument(help="How long it counts.", show_default=False)],
    action: Annotated[CapAction, typer.Option(help="What passing the limit does.")] = "deny",
    rolling: Annotated[
        bool, typer.Option("--rolling", help="The window ends now, instead of following the calendar.")
    ] = False,
    member: Member = None,
    model: Model = None,
    time_zone: TimeZone = None,
    as_json: Json = False,
) -> None:
    """Limit what an account, one of its members, or one model for it may spend.

    The same cap again gets the new limit and action, and keeps what it has counted.
    """
    with open_manager() as manager:
        cap = manager.set_spend_cap(
            account,
            limit,
            window,
            action=action,
            rolling=rolling,
            member=member,
            model=model,
            time_zone=time_zone,
        )
    _show(cap, [cap], as_json)


@cap_app.command(name="list", epilog=example("ducto cap list u1"))
def _list(account: Account, member: Member = None, model: Model = None, as_json: Json = False) -> None:
    """List an account's spend caps, own and its plan's, and what each has counted."""
    with open_manager() as manager:
        caps = manager.check_spend_cap(account, member=member, model=model)
    _show(caps, caps, as_json, empty=f"{account} has no spend caps")


@cap_app.command(name="remove", epilog=example("ducto cap remove u1 4"))
def _remove(account: Account, cap: Cap, member: Member = None, model: Model = None, as_json: Json = False) -> None:
    """Remove a spend cap that was set for the account."""
    with open_manager() as manager:
        removed = manager.remove_spend_cap(account, cap, member=member, model=model)
    show(removed, f"removed cap {cap} of {account}", as_json)


@cap_app.command(name="raise", epilog=example("ducto cap raise u1 4 500 --until 2030-01-31T18:00+01:00"))
def _raise(
    account: Account,
    cap: Cap,
    limit: Annotated[str, typer.Argument(help="Credits that may be spent until then.", show_default=False)],
    until: Annotated[str, typer.Option(help="When its own limit holds again: 2030-01-31, or with time and offset.")],
    member: Member = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Give a spend cap another limit until a time."""
    time = read_time(until, "--until")
    with open_manager() as manager:
        raised = manager.raise_spend_cap(account, cap, limit, time, member=member, model=model)
    _show(raised, [raised], as_json)


@cap_app.command(name="clear", epilog=example("ducto cap clear u1 4"))
def _clear(account: Account, cap: Cap, member: Member = None, model: Model = None, as_json: Json = False) -> None:
    """Forget what was spent in a cap's window so far. What leases hold still counts."""
    with open_manager() as manager:
        cleared = manager.clear_spend_cap(account, cap, member=member, model=model)
    _show(cleared, [cleared], as_json)


def _show(value: object, caps: Sequence[CapStatus], as_json: bool, *, empty: str = "") -> None:
    show_table(
        value,
        ("cap", "scope", "window", "action", "limit", "used", "held", "remaining", "ends", "raised until"),
        [
            (
                cap.cap_id,
                cap.scope,
                f"rolling {cap.window}" if cap.rolling else cap.window,
                cap.action,
                cap.limit,
                cap.used,
                cap.held,
                cap.remaining,
                cap.window_end or "",
                cap.raised_until or "",
            )
            for cap in caps
        ],
        numbers=("limit", "used", "held", "remaining"),
        as_json=as_json,
        empty=empty,
    )
