"""`ducto team`: accounts with members."""

from typing import Annotated

import typer

from ducto_redis.cli.arguments import Key, repeatable
from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, print_json, print_line, print_table, show
from ducto_redis.display import format_credits
from ducto_redis.manager.teams import Role
from ducto_redis.results import TeamMember

team_app = typer.Typer(help="Accounts whose credits several members spend.", no_args_is_help=True)

Team = Annotated[str, typer.Argument(help="The team's account.", show_default=False)]
User = Annotated[str, typer.Argument(help="The member.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(team_app, name="team")


@team_app.command(name="create", epilog=example('ducto team create acme --name "Acme Inc." --owner ana --credits 500'))
def _create(
    team: Team,
    name: Annotated[str | None, typer.Option(help="What people read; the id by default.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Its first member.", show_default=False)] = None,
    initial_credits: Annotated[
        str | None, typer.Option("--credits", help="Credits that it begins with.", show_default=False)
    ] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make an account a team."""
    with open_manager() as manager, repeatable(key) as own_key:
        created = manager.create_team(team, name, owner=owner, initial_credits=initial_credits, idempotency_key=own_key)
    show(created, f"{team} is a team ({created.name}): balance {format_credits(created.balance)}", as_json)


@team_app.command(name="show", epilog=example("ducto team show acme"))
def _show(team: Team, as_json: Json = False) -> None:
    """Show a team's pool, its members, and what each has spent."""
    with open_manager() as manager:
        shown = manager.get_team(team)
    if as_json:
        print_json(shown)
        return
    print_line(
        f"{shown.team} ({shown.name}): balance {format_credits(shown.balance)}, held {format_credits(shown.held)},"
        f" available {format_credits(shown.available)}"
    )
    members = (*shown.members, *shown.removed)
    if members:
        print_table(
            ("member", "role", "joined", "spent", "caps"),
            [(member.user, member.role, member.joined_at, member.spent, _caps(member)) for member in members],
            numbers=("spent",),
        )


@team_app.command(name="add", epilog=example("ducto team add acme bob --role admin --spend-cap 50"))
def _add(
    team: Team,
    user: User,
    role: Annotated[Role, typer.Option(help="What they are.")] = "member",
    spend_cap: Annotated[
        str | None, typer.Option(help="Credits that they may spend in a calendar month.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a member to a team."""
    with open_manager() as manager:
        member = manager.add_team_member(team, user, role, spend_cap)
    if as_json:
        print_json(member)
    else:
        caps = _caps(member)
        print_line(f"{user} is {member.role} of {team}" + (f", with spend caps: {caps}" if caps else ""))


@team_app.command(name="remove", epilog=example("ducto team remove acme bob"))
def _remove(team: Team, user: User, as_json: Json = False) -> None:
    """Remove a member from a team. Leases that they hold settle; nothing new of theirs is admitted."""
    with open_manager() as manager:
        removed = manager.remove_team_member(team, user)
    show(removed, f"{user} is no member of {team} any more", as_json)


@team_app.command(name="role", epilog=example("ducto team role acme bob admin"))
def _role(
    team: Team,
    user: User,
    role: Annotated[Role, typer.Argument(help="What they are from now on.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Give a member another role."""
    with open_manager() as manager:
        member = manager.set_team_role(team, user, role)
    show(member, f"{user} is {member.role} of {team}", as_json)


def _caps(member: TeamMember) -> str:
    return ", ".join(f"{format_credits(cap.limit)} per {cap.window}" for cap in member.caps)
