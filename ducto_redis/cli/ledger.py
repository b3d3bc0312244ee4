"""`ducto ledger`: the SQL ledger."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ducto_redis.cli.environment import has_redis_url, namespace, open_ledger, open_manager, open_store
from ducto_redis.cli.output import Json, example, print_json, print_line, show
from ducto_redis.display import counted, format_credits
from ducto_redis.money import from_micro
from ducto_redis.store import JournalledStore

if TYPE_CHECKING:
    from ducto_redis.ledger import VerifyReport

_FAILURES_SHOWN = 50

ledger_app = typer.Typer(help="Create the SQL ledger, and prove it.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(ledger_app, name="ledger")


@ledger_app.command(name="migrate", epilog=example("ducto ledger migrate"))
def _migrate(as_json: Json = False) -> None:
    """Create the ledger's tables, or bring them to the newest schema.

    Doing it again is safe.
    """
    with open_ledger() as ledger:
        ledger.migrate()
        name = ledger.name
    show({"ledger": name, "migrated": True}, f"{name} has the newest schema", as_json)


@ledger_app.command(name="verify", epilog=example("ducto ledger verify"))
def _verify(
    every_namespace: Annotated[
        bool, typer.Option("--all", help="All namespaces of the database, not only DUCTO_NAMESPACE.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Recompute every balance from its entries.

    Exits with 1 where something does not add up. Where DUCTO_REDIS_URL is set, every account is compared with the
    engine too.
    """
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger())
        store = stack.enter_context(open_store()) if has_redis_url() else None
        if store is not None and store.local:
            with open_manager() as manager:  # the worker of such a ledger runs in the process that uses it
                manager.wait_for_ledger()
        lag = None if store is None else _lag(store)
        report = ledger.verify(None if every_namespace else namespace(), store=store)
    if as_json:
        print_json(_as_json(report, lag))
    else:
        _print(report, lag)
    if not report.ok:
        raise typer.Exit(1)


def _lag(store: JournalledStore) -> int:
    from ducto_redis.journal.group import LEDGER_GROUP, Group

    return sum(Group(store, LEDGER_GROUP).lag().values())


def _print(report: "VerifyReport", lag: int | None) -> None:
    print_line(
        f"{counted(report.accounts, 'account')}, {counted(report.entries, 'entry', 'entries')}; balances"
        f" {format_credits(from_micro(report.balance))}, held {format_credits(from_micro(report.held))}"
    )
    if lag is not None:
        print_line(
            f"compared with the engine: {counted(report.compared, 'account')}, {report.behind} that have changed since"
        )
    if lag:
        entries = counted(lag, "journal entry", "journal entries")
        print_line(f"{entries} not in the ledger yet; `ducto worker` writes them")
    for failure in report.failures[:_FAILURES_SHOWN]:
        for reason in failure.reasons:
            typer.echo(f"{failure.namespace}: account {failure.account!r}: {reason}", err=True)
    if report.failed > _FAILURES_SHOWN:
        typer.echo(
            f"... and {counted(report.failed - _FAILURES_SHOWN, 'account')} more (--json lists up to 1000)", err=True
        )
    if report.unreadable:
        typer.echo(f"{counted(report.unreadable, 'entry', 'entries')} could not be read, stored raw", err=True)
    for reason in report.rollups:
        typer.echo(f"roll-ups: {reason}", err=True)
    if report.ok:
        print_line("everything adds up")
    else:
        typer.echo(f"ducto: {_problem(report)}", err=True)


def _problem(report: "VerifyReport") -> str:
    if report.failed:
        return f"{counted(report.failed, 'account')} of {report.accounts} not adding up"
    if report.rollups:
        return "every account adds up, but roll-ups of all accounts together do not"
    return "every account adds up, but there are entries that could not be read"


def _as_json(report: "VerifyReport", lag: int | None) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "accounts": report.accounts,
        "entries": report.entries,
        "balance": from_micro(report.balance),
        "held": from_micro(report.held),
        "unreadable": report.unreadable,
        "failed": report.failed,
        "failures": report.failures,
        "rollups": report.rollups,
        "engine": None if lag is None else {"compared": report.compared, "behind": report.behind, "lag": lag},
    }
