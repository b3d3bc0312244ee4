"""`ducto analytics`: what was spent, by whom and for what."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, TypeAlias
from zoneinfo import ZoneInfo

import typer

from ducto_redis.analytics_results import Spend, UsageGroup
from ducto_redis.cli.environment import has_redis_url, namespace, open_ledger, open_manager, open_store
from ducto_redis.cli.exporting import Format, FormatOption, print_rows
from ducto_redis.cli.output import example, print_line
from ducto_redis.cli.times import parse_time
from ducto_redis.errors import PricingNotLoadedError, StoreError
from ducto_redis.pricing import PricingEngine
from ducto_redis.run_sync import run_sync
from ducto_redis.windows import check_time_zone

if TYPE_CHECKING:
    from ducto_redis.ledger.analytics import Analytics

Since: TypeAlias = Annotated[
    str | None, typer.Option(help="From then on: 12h, 7d, 4w ago, or a date or time.", show_default=False)
]
Until: TypeAlias = Annotated[str | None, typer.Option(help="Until then; the same forms.", show_default=False)]
TimeZone: TypeAlias = Annotated[str, typer.Option(help="Where days begin, and --since and --until are read.")]
OnlyAccount: TypeAlias = Annotated[str | None, typer.Option("--account", help="Only this one.", show_default=False)]

_SPEND = ("charges", "charged", "allowance", "refunded", "net", "shortfall")

analytics_app = typer.Typer(help="What was spent, by whom and for what. From the ledger.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(analytics_app, name="analytics")


@analytics_app.command(name="spend", epilog=example("ducto analytics spend --since 7d"))
def _spend(
    since: Since = None, until: Until = None, time_zone: TimeZone = "UTC", output: FormatOption = Format.table
) -> None:
    """Show each account's spending."""
    with _analytics() as analytics:
        rows = analytics.spend_by_user(*_times(since, until, time_zone))
    _print_spend("account", [(row.account, row) for row in rows], output)


