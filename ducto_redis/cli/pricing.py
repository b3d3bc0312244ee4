"""`ducto pricing`: pricing documents."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, print_json, print_line, show, show_table
from ducto_redis.cli.pricing_coverage import coverage
from ducto_redis.cli.pricing_diff import diff
from ducto_redis.cli.pricing_documents import read_file
from ducto_redis.cli.pricing_import import import_
from ducto_redis.cli.pricing_replay import replay
from ducto_redis.display import counted
from ducto_redis.errors import ConfigError, CreditError, ExpressionError, PricingNotLoadedError
from ducto_redis.pricing import PricingDocument
from ducto_redis.pricing.list_prices import has_list_prices
from ducto_redis.pricing.plausibility import far_from_list_prices
from ducto_redis.pricing.writing import to_yaml
from ducto_redis.results import PricingVersion

pricing_app = typer.Typer(help="Check, compare, publish and activate pricing documents.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .yaml, .yml or .json file.", show_default=False)]


class Format(StrEnum):
    """Formats of a document."""

    yaml = "yaml"
    json = "json"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(pricing_app, name="pricing")


@pricing_app.command(name="validate", epilog=example("ducto pricing validate pricing.yaml"))
def _validate(file: File, as_json: Json = False) -> None:
    """Check a document, and say everything that is wrong with it. Needs no server.

    Warns of prices that are about a thousand or a million times off the list prices that genai-prices knows.
    """
    try:
        document = read_file(file)
    except (ConfigError, ExpressionError) as error:
        problems = PricingDocument.problems(file)
        if as_json:
            print_json({"valid": False, "error": _as_json(error), "problems": problems})
        elif len(problems) < 2:
            raise
        else:
            for problem in problems:
                typer.echo(problem, err=True)
            typer.echo(f"ducto: {file} has {counted(len(problems), 'mistake')}", err=True)
        raise typer.Exit(1) from None
    parts = {name: len(getattr(document, name)) for name in ("models", "tools", "fixed", "plans")}
    warnings = far_from_list_prices(document, datetime.now(UTC)) if has_list_prices() else None
    if as_json:
        print_json({"valid": True, **parts, "warnings": warnings})
        return
    named = [f"{name}: {count}" for name, count in parts.items() if count]
    print_line(f"{file} is right; {', '.join(named)}" if named else f"{file} is right")
    if warnings is None:
        typer.echo("not compared with list prices, for want of genai-prices: ducto-redis[prices]", err=True)
    for warning in warnings or ():
        typer.echo(f"warning: {warning}", err=True)


@pricing_app.command(name="set", epilog=example("ducto pricing set pricing.yaml"))
def _set(
    file: File,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key publishes once.")] = None,
    as_json: Json = False,
) -> None:
    """Publish a document as the next version and activate it.

    From then on everything new is charged by it; open leases keep the version that they were priced under.
    """
    document = read_file(file)
    with open_manager(create=True) as manager:
        published = manager.publish_pricing(document, idempotency_key=key)
    if as_json:
        print_json(_without_document(published))
    elif published.active:
        print_line(f"published and activated version {published.version}")
    else:
        print_line(f"this was published before, as version {published.version}, which is not the active one now")


@pricing_app.command(name="list", epilog=example("ducto pricing list"))
def _list(as_json: Json = False) -> None:
    """List the published versions, newest first."""
    with open_manager() as manager:
        try:
            history = manager.pricing_history()
        except PricingNotLoadedError:
            history = []
    show_table(
        [_without_document(version) for version in history],
        ("version", "published", "active"),
        [(it.version, it.published_at, "active" if it.active else "") for it in history],
        numbers=("version",),
        as_json=as_json,
        empty="no pricing document was published yet; publish one with: ducto pricing set FILE",
    )


@pricing_app.command(name="get", epilog=example("ducto pricing get 3 > pricing.yaml"))
def _get(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Which one; the active one by default.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a published document as YAML, or with --json as JSON."""
    with open_manager() as manager:
        published = manager.get_pricing(version)
    show(
        {**_without_document(published), "document": msgspec.Raw(published.document.encode())},
        to_yaml(PricingDocument.from_json(published.document)).rstrip("\n"),
        as_json,
    )


@pricing_app.command(name="export", epilog=example("ducto pricing export 3 --format json > pricing.json"))
def _export(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Which one; the active one by default.", show_default=False)
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.yaml,
) -> None:
    """Write a published document, and nothing else, to stdout. It reads back as the same document."""
    with open_manager() as manager:
        text = manager.get_pricing(version).document
    document = PricingDocument.from_json(text)
    print_line((to_yaml(document) if form is Format.yaml else document.to_json()).rstrip("\n"))


pricing_app.command(name="diff", epilog=example("ducto pricing diff active pricing.yaml"))(diff)
pricing_app.command(
    name="import", epilog=example("ducto pricing import --markup 1.3 --models 'gpt-*,claude-*' --output pricing.yaml")
)(import_)
pricing_app.command(name="coverage", epilog=example("ducto pricing coverage --since 30d"))(coverage)
pricing_app.command(name="replay", epilog=example("ducto pricing replay pricing.yaml --since 7d"))(replay)


@pricing_app.command(name="activate", epilog=example("ducto pricing activate 2"))
def _activate(
    version: Annotated[int, typer.Argument(min=1, help="A published version.")],
    as_json: Json = False,
) -> None:
    """Make a published version the active one, such as an older one that was better."""
    with open_manager() as manager:
        activated = manager.activate_pricing(version)
    show(_without_document(activated), f"version {activated.version} is active", as_json)


def _without_document(version: PricingVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "active": version.active,
        "activation": version.activation,
        "published_at": version.published_at,
    }


def _as_json(error: CreditError) -> dict[str, Any]:
    place = {"path": error.path, "position": error.position} if isinstance(error, ExpressionError) else {}
    return {"code": error.code, "message": str(error), **place}
