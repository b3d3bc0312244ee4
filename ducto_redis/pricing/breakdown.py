"""The cost of a usage, line by line."""

from collections.abc import Sequence
from decimal import Decimal
from math import lcm
from typing import Literal, TypeAlias

from msgspec import Struct

from ducto_redis.errors import InvalidAmountError
from ducto_redis.money import MAX_MICRO, from_micro
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
    """The cost of a usage, in credits.

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


PricedPart: TypeAlias = tuple[Part, str, str, str, int, int]
"""One part of a cost, exact: part, name, path and formula as in its `CostLine`, then numerator / denominator
micro-credits. A plain tuple, because every price makes some."""


def rounded_total(parts: Sequence[PricedPart]) -> int:
    """Return the sum of parts in micro-credits, rounded once; it may be below 0."""
    total, over = 0, 1
    for _, _, _, _, numerator, denominator in parts:
        if denominator == over:
            total += numerator
        else:
            total = total * denominator + numerator * over
            over *= denominator
    return total if over == 1 else round_half_up(total, over)


def rounded_parts(parts: Sequence[PricedPart], total: int) -> list[int]:
    """Return micro-credits for each part that add up to `total`, each within 1 of its exact value.

    Every part is rounded down; what is then missing goes, 1 each, to the parts that lost most.
    """
    rounded = [part[4] // part[5] for part in parts]
    missing = total - sum(rounded)
    if missing:
        common = lcm(*(part[5] for part in parts))
        lost = [part[4] % part[5] * (common // part[5]) for part in parts]
        for index in sorted(range(len(parts)), key=lambda place: -lost[place])[:missing]:
            rounded[index] += 1
    return rounded


def breakdown(parts: Sequence[PricedPart], flags: tuple[str, ...]) -> CostBreakdown:
    """Return the breakdown of exact parts, rounded to micro-credits."""
    for part in parts:
        if part[-1] != 1:
            whole = rounded_parts(parts, rounded_total(parts))
            parts = [(*each[:4], micro, 1) for each, micro in zip(parts, whole, strict=True)]
            break
    total = tools = 0
    amounts: dict[Part, Decimal] = {}
    lines = []
    for kind, name, path, formula, micro, _ in parts:
        total += micro
        amount = from_micro(micro)
        lines.append(CostLine(kind, name, path, formula, amount))
        if kind == "tool":  # the one kind of which there may be several
            tools += micro
            if kind in amounts:
                amount = from_micro(tools)
        amounts[kind] = amount
    if total < 0:
        lines.append(CostLine("floor", BELOW_ZERO, "", "0", from_micro(-total)))
        flags = (*flags, BELOW_ZERO)
        total = 0
    check_limit(total)
    amount_of = amounts.get
    return CostBreakdown(
        model_credits=amount_of("model", NO_CREDITS),
        tool_credits=amount_of("tool", NO_CREDITS),
        search_credits=amount_of("search", NO_CREDITS),
        cache_savings=amount_of("cache", NO_CREDITS),
        fixed_credits=amount_of("fixed", NO_CREDITS),
        total=lines[0].credits if len(lines) == 1 else from_micro(total),
        lines=tuple(lines),
        flags=flags,
    )


def check_limit(micro: int) -> int:
    """Return a price; raise InvalidAmountError where it is over the largest amount."""
    if micro > MAX_MICRO:
        raise InvalidAmountError(f"the price is over the largest amount, {from_micro(MAX_MICRO)} credits")
    return micro
