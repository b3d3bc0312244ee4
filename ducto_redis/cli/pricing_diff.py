"""`ducto pricing diff`: what changes from one pricing document to another."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Annotated

import typer

from ducto_redis.cli.output import Json, print_json, print_line
from ducto_redis.cli.pricing_documents import read_documents
from ducto_redis.display import format_credits
from ducto_redis.pricing.difference import DocumentChange, compare_documents
from ducto_redis.pricing.rates import Rate

_NAME = "A version's number, `active`, or a file."


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=_NAME, show_default=False)],
    after: Annotated[str, typer.Argument(metavar="B", help=_NAME, show_default=False)],
    as_json: Json = False,
) -> None:
    """Say what changes from document A to document B.

    Formulas are compared by text; where both are sums of measures, also by what they charge for each of them. A model
    that only one document names is compared with what prices it in the other.
    """
    old, new = read_documents(before, after)
    changes = compare_documents(old.document, new.document)
    if as_json:
        print_json({"before": old.name, "after": new.name, "changes": changes})
        return
    print_line(f"{old.name} -> {new.name}")
    for line in _lines(changes):
        print_line(line)


def _lines(changes: Sequence[DocumentChange]) -> Iterator[str]:
    if not changes:
        yield "the documents say the same"
    for section, group in groupby(changes, key=lambda change: change.section):
        yield ""
        yield section
        for change in group:
            yield from _change(change)


def _change(change: DocumentChange) -> Iterator[str]:
    title = f"  {change.kind:<8} {change.path.removeprefix(change.section + '.')}"
    if not _is_formula(change):
        yield f"{title}{_values(change)}"
        return
    notes = [note for note in (_source(change), "the same price in other words" if change.same_price else "") if note]
    yield f"{title}  ({'; '.join(notes)})" if notes else title
    for sign, formula in (("-", change.before), ("+", change.after)):
        if formula is not None:
            yield f"           {sign} {formula}"
    if not change.same_price:
        yield from _rates(change.rates)


def _is_formula(change: DocumentChange) -> bool:
    return change.section in ("models", "tools", "search", "cache") or ".rate_overrides." in change.path


def _source(change: DocumentChange) -> str:
    if change.section in ("search", "cache"):
        return ""
    if change.path.endswith("*") and not (change.priced_before or change.priced_after):
        return ""  # each model that it names may have had a price of its own
    if change.kind == "added":
        return f"was priced by {change.priced_before}" if change.priced_before else "had no price"
    if change.kind == "removed":
        return f"now priced by {change.priced_after}" if change.priced_after else "has no price any more"
    return ""


def _values(change: DocumentChange) -> str:
    if change.section == "measures":
        return ""
    if change.kind == "added":
        return f"  {_value(change.after)}"
    if change.kind == "removed":
        return f"  {_value(change.before)}"
    return f"  {_value(change.before)} -> {_value(change.after)}{_percent(change.before, change.after)}"


def _value(value: object) -> str:
    if isinstance(value, Decimal):
        return format_credits(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, dict):
        inner = (f"{key} {_value(each)}" for key, each in value.items() if key != "id")
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)


def _percent(before: object, after: object) -> str:
    if not (isinstance(before, Decimal) and isinstance(after, Decimal) and before):
        return ""
    return f" ({_signed((after - before) / abs(before) * 100)} %)"


def _signed(percent: Decimal) -> str:
    rounded = percent.quantize(Decimal("0.01"))
    return ("+" if rounded > 0 else "") + format_credits(rounded)


def _rates(rates: Sequence[Rate]) -> Iterator[str]:
    width = max((len(_per(rate)) for rate in rates), default=0)
    for rate in rates:
        changed = rate.before != rate.after
        after = f" -> {rate.after:f}" if changed else ", as before"
        percent = f" ({_signed(rate.percent)} %)" if changed and rate.percent is not None else ""
        yield f"             {_per(rate):<{width}}  {rate.before:f}{after}{percent}"


def _per(rate: Rate) -> str:
    if rate.measure == "requests":
        return "each request"
    return f"{rate.per:,} {rate.measure}" if rate.per > 1 else f"1 {rate.measure}"
