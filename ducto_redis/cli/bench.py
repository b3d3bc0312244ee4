"""`ducto bench`."""

from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from ducto_redis.cli.environment import redis_url
from ducto_redis.cli.output import Json, example, print_json, print_line, show
from ducto_redis.errors import ConfigError

if TYPE_CHECKING:
    from ducto_redis.benchmark.soak import Period

ON_REQUEST = ("growth",)
"""Writes a million accounts."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="bench", epilog=example("ducto bench throughput --quick", "ducto bench --soak 10"))(_bench)


def _bench(
    families: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FAMILY",
            help="pricing, throughput, latency, accounts, memory, growth; all but growth by default.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--redis-url", help="The server; DUCTO_REDIS_URL by default. Not for a URL that holds a password."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds, of which figures are the medians; 5 by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One short round, to see that it works.")] = False,
    soak_minutes: Annotated[
        float | None,
        typer.Option("--soak", metavar="MINUTES", min=0.05, help="Instead: one steady load, and whether it drifts."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what charges cost on your own server, each figure beside its limit.

    It works in new namespaces named bench-..., and deletes their keys, after Ctrl-C too. It needs a server that has
    nothing else to do, for it takes all that the server can give.
    """
    from ducto_redis.benchmark.harness import BenchmarkError
    from ducto_redis.benchmark.run import FAMILIES, tidy_when_terminated
    from ducto_redis.benchmark.server import check_argument, check_server

    try:
        names = families or [name for name in FAMILIES if name not in ON_REQUEST]
        for name in names:
            if name not in FAMILIES:
                raise BenchmarkError(f"there is no {name!r:.40}; there are {', '.join(FAMILIES)}")
        server = redis_url() if url is None else check_argument(url)
        for warning in check_server(server):
            typer.echo(f"{warning.check}: {warning.detail}; {warning.advice}", err=True)
        with tidy_when_terminated():
            if soak_minutes is None:
                _measure(server, names, rounds, quick, as_json)
            elif families:
                raise BenchmarkError("--soak has a load of its own: no family goes with it")
            else:
                _soak(server, soak_minutes, as_json)
    except BenchmarkError as error:
        raise ConfigError(str(error)) from None


def _measure(server: str, names: list[str], rounds: int | None, quick: bool, as_json: bool) -> None:
    from ducto_redis.benchmark import report
    from ducto_redis.benchmark.run import FAMILIES, QUICK_ROUNDS, QUICK_SCALE, ROUNDS, SEED, outcomes_of
    from ducto_redis.benchmark.setting import Setting

    began = monotonic()
    setting = Setting(server, QUICK_SCALE if quick else 1.0, SEED)
    number = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    outcomes = outcomes_of(FAMILIES, names, setting, number)
    if as_json:
        command = " ".join(["ducto bench", *names, *(["--quick"] if quick else []), f"--rounds {number}"])
        seconds = monotonic() - began
        print_json(report.document(outcomes, setting, command=command, rounds=number, seconds=seconds))
    else:
        report.table(outcomes)
        print_line(report.verdict(outcomes))


def _soak(server: str, minutes: float, as_json: bool) -> None:
    from pathlib import Path

    from ducto_redis.benchmark.soak import PERIOD_HEADINGS, period_line, soak

    def tell(period: "Period") -> None:
        print_line(period_line(period))

    with TemporaryDirectory(prefix="ducto-soak-") as folder:
        if not as_json:
            print_line(PERIOD_HEADINGS)
        result = soak(server, Path(folder), minutes=minutes, tell=None if as_json else tell)
    show(result.document(), "\n".join(result.lines()), as_json)
    if not result.ok:
        raise typer.Exit(1)
