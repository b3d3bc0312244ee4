"""A pricing document from the providers' list prices, to be read, edited and published."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from ducto_redis.errors import ConfigError
from ducto_redis.pricing.list_prices import (
    MAKERS,
    MEASURE_OF_UNIT,
    Dollars,
    ListPrice,
    is_part_of,
    list_prices,
    list_version,
    units_per,
)
from ducto_redis.pricing.writing import key_and_text

_CACHE_PARTS = {"cache_read_tokens": -1, "cache_write_tokens": -1}
_PER_MILLION = 1_000_000
_PER_HOUR = 3_600


def import_prices(
    *,
    time: datetime,
    credits_per_dollar: Decimal,
    markup: Decimal = Decimal(1),
    models: Sequence[str] = (),
    providers: Sequence[str] = MAKERS,
    deprecated: bool = False,
) -> str:
    """Return a pricing document, as YAML with comments, that charges list prices.

    Args:
        time: when the prices hold.
        credits_per_dollar: how many credits a dollar of list price is.
        markup: what list prices are multiplied by.
        models: patterns of models' names, such as `gpt-*`; none for all.
        providers: whose lists are read; of models with the same name the first one counts.
        deprecated: whether models that their provider gives up are among them.

    Raises:
        ConfigError: for what the list does not have, or where genai-prices is not installed.
    """
    for name, value in (("credits_per_dollar", credits_per_dollar), ("markup", markup)):
        if not value.is_finite() or value <= 0:
            raise ConfigError(f"{name} must be above 0, not {value}")
    prices = list_prices(models, providers, time, deprecated=deprecated)
    lines = [
        f"# List prices of genai-prices {list_version()}, read on {time:%Y-%m-%d}: times {_plain(markup)},"
        f" {_plain(credits_per_dollar)} credits for a dollar.",
        "# Read it, edit it, and publish it with: ducto pricing set FILE",
        "version: 1",
        f"credits_per_dollar: {_plain(credits_per_dollar)}",
        "models:",
    ]
    written = {price.model for price in prices}
    for price in prices:
        formula = formula_of(price, markup * credits_per_dollar)
        lines += [f"  # {note}" for note in _notes(price)]
        lines.append(f"  {key_and_text(price.model, formula)}")
        for name in price.names:
            if name not in written:
                written.add(name)
                lines.append(f"  {key_and_text(name, formula)}")
    return "\n".join(lines) + "\n"


def formula_of(price: ListPrice, credits_per_dollar: Decimal) -> str:
    """Return the formula that charges a list price.

    >>> from ducto_redis.pricing.list_prices import Rates
    >>> rates = Rates(0, {"input_mtok": Decimal("2.5"), "output_mtok": Decimal(10)})
    >>> formula_of(ListPrice("openai", "gpt-4o", (rates,)), Decimal(100))
    '(input_tokens * 250 + output_tokens * 1000) / 1000000'
    """
    tokens: dict[str | None, str] = {}
    others: dict[str | None, str] = {}
    for tier, rates in [(None, price.rates), *price.by_service_tier.items()]:
        sums = [(each.above_input_tokens, *_sums(each.dollars, credits_per_dollar)) for each in rates]
        tokens[tier] = _by_input([(start, text) for start, text, _ in sums])
        others[tier] = _by_input([(start, text) for start, _, text in sums])
    by_million, rest = _by_tier(tokens), _by_tier(others)
    terms = [f"({by_million}) / {_PER_MILLION}"] if by_million != "0" else []
    if rest != "0" or not terms:
        terms.append(f"({rest})" if terms and " if " in rest else rest)
    return " + ".join(terms)


def _by_input(sums: Sequence[tuple[int, str]]) -> str:
    formula = sums[0][1]
    for (start, text), (_, below) in zip(sums[1:], sums, strict=False):
        if text != below:
            formula = f"{text} if input_tokens > {start} else {formula}"
    return formula


def _by_tier(formulas: Mapping[str | None, str]) -> str:
    standard = formulas[None]
    tiers: dict[str, list[str]] = {}
    for tier, formula in formulas.items():
        if tier is not None and formula != standard:
            tiers.setdefault(formula, []).append(repr(tier))
    result = standard
    for formula, names in reversed(tiers.items()):
        condition = f"== {names[0]}" if len(names) == 1 else f"in ({', '.join(names)})"
        operand = f"({formula})" if " if " in formula else formula
        result = f"{operand} if service_tier {condition} else {result}"
    return result


def _sums(dollars: Dollars, credits_per_dollar: Decimal) -> tuple[str, str]:
    """Return the terms of a formula: the price of each unit, times the part that no narrower unit prices."""
    own = _own_counts(dollars)
    tokens: list[str] = []
    others: list[str] = []
    for unit, price in dollars.items():
        amount, per = price * credits_per_dollar, units_per(unit)
        if not amount:
            continue
        if per == _PER_MILLION:
            tokens.append(f"{own[unit]} * {_plain(amount)}")
        elif per == _PER_HOUR:
            others.append(f"{own[unit]} * {_plain(amount)} / {per}")
        else:
            others.append(f"{own[unit]} * {_plain(amount / per)}")
    return " + ".join(tokens) or "0", " + ".join(others) or "0"


def _own_counts(dollars: Dollars) -> dict[str, str]:
    """By unit, the expression of what it counts beside the narrower units that have prices of their own."""
    counts: dict[str, Mapping[str, int]] = {}
    for unit in sorted(dollars, key=lambda unit: sum(is_part_of(unit, other) for other in dollars), reverse=True):
        own = {MEASURE_OF_UNIT[unit]: 1}
        for part in dollars:
            if is_part_of(part, unit):
                for measure, times in counts[part].items():
                    own[measure] = own.get(measure, 0) - times
        counts[unit] = own
    return {unit: _expression(own) for unit, own in counts.items()}


def _expression(counts: Mapping[str, int]) -> str:
    if _CACHE_PARTS.items() <= counts.items() and counts.get("input_tokens") == 1:
        rest = {name: times for name, times in counts.items() if name not in _CACHE_PARTS and name != "input_tokens"}
        counts = {"uncached_input_tokens": 1, **rest}
    terms = [(name, times) for name, times in counts.items() if times]
    text = terms[0][0] + "".join(f" {'+' if times > 0 else '-'} {name}" for name, times in terms[1:])
    assert all(abs(times) == 1 for _, times in terms)
    return text if len(terms) == 1 else f"({text})"


def _notes(price: ListPrice) -> Iterator[str]:
    yield f"{price.provider}: {_dollars(price.rates[0].dollars)}"
    for each in price.rates[1:]:
        yield f"  above {each.above_input_tokens:,} input tokens: {_dollars(each.dollars)}"
    yield from (f"  {note}" for note in price.notes)
    if price.left_out:
        yield f"  has a price, but no usage counts it: {', '.join(price.left_out)}"


def _dollars(dollars: Dollars) -> str:
    by_per: dict[int, list[str]] = {}
    for unit, price in dollars.items():
        by_per.setdefault(units_per(unit), []).append(f"{MEASURE_OF_UNIT[unit]} ${_plain(price)}")
    return "; ".join(f"{', '.join(prices)} per {per:,}" for per, prices in by_per.items())


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
