"""The report of a run: one table for people, one JSON for all else."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from ducto_redis.benchmark.harness import Figure, Outcome, Target, Unit
from ducto_redis.benchmark.machine import machine, server, versions
from ducto_redis.benchmark.setting import Setting

HEADINGS = ("work", "contender", "measured", "limit", "measured", "figure", "lowest", "highest", "target", "")
TEXTS = ("work", "contender", "limit", "")
"""Headings of columns that are not numbers."""


class Row(Struct, frozen=True):
    """A figure as it is shown. What it does not have is empty."""

    family: str
    work: str
    contender: str
    measured: str
    limit: str
    limit_measured: str
    figure: str
    lowest: str
    highest: str
    target: str
    verdict: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the cells under HEADINGS."""
        return (
            self.work,
            self.contender,
            self.measured,
            self.limit,
            self.limit_measured,
            self.figure,
            self.lowest,
            self.highest,
            self.target,
            self.verdict,
        )


def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Return a row for every figure: medians, and the extremes over the rounds."""
    for outcome in outcomes:
        for figure in outcome.figures:
            values = outcome.values(figure)
            met = outcome.is_met(figure)
            yield Row(
                family=outcome.family,
                work=outcome.work,
                contender=figure.contender,
                measured=shown(outcome.typical(figure.contender), outcome.unit),
                limit=figure.limit or "",
                limit_measured=shown(outcome.typical(figure.limit), outcome.unit) if figure.limit else "",
                figure=shown_figure(median(values), figure, outcome.unit),
                lowest=shown_figure(min(values), figure, outcome.unit),
                highest=shown_figure(max(values), figure, outcome.unit),
                target=shown_target(figure.target, figure, outcome.unit) if figure.target else "",
                verdict="" if met is None else "met" if met else "not met",
            )


def table(outcomes: Sequence[Outcome]) -> None:
    """Print the figures."""
    lines, work = [], ""
    for row in rows(outcomes):
        lines.append(row.cells if row.work != work else ("", *row.cells[1:]))
        work = row.work
    try:
        _rich_table(lines)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        _plain_table(lines)


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Return how many targets are met."""
    met = [met for outcome in outcomes for figure in outcome.figures if (met := outcome.is_met(figure)) is not None]
    return f"{sum(met)} of {len(met)} targets met" if met else ""


def document(
    outcomes: Sequence[Outcome], setting: Setting, *, command: str, rounds: int, seconds: float
) -> dict[str, Any]:
    """Return the whole run as JSON values: its place, its machine, every figure, every sample."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": round(seconds, 1),
        "rounds": rounds,
        "scale": setting.scale,
        "seed": setting.seed,
        "machine": machine(),
        "versions": versions(),
        "server": server(setting),
        "comparisons": [
            {
                "family": outcome.family,
                "work": outcome.work,
                "unit": outcome.unit,
                "figures": [_figure(outcome, figure) for figure in outcome.figures],
                "samples": outcome.samples,
            }
            for outcome in outcomes
        ],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shown(value: float, unit: Unit) -> str:
    """Format a sample with its unit."""
    if unit == "µs":
        return f"{value:,.2f} µs"
    return f"{value:,.0f} {unit}"


def shown_figure(value: float, figure: Figure, unit: Unit) -> str:
    """Format a figure: a ratio, or a number with its unit."""
    return f"{value:.2f}" if figure.is_ratio else shown(value, unit)


def shown_target(target: Target, figure: Figure, unit: Unit) -> str:
    """Format a target in the figure's unit."""
    least, most = (
        None if bound is None else shown_figure(bound, figure, unit) for bound in (target.at_least, target.at_most)
    )
    if least and most:
        return f"{least} to {most}"
    return f"≥ {least}" if least else f"≤ {most}"


def _figure(outcome: Outcome, figure: Figure) -> dict[str, Any]:
    values = outcome.values(figure)
    said: dict[str, Any] = {
        "contender": figure.contender,
        "limit": figure.limit,
        "kind": "value" if figure.limit is None else figure.kind,
        "value": round(median(values), 4),
        "values": [round(value, 4) for value in values],
    }
    if figure.target is not None:
        said["target"] = {"at_least": figure.target.at_least, "at_most": figure.target.at_most}
        said["met"] = outcome.is_met(figure)
    return said


def _rich_table(lines: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A file or a pipe has no width: nothing is cut there.
    console = Console() if sys.stdout.isatty() else Console(width=240)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        shown.add_column(heading, justify="left" if heading in TEXTS else "right")
    for line in lines:
        *cells, met = map(Text, line)
        met.stylize("green" if met.plain == "met" else "yellow")
        shown.add_row(*cells, met)
    console.print(shown)


def _plain_table(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(HEADINGS, *lines, strict=True)]
    for line in (HEADINGS, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
