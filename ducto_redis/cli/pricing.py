"""`ducto pricing`: pricing documents."""

from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, example, print_json, print_line, print_table
from ducto_redis.errors import ConfigError, CreditError, ExpressionError, PricingNotLoadedError
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.loading import load_json
from ducto_redis.results import PricingVersion

pricing_app = typer.Typer(help="Check, publish and activate pricing documents.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .yaml, .yml or .json file.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(pricing_app, name="pricing")


@pricing_app.command(name="validate", epilog=example("ducto pricing validate pricing.yaml"))
def _validate(file: File, as_json: Json = False) -> None:
    """Check a document, and say where it is wrong. Needs no server."""
    try:
        document = _read(file)
    except (ConfigError, ExpressionError) as error:
        if not as_json:
            raise
        print_json({"valid": False, "error": _as_json(error)})
        raise typer.Exit(1) from None
    parts = {name: len(getattr(document, name)) for name in ("models", "tools", "fixed", "plans")}
    if as_json:
        print_json({"valid": True, **parts})
        return
    named = [f"{name}: {count}" for name, count in parts.items() if count]
    print_line(f"{file} is right; {', '.join(named)}" if named else f"{file} is right")


@pricing_app.command(name="set", epilog=example("ducto pricing set pricing.yaml"))
def _set(
    file: File,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key publishes once.")] = None,
    as_json: Json = False,
) -> None:
    """Publish a document as the next version and activate it.

    From then on everything new is charged by it; open leases keep the version that they were priced under.
    """
    document = _read(file)
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
    if as_json:
        print_json([_without_document(version) for version in history])
        return
    if not history:
        print_line("no pricing document was published yet; publish one with: ducto pricing set FILE")
        return
    print_table(
        ("version", "published", "active"),
        [(it.version, it.published_at, "active" if it.active else "") for it in history],
        numbers=("version",),
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
    if as_json:
        print_json({**_without_document(published), "document": msgspec.Raw(published.document.encode())})
    else:
        print_line(_to_yaml(published.document).rstrip("\n"))


@pricing_app.command(name="activate", epilog=example("ducto pricing activate 2"))
def _activate(
    version: Annotated[int, typer.Argument(min=1, help="A published version.")],
    as_json: Json = False,
) -> None:
    """Make a published version the active one, such as an older one that was better."""
    with open_manager() as manager:
        activated = manager.activate_pricing(version)
    if as_json:
        print_json(_without_document(activated))
    else:
        print_line(f"version {activated.version} is active")


def _read(file: Path) -> PricingDocument:
    document = PricingDocument.from_file(file)
    PricingEngine(document)  # compiles every formula
    return document


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


def _to_yaml(document: str) -> str:
    """The document as YAML that reads back as the same document: no number passes through a float."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        pass

    def represent_decimal(representer: SafeRepresenter, value: Decimal) -> ScalarNode:
        node: ScalarNode = representer.represent_scalar("tag:yaml.org,2002:float", f"{value:f}")
        return node

    Representer.add_representer(Decimal, represent_decimal)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.width = 4096
    text = StringIO()
    yaml.dump(load_json(document), text)
    return text.getvalue()
