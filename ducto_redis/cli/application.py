"""The application: its commands, and how a failure is told.

A command module imports what it needs to be described; what only its work needs (SQLAlchemy, uvicorn, openai) is
imported when it runs, so that `ducto --help` is quick.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, NoReturn

import typer
from redis.exceptions import RedisError
from typer.core import TyperGroup

from ducto_redis.cli import (
    accounts,
    analytics,
    bench,
    caps,
    doctor,
    events,
    explain,
    leases,
    ledger,
    plans,
    pricing,
    teams,
    worker,
)
from ducto_redis.cli.demo import command as demo
from ducto_redis.errors import CreditError

# A wrong command line. Typer brings a click of its own, and exports its classes but for this one.
_UsageError: Any = typer.BadParameter.__base__
# A group that was called without a command: what it tells is the help.
_HELP = "NoArgsIsHelpError"


class _Root(TyperGroup):
    """Tells every failure that is not a bug in one line: exit status 1, or 2 where the command line is wrong."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except _UsageError as error:
            _fail_usage(error)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CreditError as error:
            _fail(str(error))
        except RedisError as error:
            _fail(f"the server at DUCTO_REDIS_URL failed: {error}")
        except _UsageError as error:
            _fail_usage(error)


app = typer.Typer(
    name="ducto",
    cls=_Root,
    help="Credits and metering for AI products: atomic in Redis, proved in SQL.",
    epilog="Where to work comes from the environment: DUCTO_REDIS_URL, DUCTO_LEDGER_URL, DUCTO_NAMESPACE (ducto), "
    "DUCTO_PARTITIONS (16). Begin with: ducto demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print the values of variables, URLs with passwords among them
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"ducto {version('ducto-redis')}")
        except PackageNotFoundError:
            typer.echo("ducto, from sources that are not installed")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _fail(message: str, status: int = 1) -> NoReturn:
    typer.echo(f"ducto: {' '.join(message.split())}", err=True)
    raise typer.Exit(status)


def _fail_usage(error: Any) -> NoReturn:
    if type(error).__name__ == _HELP:
        raise error
    said = error.format_message().replace("Value error, ", "").replace(". Did you mean", "; did you mean").rstrip(".")
    given = _given(error)
    if given and repr(given) not in said:
        said += f" (it was {given!r:.80})"
    command = "ducto" if error.ctx is None else error.ctx.command_path
    _fail(f"{said[:1].lower()}{said[1:]}; see `{command} --help`", error.exit_code)


def _given(error: Any) -> str:
    """Return the text given for an option or argument, where the error has it: its message often does not say."""
    problems = getattr(error.__cause__, "errors", None)
    given = problems()[0].get("input") if problems is not None else None
    return given if isinstance(given, str) else ""


for _module in (
    demo,
    worker,
    events,
    doctor,
    pricing,
    accounts,
    explain,
    analytics,
    plans,
    caps,
    teams,
    leases,
    ledger,
    bench,
):
    _module.add_to(app)
