"""`ducto pricing coverage`: which models that were used have no price."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from msgspec import Struct

from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.output import Json, print_json, print_line, print_table
from ducto_redis.cli.pricing_documents import ACTIVE, read_documents
from ducto_redis.cli.times import parse_time
from ducto_redis.display import counted
from ducto_redis.pricing import PricingDocument
from ducto_redis.pricing.list_prices import has_list_prices, list_price_of
from ducto_redis.pricing.resolution import DEFAULT, resolve


class CoveredModel(Struct, frozen=True, kw_only=True):
    """A model that was used, and what prices it.

    Attributes:
        model: its name.
        charges, charged: how many charges, and credits.
        priced_by: the document's entry that prices it; None where none does.
        by_default: whether that is only the entry for all others.
        listed: the provider whose list price genai-prices knows; None where it knows none.
    """

    model: str
    charges: int
    charged: Decimal
    priced_by: str | None
    by_default: bool
    listed: str | None


def coverage(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file, a published version's number, or active.")
    ] = ACTIVE,
    since: Annotated[str, typer.Option(help="From when on: so long ago, as in 12h, 7d or 4w, or a date.")] = "30d",
    as_json: Json = False,
) -> None:
    """Say which models in the ledger have no price in a document, or only that of all others.

    Models that were always refused, for want of a price, are not in the ledger. Exits with 1 where one has no price.
    """
    now = datetime.now(UTC)
    start = parse_time(since, "--since", now)
    (named,) = read_documents(file)
    with open_manager() as manager:
        spends = manager.spend_by_model(start)
    rows = [
        _cover(each.model, each.charges, each.charged, named.document, now) for each in spends if each.model is not None
    ]
    rows.sort(key=lambda row: (row.priced_by is not None, not row.by_default))
    unpriced = sum(row.priced_by is None for row in rows)
    if as_json:
        print_json({"document": named.name, "unpriced": unpriced, "models": rows})
    else:
        for line in _told(rows, named.name, unpriced):
            print_line(line)
    if unpriced:
        raise typer.Exit(1)


def _cover(model: str, charges: int, charged: Decimal, document: PricingDocument, now: datetime) -> CoveredModel:
    entry = resolve(model, document.models)
    listed = list_price_of(model, now) if has_list_prices() else None
    return CoveredModel(
        model=model,
        charges=charges,
        charged=charged,
        priced_by=entry,
        by_default=entry == DEFAULT,
        listed=None if listed is None else listed.provider,
    )


def _told(rows: list[CoveredModel], name: str, unpriced: int) -> Iterator[str]:
    if not rows:
        yield "no model was charged in that time"
        return
    print_table(
        ("model", "charges", "charged", "priced by", "list price"),
        [(row.model, row.charges, row.charged, row.priced_by or "no price", row.listed or "") for row in rows],
        numbers=("charges", "charged"),
    )
    yield ""
    defaulted = sum(row.by_default for row in rows)
    models = counted(len(rows), "model")
    yield f"{name}: {models} in the ledger, {unpriced} without a price, {defaulted} priced by {DEFAULT}"
    missing = [row.model for row in rows if row.listed and (row.priced_by is None or row.by_default)]
    if missing:
        yield f"list prices: ducto pricing import --models '{','.join(missing)}'"
