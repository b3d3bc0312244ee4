"""`ducto doctor`."""

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ducto_redis.cli.environment import find_ledger, open_store
from ducto_redis.cli.output import Json, example, print_json
from ducto_redis.doctor.findings import Finding
from ducto_redis.engine.operations import DEFAULT_JOURNAL_LIMIT

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="doctor", epilog=example("ducto doctor", "ducto doctor --json"))(_doctor)


def _doctor(as_json: Json = False) -> None:
    """Find problems of server, namespace and ledger, with advice.

    It changes nothing, and exits with 1 if it finds an error.
    """
    from ducto_redis.doctor.examination import examine

    ledger = find_ledger()
    with open_store() as store:
        findings = list(examine(store, ledger, DEFAULT_JOURNAL_LIMIT))
    failed = any(finding.status == "error" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


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
