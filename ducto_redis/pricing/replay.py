"""Replay of charged usage: the charges under another pricing document.

Entries come one after the other and are not kept: only sums by model, by account and by reason are, and of these so
many at the most.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from ducto_redis.engine.entry import Details, JournalEntry, UnreadableEntryError
from ducto_redis.errors import CreditError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import from_micro
from ducto_redis.pricing.engine import PricingEngine

MAX_NAMES = 100_000
"""Accounts, or models, that are told apart; names come from clients, who can make up any number of them."""

MAX_REASONS = 1000

_Key = TypeVar("_Key", bound=Hashable)


class ReplayRow(Struct, frozen=True, kw_only=True):
    """Charges of one model or account, as they were and as they would have been. Credits.

    Attributes:
        name: the model or account; None for usage that names no model.
        others: whether it stands for all names beyond those that are told apart.
        charges: how many there were.
        cost: what they cost then.
        charged: the part of it that was charged; the rest was a shortfall.
        from_allowance: the part of what was charged that an allowance paid.
        replayed: what the document charges for those that it prices.
        difference: `replayed` without what the same charges cost then.
        unpriced: charges, or one model's parts of them, that the document has no price for.
        unpriced_cost: what these cost then.
    """

    name: str | None
    others: bool = False
    charges: int
    cost: Decimal
    charged: Decimal
    from_allowance: Decimal
    replayed: Decimal
    difference: Decimal
    unpriced: int
    unpriced_cost: Decimal


class UnpricedUsage(Struct, frozen=True, kw_only=True):
    """Why the document has no price for some usage, how many charges that is, and what they cost then."""

    reason: str
    charges: int
    cost: Decimal


class MissingPlan(Struct, frozen=True, kw_only=True):
    """A plan that charges were priced under and that the document lacks: they are replayed without a plan's rates."""

    plan: str
    charges: int


class PricingReplay(Struct, frozen=True, kw_only=True):
    """The charges of a document for the usage of a period, beside the actual charges.

    Each charge is rounded to six places, as it would have been. Allowances are those that paid then; refunds that came
    later are not counted on either side.

    Attributes:
        start, end: the time; the end is not in it.
        total: all charges of usage.
        by_model, by_account: the same charges, the largest difference first. A charge of several models counts once for
            each of them in `by_model`.
        unpriced: usage that the document has no price for.
        missing_plans: plans that it lacks.
        by_amount, by_amount_charged: charges of credits that the application named itself: no document prices them.
        unreadable: entries whose usage cannot be read.
    """

    start: datetime
    end: datetime
    total: ReplayRow
    by_model: tuple[ReplayRow, ...]
    by_account: tuple[ReplayRow, ...]
    unpriced: tuple[UnpricedUsage, ...]
    missing_plans: tuple[MissingPlan, ...]
    by_amount: int
    by_amount_charged: Decimal
    unreadable: int


class _Part(Struct):
    """A charge, or one model's part of it, in micro-credits. `replayed` is None where it has no price."""

    cost: int
    charged: int
    from_allowance: int
    replayed: int | None = None


class _Sums(Struct):
    charges: int = 0
    cost: int = 0
    charged: int = 0
    from_allowance: int = 0
    unpriced: int = 0
    unpriced_cost: int = 0
    priced: int = 0

    def add(self, part: _Part, *, charges: int = 1) -> None:
        self.charges += charges
        self.cost += part.cost
        self.charged += part.charged
        self.from_allowance += part.from_allowance
        if part.replayed is None:
            self.unpriced += 1
            self.unpriced_cost += part.cost
        else:
            self.priced += part.replayed

    def row(self, name: str | None, *, others: bool = False) -> ReplayRow:
        return ReplayRow(
            name=name,
            others=others,
            charges=self.charges,
            cost=from_micro(self.cost),
            charged=from_micro(self.charged),
            from_allowance=from_micro(self.from_allowance),
            replayed=from_micro(self.priced),
            difference=from_micro(self.priced - self.cost + self.unpriced_cost),
            unpriced=self.unpriced,
            unpriced_cost=from_micro(self.unpriced_cost),
        )


class _Table(Generic[_Key]):
    """Sums by key; beyond `limit` keys, all others together."""

    def __init__(self, limit: int) -> None:
        self.sums: dict[_Key, _Sums] = {}
        self.others = _Sums()
        self._limit = limit

    def add(self, key: _Key, part: _Part, *, charges: int = 1) -> None:
        sums = self.sums.get(key)
        if sums is None:
            sums = self.others if len(self.sums) >= self._limit else self.sums.setdefault(key, _Sums())
        sums.add(part, charges=charges)


