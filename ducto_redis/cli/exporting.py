"""Rows as a table with bars, as CSV or as JSON."""

import csv
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ducto_redis.cli.output import cell, print_json, print_whole

_BAR_WIDTH = 24
# What a spreadsheet takes for the beginning of a formula, the full-width forms of Chinese and Japanese keyboards too.
_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


class Format(StrEnum):
    """Formats of printed rows."""

    table = "table"
    csv = "csv"
    json = "json"


FormatOption: TypeAlias = Annotated[
    Format, typer.Option("--format", help="For people, for spreadsheets, or for programs.")
]


def print_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], output: Format, *, bar: str | None = None, json: Any = None
) -> None:
    """Print rows.

    Args:
        columns: their names.
        rows: their cells; Decimals are credits.
        bar: the column that is drawn as bars, in tables.
        json: what JSON shows in place of the rows by name.
    """
    match output:
        case Format.table:
            _print_table(columns, rows, bar)
        case Format.csv:
            print_csv(columns, rows)
        case Format.json:
            print_json([dict(zip(columns, row, strict=True)) for row in rows] if json is None else json)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as CSV, each cell as `csv_cell` writes it."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(value) for value in row] for row in rows)


def csv_cell(value: Any) -> str:
    """Format a value for CSV: credits exactly, times in ISO 8601, and no text that a spreadsheet would calculate.

    >>> csv_cell("=1+1"), csv_cell(Decimal("-0.000001"))
    ("'=1+1", '-0.000001')
    """
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_BEGINS_FORMULA) else text


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], bar: str | None) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        number = bool(rows) and all(isinstance(row[index], int | float | Decimal) for row in rows)
        table.add_column(column, justify="right" if number else "left")
    console = Console()
    at = columns.index(bar) if bar is not None else 0
    largest = max((row[at] for row in rows), default=0) if bar is not None else 0
    if bar is not None:
        table.add_column("")
    for row in rows:
        cells = [cell("-" if value is None else value) for value in row]
        table.add_row(*cells, *([_bar(row[at], largest, console)] if bar is not None else []))
    print_whole(console, table)


def _bar(value: Any, largest: Any, console: Console) -> Text:
    if largest <= 0 or value <= 0:
        return Text("")
    block = "█" if console.encoding.startswith("utf") else "#"
    return Text(block * max(1, round(_BAR_WIDTH * value / largest)), style="cyan")
