"""`ducto pricing import`: a pricing document from the providers' list prices."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from ducto_redis.cli.output import print_line
from ducto_redis.display import counted
from ducto_redis.errors import ConfigError
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.importing import import_prices
from ducto_redis.pricing.list_prices import MAKERS


def import_(
    markup: Annotated[
        str, typer.Option(metavar="NUMBER", help="What list prices are multiplied by, such as 1.3.")
    ] = "1",
    models: Annotated[
        str | None,
        typer.Option(metavar="PATTERNS", help="Only these models: names with *, separated by commas."),
    ] = None,
    providers: Annotated[
        str,
        typer.Option(
            metavar="IDS", help="Whose lists, separated by commas; of models with the same name the first counts."
        ),
    ] = ",".join(MAKERS),
    credits_per_dollar: Annotated[
        str, typer.Option(metavar="NUMBER", help="How many credits a dollar of list price is.")
    ] = "100",
    deprecated: Annotated[bool, typer.Option("--deprecated", help="Also models that their provider gives up.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file, instead of stdout.")] = None,
) -> None:
    """Write a pricing document that charges list prices, to be read, edited and published. Needs no server.

    The prices are those of the installed genai-prices: tiers, caches, sound, pictures and web searches included.
    """
    text = import_prices(
        time=datetime.now(UTC),
        credits_per_dollar=_number(credits_per_dollar, "--credits-per-dollar"),
        markup=_number(markup, "--markup"),
        models=_listed(models or ""),
        providers=_listed(providers),
        deprecated=deprecated,
    )
    document = PricingDocument.from_yaml(text)
    PricingEngine(document)  # what cannot be published is not written
    if output is None:
        print_line(text.rstrip("\n"))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{output} is there already: name a new file") from None
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from None
    print_line(f"wrote {output}: {counted(len(document.models), 'model')}; publish it with: ducto pricing set {output}")


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _number(text: str, option: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ConfigError(f"{option} takes a number such as 1.3, not {text!r:.80}") from None