@analytics_app.command(name="top", epilog=example("ducto analytics top --limit 5 --since 24h"))
def _top(
    limit: Annotated[int, typer.Option(help="How many, up to 1000.")] = 10,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """List the accounts that were charged most."""
    with _analytics() as analytics:
        rows = analytics.top_users(limit, *_times(since, until, time_zone))
    _print_spend("account", [(row.account, row) for row in rows], output)


@analytics_app.command(name="models", epilog=example("ducto analytics models --account u1"))
def _models(
    account: OnlyAccount = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Show the spending on each model; the nameless line is for charges of no model, or of several at once."""
    with _analytics() as analytics:
        rows = analytics.spend_by_model(*_times(since, until, time_zone), account=account)
    _print_spend("model", [(row.model, row) for row in rows], output)


@analytics_app.command(name="members", epilog=example("ducto analytics members acme --since 2026-01-01"))
def _members(
    team: Annotated[str, typer.Argument(help="The team.", show_default=False)],
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Show each member's spending of a team; the nameless line is for charges without a member."""
    with _analytics() as analytics:
        rows = analytics.spend_by_member(team, *_times(since, until, time_zone))
        if not any(row.member for row in rows):
            _check_team(analytics, team)
    _print_spend("member", [(row.member, row) for row in rows], output)


@analytics_app.command(name="daily", epilog=example("ducto analytics daily --time-zone Europe/Berlin --since 30d"))
def _daily(
    account: OnlyAccount = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Show the spending of each day. Days without any are left out."""
    with _analytics() as analytics:
        rows = analytics.daily_spend(*_times(since, until, time_zone), time_zone=time_zone, account=account)
    _print_spend("day", [(row.day, row) for row in rows], output)


@analytics_app.command(name="stats", epilog=example("ducto analytics stats --since 30d"))
def _stats(
    account: OnlyAccount = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Show all movements, and the extremes among them."""
    with _analytics() as analytics:
        stats = analytics.aggregate_stats(*_times(since, until, time_zone), account=account)
    names = (*_SPEND, "accounts", "average_day", "top_account", "top_model", "adjusted", "expired", "lost")
    rows = [(name.replace("_", " "), getattr(stats, name)) for name in names]
    rows[6:6] = [(f"added: {name or '-'}", value) for name, value in stats.added.items()]
    print_rows(("what", "value"), rows, output, json=stats)


@analytics_app.command(name="usage", epilog=example("ducto analytics usage input_tokens --by day --since 7d"))
def _usage(
    measure: Annotated[
        str, typer.Argument(help="input_tokens, output_tokens, tool_calls, ..., or a measure of the document's own.")
    ],
    by: Annotated[UsageGroup, typer.Option(help="What to group by.")] = "model",
    account: OnlyAccount = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Show the consumption of a measure."""
    with _analytics() as analytics:
        rows = analytics.usage(
            measure,
            by,
            *_times(since, until, time_zone),
            account=account,
            time_zone=time_zone,
            declared=_declared_measures(),
        )
    print_rows((by, measure), [(row.of, row.quantity) for row in rows], output, bar=measure)


@analytics_app.command(name="transactions", epilog=example("ducto analytics transactions u1 --operation deduct"))
def _transactions(
    account: Annotated[str, typer.Argument(help="The account: a user or a team.", show_default=False)],
    operation: Annotated[
        list[str] | None, typer.Option(help="Only these: deduct, settle, ...; again for more.", show_default=False)
    ] = None,
    credits_type: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only credits of this type.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many, up to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Of the page before, to go on.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """List an account's transactions, newest first."""
    start, end = _times(since, until, time_zone)
    with _analytics() as analytics:
        page = analytics.list_user_transactions(
            account, operations=operation, types=credits_type, start=start, end=end, limit=limit, cursor=cursor
        )
    names = ("at", "operation", "amount", "balance_change", "balance_after", "model", "member", "transaction_id")
    columns = (*names[:5], "charged", "allowance", "shortfall", "type", "refund_of", *names[5:])
    shown = names if output is Format.table else columns
    rows = [tuple(getattr(row, name) for name in shown) for row in page.transactions]
    print_rows(shown, rows, output, json=page)
    if page.cursor is not None and output is not Format.json:
        typer.echo(f"more with --cursor {page.cursor}", err=True)


@analytics_app.command(name="anomalies", epilog=example("ducto analytics anomalies --since 7d"))
def _anomalies(
    account: OnlyAccount = None,
    since: Since = None,
    until: Until = None,
    history_days: Annotated[int, typer.Option(help="How far back what is usual is read.")] = 28,
    threshold: Annotated[float, typer.Option(help="How many spreads above what is usual.")] = 6.0,
    at_least: Annotated[str, typer.Option(help="Credits; hours below are not told.")] = "1",
    time_zone: TimeZone = "UTC",
    output: FormatOption = Format.table,
) -> None:
    """Hours of the last day, or of a time, in which an account was charged far more than is usual for it."""
    start, end = _times(since, until, time_zone)
    with _analytics() as analytics:
        found = analytics.anomalies(
            start, end, account=account, history_days=history_days, threshold=threshold, at_least=at_least
        )
    columns = ("account", "hour", "charged", "usual", "spread", "score")
    rows = [tuple(getattr(row, name) for name in columns) for row in found]
    if not rows and output is Format.table:
        print_line("nothing unusual")
    else:
        print_rows(columns, rows, output)


@contextmanager
def _analytics() -> "Iterator[Analytics]":
    if has_redis_url():
        with open_store() as store:
            local = store.local
        if local:
            with open_manager() as manager:  # the worker of such a ledger runs in the process that uses it
                manager.wait_for_ledger()
    with open_ledger() as ledger:
        yield ledger.analytics(namespace())


def _check_team(analytics: "Analytics", team: str) -> None:
    """Refuse what is no team. The engine knows; the ledger, which is a little behind, is asked where there is none."""
    if has_redis_url():
        with suppress(StoreError), open_manager() as manager:
            manager.get_team(team)
            return
    analytics.check_team(team)


def _declared_measures() -> tuple[str, ...]:
    """Return the measures of the active document, where an engine can be asked."""
    if not has_redis_url():
        return ()
    try:
        with open_store() as store:
            return PricingEngine.from_json(run_sync(store.read_pricing()).asked.document).document.measures
    except (PricingNotLoadedError, StoreError):
        return ()


def _times(since: str | None, until: str | None, time_zone: str) -> tuple[datetime | None, datetime | None]:
    check_time_zone(time_zone)
    zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    now = datetime.now(UTC)
    return _time(since, "--since", now, zone), _time(until, "--until", now, zone)


def _time(text: str | None, option: str, now: datetime, zone: tzinfo) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return parse_time(text, option, now)
    return time.replace(tzinfo=zone) if time.tzinfo is None else time


def _print_spend(what: str, rows: Sequence[tuple[object, Spend]], output: Format) -> None:
    cells = [(name, *(getattr(spend, part) for part in _SPEND)) for name, spend in rows]
    print_rows((what, *_SPEND), cells, output, bar="charged")
