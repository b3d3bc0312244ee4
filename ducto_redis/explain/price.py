"""The explanation of a price: the document's formulas, applied again."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from ducto_redis.engine.entry import JournalEntry
from ducto_redis.errors import CreditError
from ducto_redis.explain.model import Price
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import from_micro
from ducto_redis.pricing import PricingEngine
from ducto_redis.pricing.exact import round_fraction

_EXACT_PLACES = 18


def explain_price(
    entry: JournalEntry,
    usages: Sequence[UsageMetrics],
    plan: str | None,
    engine: PricingEngine | None,
    missing: list[str],
) -> Price:
    """Return how the usage of an entry was priced.

    Args:
        entry: the entry.
        usages: the usage that it was priced for.
        plan: the plan whose rates applied, or None.
        engine: the engine of the entry's pricing document, or None if it is not available.
        missing: gets a note if the price cannot be computed again.
    """
    total = from_micro(entry.amount)
    unexplained = Price(version=entry.version, plan=plan, costs=(), exact=None, rounding=None, total=total)
    if engine is None:
        which = f"version {entry.version} of the pricing document" if entry.version else "the manager's own engine"
        missing.append(f"the pricing: {which} is not available here")
        return unexplained
    try:
        costs = tuple(engine.calculate(usage, plan) for usage in usages)
        exact = sum((max(engine.exact(usage, plan), Fraction(0)) for usage in usages), Fraction(0))
    except CreditError as error:
        missing.append(f"the pricing: version {entry.version} gives an error ({error})")
        return unexplained
    computed = sum((cost.total for cost in costs), Decimal(0))
    if computed != total:
        missing.append(f"the pricing: version {entry.version} gives {computed} credits, but the price was {total}")
        return unexplained
    return Price(
        version=entry.version,
        plan=plan,
        costs=costs,
        exact=_decimal(exact),
        rounding=_decimal(Fraction(computed) - exact),
        total=total,
    )


def _decimal(value: Fraction) -> Decimal:
    units = round_fraction(value * 10**_EXACT_PLACES)
    return Decimal((units < 0, tuple(map(int, str(abs(units)))), -_EXACT_PLACES))
