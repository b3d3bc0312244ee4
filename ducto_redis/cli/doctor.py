"""`ducto doctor`."""

from collections.abc import Iterator

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ducto_redis.cli.environment import find_ledger, open_store
from ducto_redis.cli.output import Json, example, print_json
from ducto_redis.doctor.findings import Finding
from ducto_redis.errors import CreditError
from ducto_redis.store.script_store import DEFAULT_JOURNAL_LIMIT

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="doctor", epilog=example("ducto doctor", "ducto doctor --json"))(_doctor)


def _doctor(as_json: Json = False) -> None:
    """Say what is wrong with server, namespace and ledger, and what to do.

    It changes nothing, and exits with 1 where it finds an error.
    """
    findings = list(_examine())
    failed = any(finding.status == "error" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


def _examine() -> Iterator[Finding]:
    from ducto_redis.doctor.ledger import examine_ledger
    from ducto_redis.doctor.namespace import examine_namespace
    from ducto_redis.doctor.server import examine_server

    ledger = find_ledger()
    with open_store() as store:
        try:
            store.redis().ping()
            yield Finding("connection", "ok", "the server answers")
        except RedisError as error:
            yield Finding("connection", "error", str(error), "check DUCTO_REDIS_URL, and that the server runs")
            yield from examine_ledger(ledger, None)
            return
        for examination in (
            examine_server(store),
            examine_namespace(store, DEFAULT_JOURNAL_LIMIT),
            examine_ledger(ledger, store),
        ):
            try:
                yield from examination
            except (RedisError, CreditError) as error:
                yield Finding("connection", "error", str(error), "look at the server's log, and its user's permissions")


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        detail = Text(finding.detail)
        if finding.advice:
            detail.append(f"\n-> {finding.advice}", style="italic")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(finding.check), detail)
    Console().print(table)
