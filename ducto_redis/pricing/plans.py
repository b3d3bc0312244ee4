"""The plans of a document: allowance, features, limits and rates that an account is assigned."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from msgspec import Struct, field

from ducto_redis.pricing.entries import read_formulas
from ducto_redis.pricing.exact import LiteralError
from ducto_redis.pricing.loading import exact_number
from ducto_redis.pricing.reading import Mistakes, Section, join, kind_of, mapping, refuse
from ducto_redis.pricing.resolution import WILDCARD, resolve
from ducto_redis.pricing.spend_caps import SpendCap, read_spend_caps
from ducto_redis.suggestions import did_you_mean
from ducto_redis.windows import ANCHORS, PERIODS

BillingMode: TypeAlias = Literal["strict", "overdraft"]
Period: TypeAlias = Literal["day", "week", "month"]
Anchor: TypeAlias = Literal["calendar", "assignment"]

BILLING_MODES = ("strict", "overdraft")

_NO_CREDITS = Decimal("0.000000")
# As a period it means the usual one, anchored.
_ASSIGNMENT = "assignment"


class OperationLimits(Struct, frozen=True, kw_only=True):
    """A plan's exceptions for one type of operation. None: as the plan says."""

    billing_mode: BillingMode | None = None
    overdraft_floor: Decimal | None = None
    max_concurrent: int | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """The terms of a plan: allowance, caps, limits and features of its accounts.

    Attributes:
        id: what accounts are assigned by.
        name: what people read.
        free_allowance: credits per period, spent before the balance.
        period: how long an allowance lasts.
        anchor: whether periods follow the calendar, or the day when the plan was assigned.
        time_zone: where the periods begin, an IANA name.
        rollover: credits of unused allowance that the next period may take over, at most.
        rate_overrides: formulas by model, in place of the document's.
        features: what the plan has, by name.
        default_billing_mode: whether the balance may go below 0; None: as the manager says.
        overdraft_floor: how far below, in credits, zero or less; None: as the manager says.
        max_concurrent: how many leases may be open at once; None: any number.
        per_operation: what differs for a type of operation.
        spend_caps: limits on what may be spent in a window.
    """

    id: str
    name: str
    free_allowance: Decimal = Decimal("0.000000")
    period: Period = "month"
    anchor: Anchor = "calendar"
    time_zone: str = "UTC"
    rollover: Decimal = Decimal("0.000000")
    rate_overrides: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, object] = field(default_factory=dict)
    default_billing_mode: BillingMode | None = None
    overdraft_floor: Decimal | None = None
    max_concurrent: int | None = None
    per_operation: Mapping[str, OperationLimits] = field(default_factory=dict)
    spend_caps: tuple[SpendCap, ...] = ()


def read_plan(
    key: str,
    value: object,
    path: str,
    *,
    models: Mapping[str, str],
    own_measures: frozenset[str],
    mistakes: Mistakes,
) -> Plan:
    """Read and check the plan that stands at `path` under `key`.

    Args:
        key: its id.
        value: what stands there.
        path: where it stands.
        models: the document's formulas by model.
        own_measures: those that the document declares.
        mistakes: lets the first mistake pass, or collects it.

    Raises:
        ConfigError, ExpressionError: for the first mistake, with its path.
    """
    section = Section(value, path, mistakes)
    plan_id = section.text("id")
    with mistakes:
        if plan_id is not None and plan_id != key:
            refuse(section.at("id"), f"must be {key!r}, the key of the plan, not {plan_id!r:.200}")
    period, anchor = _period(section)
    allowance = section.credits("free_allowance")
    time_zone = section.time_zone("time_zone") or "UTC"
    overrides = _rate_overrides(section, models, own_measures)
    plan = Plan(
        id=key,
        name=section.text("name") or key,
        free_allowance=allowance or _NO_CREDITS,
        period=period,
        anchor=anchor,
        time_zone=time_zone,
        rollover=_rollover(section),
        rate_overrides=overrides,
        features=section.entries_of("features", lambda _, each, at: _feature(each, at, depth=0)),
        default_billing_mode=_billing_mode(section),
        overdraft_floor=section.credits("overdraft_floor", negative=True),
        max_concurrent=section.count("max_concurrent"),
        per_operation=section.entries_of("per_operation", lambda _, each, at: _operation(each, at, mistakes)),
        spend_caps=read_spend_caps(section, time_zone, models, overrides),
    )
    section.end()
    with mistakes:
        if plan.rollover and not plan.free_allowance and (allowance is not None or not section.has("free_allowance")):
            refuse(section.at("rollover"), "there is no free_allowance above 0 that could be left over")
    _check_floors(plan, section)
    return plan


