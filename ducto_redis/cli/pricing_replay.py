"""`ducto pricing replay`: what a document would have charged for what was really used."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.exporting import print_csv
from ducto_redis.cli.output import Json, format_time, print_json, print_line, print_table
from ducto_redis.cli.pricing_documents import read_documents
from ducto_redis.cli.times import parse_time
from ducto_redis.display import counted, format_credits
from ducto_redis.errors import ConfigError
from ducto_redis.pricing.replay import PricingReplay, ReplayRow

_COLUMNS = ("charges", "cost", "charged", "from_allowance", "replayed", "difference", "unpriced", "unpriced_cost")


def replay(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file, or a published version's number.", show_default=False)
    ],
    since: Annotated[str, typer.Option(help="From when on: so long ago, as in 12h, 7d or 4w, or a date.")] = "7d",
    until: Annotated[
        str | None, typer.Option(help="Up to when, as for --since; the end of the ledger by default.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many models and accounts the tables show.")] = 20,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all models and accounts as CSV.")] = False,
) -> None:
    """Say what a document would have charged for the ledger's real usage, beside what was charged.

    By model and by account, the largest difference first. Nothing is published, and nothing is charged.
    """
    if as_json and as_csv:
        raise ConfigError("give --json or --csv, not both")
    now = datetime.now(UTC)
    start = parse_time(since, "--since", now)
    end = None if until is None else parse_time(until, "--until", now)
    (named,) = read_documents(file)
    with open_manager() as manager:
        result = manager.replay_pricing(named.document, start, end)
    if as_json:
        print_json({"document": named.name, **_as_dict(result)})
    elif as_csv:
        _print_csv(result)
    else:
        _print(named.name, result, top)


def _as_dict(result: PricingReplay) -> dict[str, object]:
    return {name: getattr(result, name) for name in result.__struct_fields__}


def _print(name: str, result: PricingReplay, top: int) -> None:
    total = result.total
    print_line(
        f"{name}, replayed over {counted(total.charges, 'charge')} of usage from {format_time(result.start)} to"
        f" {format_time(result.end)}"
    )
    for line in _summary(total):
        print_line(line)
    for title, rows in (("model", result.by_model), ("account", result.by_account)):
        if rows:
            print_line("")
            _print_rows(title, rows, top)
    notes = list(_notes(result))
    if notes:
        print_line("")
    for note in notes:
        print_line(note)


def _summary(total: ReplayRow) -> Iterator[str]:
    charged = f"{format_credits(total.charged)} charged"
    if total.from_allowance:
        charged += f", {format_credits(total.from_allowance)} of them from allowances"
    if total.cost != total.charged:
        charged += f", {format_credits(total.cost - total.charged)} could not be charged"
    yield f"  cost then      {format_credits(total.cost)} credits ({charged})"
    comparable = total.cost - total.unpriced_cost
    yield f"  would cost     {format_credits(total.replayed)} credits"
    percent = f" ({_signed(total.difference / comparable * 100)} %)" if comparable else ""
    yield f"  difference     {_plus(total)}{percent}"


def _plus(row: ReplayRow) -> str:
    return ("+" if row.difference > 0 else "") + format_credits(row.difference)


def _signed(percent: object) -> str:
    return f"{percent:+.2f}"


def _print_rows(title: str, rows: Sequence[ReplayRow], top: int) -> None:
    numbers = ("charges", "cost then", "would cost", "difference", "%", "unpriced")
    print_table(
        (title, *numbers),
        [
            (
                _name(row, title),
                row.charges,
                row.cost,
                row.replayed,
                _plus(row),
                _signed(row.difference / (row.cost - row.unpriced_cost) * 100) if row.cost != row.unpriced_cost else "",
                row.unpriced or "",
            )
            for row in rows[:top]
        ],
        numbers=numbers,
    )
    if len(rows) > top:
        print_line(f"... and {len(rows) - top} more; --top, --csv and --json show them")


def _name(row: ReplayRow, title: str) -> str:
    if row.others:
        return f"(all other {title}s)"
    return "(no model)" if row.name is None else row.name


def _notes(result: PricingReplay) -> Iterator[str]:
    for usage in result.unpriced:
        yield f"no price: {counted(usage.charges, 'charge')}, {format_credits(usage.cost)} credits then: {usage.reason}"
    for plan in result.missing_plans:
        charges = counted(plan.charges, "charge")
        yield f"no plan {plan.plan!r}: {charges} of accounts that had it, replayed at the document's own rates"
    if result.by_amount:
        yield (
            f"not replayed: {counted(result.by_amount, 'charge')} of {format_credits(result.by_amount_charged)} credits"
            " that the application named itself"
        )
    if result.unreadable:
        yield f"not replayed: {counted(result.unreadable, 'entry', 'entries')} whose usage cannot be read"
    if result.total.charges:
        yield "each charge is rounded to six places, as it would have been; refunds are not counted"


def _print_csv(result: PricingReplay) -> None:
    groups = (("total", (result.total,)), ("model", result.by_model), ("account", result.by_account))
    print_csv(
        ("group", "name", *_COLUMNS),
        (
            (group, "" if group == "total" else _name(row, group), *(getattr(row, column) for column in _COLUMNS))
            for group, rows in groups
            for row in rows
        ),
    )