class Replay:
    """Prices charges by another document, one by one.

    Args:
        engine: of that document.
        max_names: accounts, and models, that are told apart.
    """

    def __init__(self, engine: PricingEngine, *, max_names: int = MAX_NAMES) -> None:
        self._engine = engine
        self._total = _Sums()
        self._by_model: _Table[str | None] = _Table(max_names)
        self._by_account: _Table[str | None] = _Table(max_names)
        self._by_reason: _Table[str] = _Table(MAX_REASONS)
        self._by_plan: _Table[str] = _Table(MAX_REASONS)
        self._by_amount = _Sums()
        self._unreadable = 0

    def take(self, entry: JournalEntry, then: Callable[[int], PricingEngine | None]) -> None:
        """Take in a deduct or settle entry. `then` gives the engine of a version, or None where there is none."""
        try:
            usages, details = entry.read_cause().usages, entry.read_details()
        except (msgspec.MsgspecError, UnreadableEntryError):
            self._unreadable += 1
            return
        whole = _Part(entry.amount, entry.charged, details.allowance)
        if not usages:
            self._by_amount.add(whole)
            return
        plan: str | None = details.plan or None
        if plan is not None and plan not in self._engine.document.plans:
            self._by_plan.add(plan, whole)
            plan = None
        charges = 1
        for model, group, part in _parts(entry, usages, details, whole, then):
            part.replayed = self._price(group, plan, part)
            self._by_model.add(model, part)
            self._by_account.add(entry.account, part, charges=charges)
            self._total.add(part, charges=charges)
            charges = 0

    def result(self, start: datetime, end: datetime) -> PricingReplay:
        """Return the findings, of the entries of that time."""
        return PricingReplay(
            start=start,
            end=end,
            total=self._total.row(None),
            by_model=_rows(self._by_model),
            by_account=_rows(self._by_account),
            unpriced=tuple(
                UnpricedUsage(reason=reason, charges=sums.charges, cost=from_micro(sums.cost))
                for reason, sums in _reasons(self._by_reason, "other reasons")
            ),
            missing_plans=tuple(
                MissingPlan(plan=plan, charges=sums.charges) for plan, sums in _reasons(self._by_plan, "other plans")
            ),
            by_amount=self._by_amount.charges,
            by_amount_charged=from_micro(self._by_amount.charged),
            unreadable=self._unreadable,
        )

    def _price(self, usages: Sequence[UsageMetrics], plan: str | None, part: _Part) -> int | None:
        try:
            return self._engine.total_micro_of(usages, plan)
        except CreditError as error:
            self._by_reason.add(str(error), part)
            return None


def _parts(
    entry: JournalEntry,
    usages: Sequence[UsageMetrics],
    details: Details,
    whole: _Part,
    then: Callable[[int], PricingEngine | None],
) -> Iterator[tuple[str | None, Sequence[UsageMetrics], _Part]]:
    """Return each model's part of a charge.

    The entry says what all of them cost together. What each of them did is what the document of that time says; where
    that cannot be had, they stay together, under all their names.
    """
    groups: dict[str | None, list[UsageMetrics]] = {}
    for usage in usages:
        groups.setdefault(usage.model, []).append(usage)
    costs = None if len(groups) == 1 else _costs_then(entry, list(groups.values()), details.plan or None, then)
    if costs is None:
        name = next(iter(groups)) if len(groups) == 1 else " + ".join(sorted(model or "no model" for model in groups))
        yield name, usages, _Part(whole.cost, whole.charged, whole.from_allowance)
        return
    shares = zip(costs, _shares(whole.charged, costs), _shares(whole.from_allowance, costs), strict=True)
    for (model, group), (cost, charged, from_allowance) in zip(groups.items(), shares, strict=True):
        yield model, group, _Part(cost, charged, from_allowance)


def _costs_then(
    entry: JournalEntry,
    groups: Sequence[Sequence[UsageMetrics]],
    plan: str | None,
    then: Callable[[int], PricingEngine | None],
) -> list[int] | None:
    engine = then(entry.version)
    if engine is None:
        return None
    try:
        costs = [engine.total_micro_of(group, plan) for group in groups]
    except CreditError:
        return None
    return costs if sum(costs) == entry.amount else None


def _shares(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` divided by weights, to the last micro-credit."""
    total, so_far, given = sum(weights), 0, 0
    shares = []
    for weight in weights:
        so_far += weight
        reached = amount * so_far // total if total else 0
        shares.append(reached - given)
        given = reached
    return shares


def _rows(table: _Table[str | None]) -> tuple[ReplayRow, ...]:
    rows = [sums.row(name) for name, sums in table.sums.items()]
    rows.sort(key=lambda row: (-abs(row.difference), row.name or ""))
    if table.others.charges:
        rows.append(table.others.row(None, others=True))
    return tuple(rows)


def _reasons(table: _Table[str], others: str) -> list[tuple[str, _Sums]]:
    reasons = sorted(table.sums.items(), key=lambda each: (-each[1].charges, each[0]))
    if table.others.charges:
        reasons.append((others, table.others))
    return reasons