def _check_floors(plan: Plan, section: Section) -> None:
    """Refuse a floor below zero where the billing mode that it stands beside never lets the balance get there."""
    operations = plan.per_operation.values()
    uses_plans_floor = any(each.billing_mode == "overdraft" and each.overdraft_floor is None for each in operations)
    with section.mistakes:
        if plan.default_billing_mode == "strict" and plan.overdraft_floor and not uses_plans_floor:
            refuse(section.at("overdraft_floor"), "contradicts default_billing_mode, which is 'strict'")
    for name, operation in plan.per_operation.items():
        with section.mistakes:
            path = join(join(section.at("per_operation"), name), "overdraft_floor")
            if operation.overdraft_floor and operation.billing_mode == "strict":
                refuse(path, "contradicts billing_mode, which is 'strict'")
            if operation.overdraft_floor and operation.billing_mode is None and plan.default_billing_mode == "strict":
                refuse(path, "contradicts the plan's default_billing_mode, which is 'strict'; give a billing_mode too")


def _billing_mode(section: Section) -> BillingMode | None:
    mode = section.one_of("default_billing_mode", BILLING_MODES)
    alias = section.one_of("billing_mode", BILLING_MODES)
    with section.mistakes:
        if mode is not None and alias is not None and mode != alias:
            path = section.at("billing_mode")
            refuse(path, f"contradicts default_billing_mode, which is {mode!r}; give one of the two")
    return cast("BillingMode | None", mode or alias)


def _period(section: Section) -> tuple[Period, Anchor]:
    period = section.one_of("period", (*PERIODS, _ASSIGNMENT))
    anchor = section.one_of("anchor", ANCHORS)
    if period != _ASSIGNMENT:
        return cast("Period", period or "month"), cast("Anchor", anchor or "calendar")
    with section.mistakes:
        if anchor == "calendar":
            refuse(section.at("anchor"), "contradicts the period, which is 'assignment'")
    return "month", "assignment"


def _rollover(section: Section) -> Decimal:
    if section.take("rollover") == "none":
        return _NO_CREDITS
    return section.credits("rollover") or _NO_CREDITS


def _rate_overrides(section: Section, models: Mapping[str, str], own_measures: frozenset[str]) -> dict[str, str]:
    overrides = read_formulas(section, "rate_overrides", own_measures, wildcards=True)
    for model in overrides:
        with section.mistakes:
            if not _is_priced(model, models):
                path = join(section.at("rate_overrides"), model)
                refuse(path, f"the document prices no model {model!r}{did_you_mean(model, models)}")
    return overrides


def _is_priced(model: str, models: Mapping[str, str]) -> bool:
    """Return whether the document prices what an override names: a model, or all whose names begin alike."""
    if resolve(model, models) is not None:
        return True
    return model.endswith(WILDCARD) and any(name.startswith(model[:-1]) for name in models)


def _operation(value: object, path: str, mistakes: Mistakes) -> OperationLimits:
    section = Section(value, path, mistakes)
    limits = OperationLimits(
        billing_mode=cast("BillingMode | None", section.one_of("billing_mode", BILLING_MODES)),
        overdraft_floor=section.credits("overdraft_floor", negative=True),
        max_concurrent=section.count("max_concurrent"),
    )
    section.end()
    return limits


def _feature(value: object, path: str, depth: int) -> object:
    if depth > 20:
        refuse(path, "a feature nests at most 20 deep")
    if value is None or isinstance(value, bool | str):
        if isinstance(value, str) and any(0xD800 <= ord(character) < 0xE000 for character in value):
            refuse(path, "must be valid Unicode")
        return value
    if isinstance(value, Mapping):
        return {key: _feature(each, join(path, key), depth + 1) for key, each in mapping(value, path).items()}
    if isinstance(value, list | tuple):
        return [_feature(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(value)]
    try:
        exact = exact_number(value)
    except LiteralError as error:
        refuse(path, str(error))
    if exact is None:
        refuse(path, f"must be a JSON value, not {kind_of(value)}")
    return exact
