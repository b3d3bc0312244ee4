"""Prices a thousand or a million times off the providers' list prices, as where tokens and millions are mixed up."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from statistics import median_low

from msgspec import Struct

from ducto_redis.errors import CreditError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import from_micro
from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.engine import PricingEngine
from ducto_redis.pricing.list_prices import Dollars, list_price_of
from ducto_redis.pricing.resolution import DEFAULT, WILDCARD

# A hundred thousand tokens: enough for a price not to be lost in rounding, and below the sizes that cost more.
_TOKENS = 100_000
_UNITS = {"input_tokens": "input_mtok", "output_tokens": "output_mtok"}
_FAR_OFF = 300
# Credits for a dollar that somebody may mean: from one for a hundred dollars to a hundredth of a cent each.
_LEAST_CREDITS, _MOST_CREDITS = Decimal("0.01"), Decimal(50_000)
_ENOUGH_TO_COMPARE = 3


class _Compared(Struct, frozen=True):
    """Attributes: the entry and measure, the credits that a dollar of list price costs by it, and the dollars."""

    entry: str
    measure: str
    credits_per_dollar: Decimal
    dollars: Decimal


def far_from_list_prices(document: PricingDocument, time: datetime) -> list[str]:
    """Return a warning for each price of input or output tokens that is about a thousand times off, or more.

    A document's `credits_per_dollar` says what a dollar is. Without it, its prices are compared with each other, and
    with what a dollar may be at all.

    Args:
        document: what is checked.
        time: when the list prices hold.

    Raises:
        ConfigError: where genai-prices is not installed.
    """
    compared = list(_compare(document, time))
    if not compared:
        return []
    expected = document.credits_per_dollar
    if expected is None and len(compared) >= _ENOUGH_TO_COMPARE:
        expected = median_low(each.credits_per_dollar for each in compared)
        if not _LEAST_CREDITS <= expected <= _MOST_CREDITS:
            expected = None
    return [warning for each in compared if (warning := _warning(each, expected)) is not None]


def _warning(each: _Compared, expected: Decimal | None) -> str | None:
    path, price = f"models.{each.entry}", f"{each.measure} cost {_rounded(each.credits_per_dollar)} credits"
    listed = f"a dollar of list price ({_rounded(each.dollars)} dollars per million tokens)"
    if expected is None:
        if _LEAST_CREDITS <= each.credits_per_dollar <= _MOST_CREDITS:
            return None
        return (
            f"{path}: {price} for {listed}: is the price meant per token, or per million?"
            " If it is right, say in the document how many credits a dollar is: credits_per_dollar"
        )
    factor = each.credits_per_dollar / expected
    if 1 / Decimal(_FAR_OFF) < factor < _FAR_OFF:
        return None
    times = f"{factor:,.0f} times" if factor >= 1 else f"1/{1 / factor:,.0f} of"
    return (
        f"{path}: {price} for {listed}, {times} the {_rounded(expected)} that a dollar is here:"
        " is the price meant per token, per thousand or per million?"
    )


def _rounded(value: Decimal) -> str:
    """Three digits, or the whole part of more."""
    text = f"{value:,.{max(0, 2 - value.adjusted())}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _compare(document: PricingDocument, time: datetime) -> Iterator[_Compared]:
    engine = PricingEngine(document)
    for entry in document.models:
        if entry == DEFAULT or entry.endswith(WILDCARD):
            continue
        listed = list_price_of(entry, time)
        if listed is None:
            continue
        for measure, dollars in _token_prices(listed.rates[0].dollars).items():
            credits = _price_of_tokens(engine, entry, measure)
            if credits:
                cost = dollars * _TOKENS / 1_000_000
                yield _Compared(entry, measure, credits / cost, dollars)


def _token_prices(dollars: Dollars) -> Mapping[str, Decimal]:
    return {measure: dollars[unit] for measure, unit in _UNITS.items() if dollars.get(unit)}


def _price_of_tokens(engine: PricingEngine, model: str, measure: str) -> Decimal:
    """Return the cost of the tokens beyond that of a request without any, in credits; 0 where it is unknown."""
    try:
        with_tokens = engine.total_micro(_usage(model, {measure: _TOKENS}))
        return from_micro(with_tokens - engine.total_micro(_usage(model, {})))
    except CreditError:
        return Decimal(0)


def _usage(model: str, counts: Mapping[str, int]) -> UsageMetrics:
    return UsageMetrics(
        model=model, input_tokens=counts.get("input_tokens", 0), output_tokens=counts.get("output_tokens", 0)
    )
