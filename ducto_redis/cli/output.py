"""Output of commands: tables for people, JSON for programs."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ducto_redis.display import format_credits

MAX_WIDTH = 100_000
"""Columns of the widest table."""

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, credits as decimal strings.")]


def example(*commands: str) -> str:
    """Return the epilog of a command's help: examples to type."""
    return "Example: " + "   ".join(commands)


def print_json(value: Any) -> None:
    """Print a value, with Decimals as strings and times in ISO 8601."""
    print_line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_line(text: str) -> None:
    """Print a line as it is, however wide the terminal."""
    sys.stdout.write(text + "\n")


def show(value: Any, text: str, as_json: bool) -> None:
    """Print a command's result: as JSON for programs, else as text for people."""
    if as_json:
        print_json(value)
    else:
        print_line(text)


def show_table(
    value: Any,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    as_json: bool,
    numbers: Sequence[str] = (),
    empty: str = "",
) -> None:
    """Print a command's result: as JSON for programs, else as a table for people; `empty` is printed without rows."""
    if as_json:
        print_json(value)
    elif empty and not rows:
        print_line(empty)
    else:
        print_table(columns, rows, numbers=numbers)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table.

    Args:
        columns: their titles.
        rows: their cells; Decimals are credits.
        numbers: titles of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    print_whole(Console(), table)


def print_whole(console: Console, table: Table) -> None:
    """Print a table with one line for each row, however wide the terminal: an id that is broken cannot be copied."""
    console.width = max(
        console.width, console.measure(table, options=console.options.update(max_width=MAX_WIDTH)).maximum
    )
    console.print(table)


def cell(value: object) -> Text:
    """Return a value as text, never as markup."""
    if isinstance(value, Decimal):
        return Text(format_credits(value))
    if isinstance(value, datetime):
        return Text(format_time(value))
    return Text(str(value))


def format_time(time: datetime) -> str:
    """Format a time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def format_seconds(seconds: float) -> str:
    """Format a length of time for people.

    >>> format_seconds(5025)
    '1h 23m'
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
