"""What a usage costs and what it came from."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

from msgspec import Struct

from ducto_redis.money import from_micro
from ducto_redis.pricing.exact import round_half_up

Part: TypeAlias = Literal["model", "tool", "search", "cache", "fixed", "floor"]

BELOW_ZERO = "total_below_zero"
SEARCH_NOT_PRICED = "search_not_priced"

NO_CREDITS = from_micro(0)


class CostLine(Struct, frozen=True, gc=False):
    """One part of a cost.

    Attributes:
        part: what was priced; "floor" is what lifts a total below 0 to 0.
        name: its name: the model, tool or job.
        path: where in the document its price stands.
        formula: the formula, or the fixed price.
        credits: what it adds to the total.
    """

    part: Part
    name: str
    path: str
    formula: str
    credits: Decimal


class CostBreakdown(Struct, frozen=True, kw_only=True):
    """What a usage costs, in credits.

    The total is the exact sum of all parts, rounded once, half up, to six places. The lines are rounded so that they
    add up to the total. A total below 0 becomes 0: then the flag `total_below_zero` is set, and a line of the part
    "floor" makes up the difference.

    Attributes:
        model_credits, tool_credits, search_credits, fixed_credits: what each kind of part costs.
        cache_savings: what the cache section adds: zero or below where it saves something.
        total: what is charged.
        lines: every part with its formula, in the order model, cache, tools, search, fixed.
        flags: what is worth a look: `total_below_zero`, `search_not_priced`, `input_parts_exceed_total`,
            `output_parts_exceed_total`.
    """

    model_credits: Decimal = NO_CREDITS
    tool_credits: Decimal = NO_CREDITS
    search_credits: Decimal = NO_CREDITS
    cache_savings: Decimal = NO_CREDITS
    fixed_credits: Decimal = NO_CREDITS
    total: Decimal = NO_CREDITS
    lines: tuple[CostLine, ...] = ()
    flags: tuple[str, ...] = ()


class PricedPart(Struct, frozen=True, gc=False):
    """One part of a cost, exact: numerator / denominator micro-credits."""

    part: Part
    name: str
    path: str
    formula: str
    numerator: int
    denominator: int


def rounded_total(parts: Sequence[PricedPart]) -> int:
    """Return the sum of parts in micro-credits, rounded once; it may be below 0."""
    numerator, denominator = 0, 1
    for part in parts:
        if part.denominator == denominator:
            numerator += part.numerator
        else:
            numerator = numerator * part.denominator + part.numerator * denominator
            denominator *= part.denominator
    return numerator if denominator == 1 else round_half_up(numerator, denominator)


def rounded_parts(parts: Sequence[PricedPart], total: int) -> list[int]:
    """Return micro-credits for each part that add up to `total`, each within 1 of its exact value.

    Every part is rounded down; what is then missing goes, 1 each, to the parts that lost most.
    """
    rounded = [part.numerator // part.denominator for part in parts]
    missing = total - sum(rounded)
    if missing:
        lost = [Fraction(part.numerator % part.denominator, part.denominator) for part in parts]
        for index in sorted(range(len(parts)), key=lambda place: -lost[place])[:missing]:
            rounded[index] += 1
    return rounded


def breakdown(parts: Sequence[PricedPart], total: int, flags: tuple[str, ...]) -> CostBreakdown:
    """Return the breakdown of exact parts whose rounded sum is `total` micro-credits."""
    sums: dict[str, int] = {}
    credits: dict[int, Decimal] = {0: NO_CREDITS}
    lines: list[CostLine] = []
    for part, micro in zip(parts, rounded_parts(parts, total), strict=True):
        kind = part.part
        sums[kind] = sums.get(kind, 0) + micro
        amount = credits[micro] = from_micro(micro)
        lines.append(CostLine(kind, part.name, part.path, part.formula, amount))
    if total < 0:
        lines.append(CostLine("floor", BELOW_ZERO, "", "0", from_micro(-total)))
        flags = (*flags, BELOW_ZERO)
        total = 0
    # Where a kind has one part, its amount has been made already.
    for micro in (total, *sums.values()):
        if micro not in credits:
            credits[micro] = from_micro(micro)
    return CostBreakdown(
        model_credits=credits[sums.get("model", 0)],
        tool_credits=credits[sums.get("tool", 0)],
        search_credits=credits[sums.get("search", 0)],
        cache_savings=credits[sums.get("cache", 0)],
        fixed_credits=credits[sums.get("fixed", 0)],
        total=credits[total],
        lines=tuple(lines),
        flags=flags,
    )
