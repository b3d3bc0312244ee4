"""`ducto plan`: the plans of accounts."""

from typing import Annotated

import typer

from ducto_redis.cli.arguments import Account, TimeZone
from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, format_time, print_json, print_line, print_table, show
from ducto_redis.pricing.writing import written

plan_app = typer.Typer(help="Assign plans of the pricing document.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(plan_app, name="plan")


@plan_app.command(name="set", epilog=example("ducto plan set u1 pro --time-zone Europe/Berlin"))
def _set(
    account: Account,
    plan: Annotated[str, typer.Argument(help="The plan's id in the pricing document.", show_default=False)],
    time_zone: TimeZone = None,
    as_json: Json = False,
) -> None:
    """Assign a plan to an account. The balance stays as it is."""
    with open_manager() as manager:
        changed = manager.set_user_plan(account, plan, time_zone=time_zone)
    show(
        changed,
        f"{account} was on plan {plan} already" if changed.replayed else f"{account} is on plan {plan}",
        as_json,
    )


@plan_app.command(name="show", epilog=example("ducto plan show u1"))
def _show(account: Account, as_json: Json = False) -> None:
    """Show an account's plan, and what is left of its allowance."""
    with open_manager() as manager:
        plan = manager.get_user_plan(account)
        allowance = manager.check_allowance(account)
    if as_json:
        print_json({"plan": plan, "allowance": allowance})
        return
    if plan is None:
        print_line(f"{account} has no plan")
        return
    print_line(
        f"{account} is on plan {plan.plan} ({plan.name}) since {format_time(plan.assigned_at)}, {plan.time_zone}"
    )
    if allowance.period_start is not None and allowance.period_end is not None:
        numbers = ("limit", "rolled over", "used", "held", "remaining")
        print_table(
            ("period", "until", *numbers),
            [
                (
                    allowance.period_start,
                    allowance.period_end,
                    allowance.limit,
                    allowance.rolled_over,
                    allowance.used,
                    allowance.held,
                    allowance.remaining,
                )
            ],
            numbers=numbers,
        )
    for feature, value in plan.features.items():
        print_line(f"{feature}: {written(value)}")


@plan_app.command(name="remove", epilog=example("ducto plan remove u1"))
def _remove(account: Account, as_json: Json = False) -> None:
    """Take an account's plan away, and its allowance with it. The balance stays as it is."""
    with open_manager() as manager:
        changed = manager.unset_user_plan(account)
    show(changed, f"{account} had no plan" if changed.replayed else f"{account} has no plan any more", as_json)
