"""The plans of a document: allowance, features, limits and rates that an account is assigned."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypeAlias, cast
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from ducto_redis.pricing.entries import read_formulas
from ducto_redis.pricing.exact import LiteralError
from ducto_redis.pricing.loading import exact_number
from ducto_redis.pricing.reading import Section, join, kind_of, mapping, refuse
from ducto_redis.pricing.resolution import resolve
from ducto_redis.pricing.suggestions import did_you_mean

BillingMode: TypeAlias = Literal["strict", "overdraft"]
Period: TypeAlias = Literal["day", "week", "month"]
Anchor: TypeAlias = Literal["calendar", "assignment"]
Window: TypeAlias = Literal["minute", "hour", "day", "week", "month", "total"]
CapAction: TypeAlias = Literal["deny", "warn", "notify"]
CapScope: TypeAlias = Literal["account", "member"]

BILLING_MODES = ("strict", "overdraft")
PERIODS = ("day", "week", "month")
ANCHORS = ("calendar", "assignment")
WINDOWS = ("minute", "hour", "day", "week", "month", "total")
ACTIONS = ("deny", "warn", "notify")
SCOPES = ("account", "member")


class SpendCap(Struct, frozen=True, kw_only=True):
    """A limit on what may be spent in a window.

    Attributes:
        window: how long it counts; "total" is for ever.
        limit: credits.
        action: what passing it does.
        rolling: whether the window ends now, instead of following the calendar.
        scope: whether it counts for the account, or for each of its members.
        model: the model that it counts, or None for all.
    """

    window: Window
    limit: Decimal
    action: CapAction = "deny"
    rolling: bool = False
    scope: CapScope = "account"
    model: str | None = None


class OperationLimits(Struct, frozen=True, kw_only=True):
    """What differs from the plan for one type of operation. None: as the plan says."""

    billing_mode: BillingMode | None = None
    overdraft_floor: Decimal | None = None
    max_concurrent: int | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """What accounts of a plan get.

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


def read_plan(key: str, value: object, path: str, models: Mapping[str, str], own_measures: frozenset[str]) -> Plan:
    """Read and check the plan that stands at `path` under `key`.

    Raises:
        ConfigError, ExpressionError: for the first mistake, with its path.
    """
    section = Section(value, path)
    plan_id = section.text("id")
    if plan_id is not None and plan_id != key:
        refuse(section.at("id"), f"must be {key!r}, the key of the plan, not {plan_id!r:.200}")
    plan = Plan(
        id=key,
        name=section.text("name") or key,
        free_allowance=section.credits("free_allowance") or Decimal("0.000000"),
        period=cast("Period", section.one_of("period", PERIODS) or "month"),
        anchor=cast("Anchor", section.one_of("anchor", ANCHORS) or "calendar"),
        time_zone=_time_zone(section),
        rollover=_rollover(section),
        rate_overrides=_rate_overrides(section, models, own_measures),
        features={
            name: _feature(each, feature_path, depth=0) for name, feature_path, each in section.entries("features")
        },
        default_billing_mode=_billing_mode(section),
        overdraft_floor=section.credits("overdraft_floor", negative=True),
        max_concurrent=section.count("max_concurrent"),
        per_operation={name: _operation(each, at) for name, at, each in section.entries("per_operation")},
        spend_caps=tuple(_spend_cap(each, at, models) for at, each in section.items("spend_caps")),
    )
    section.end()
    return plan


def _billing_mode(section: Section) -> BillingMode | None:
    mode = section.one_of("default_billing_mode", BILLING_MODES)
    alias = section.one_of("billing_mode", BILLING_MODES)
    if mode is not None and alias is not None and mode != alias:
        refuse(section.at("billing_mode"), f"contradicts default_billing_mode, which is {mode!r}; give one of the two")
    return cast("BillingMode | None", mode or alias)


def _time_zone(section: Section) -> str:
    name = section.text("time_zone")
    if name is None:
        return "UTC"
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a malformed name, an unknown one
        refuse(section.at("time_zone"), f"must be an IANA time zone such as 'Europe/Berlin', not {name!r:.60}")
    return name


def _rollover(section: Section) -> Decimal:
    if isinstance(section.take("rollover"), str) and section.text("rollover") == "none":
        return Decimal("0.000000")
    return section.credits("rollover") or Decimal("0.000000")


def _rate_overrides(section: Section, models: Mapping[str, str], own_measures: frozenset[str]) -> dict[str, str]:
    overrides = read_formulas(section, "rate_overrides", own_measures, wildcards=True)
    for model in overrides:
        if model not in models and resolve(model, models) is None:
            path = join(section.at("rate_overrides"), model)
            refuse(path, f"the document prices no model {model!r}{did_you_mean(model, models)}")
    return overrides


def _operation(value: object, path: str) -> OperationLimits:
    section = Section(value, path)
    limits = OperationLimits(
        billing_mode=cast("BillingMode | None", section.one_of("billing_mode", BILLING_MODES)),
        overdraft_floor=section.credits("overdraft_floor", negative=True),
        max_concurrent=section.count("max_concurrent"),
    )
    if limits.billing_mode == "strict" and limits.overdraft_floor:
        refuse(section.at("overdraft_floor"), "contradicts billing_mode, which is 'strict'")
    section.end()
    return limits


def _spend_cap(value: object, path: str, models: Mapping[str, str]) -> SpendCap:
    section = Section(value, path)
    window = section.one_of("window", WINDOWS)
    limit = section.credits("limit")
    model = section.text("model")
    if window is None or limit is None:
        refuse(path, "a spend cap needs a window and a limit")
    if model is not None and resolve(model, models) is None:
        refuse(section.at("model"), f"the document prices no model {model!r}")
    rolling = section.boolean("rolling") or False
    if rolling and window == "total":
        refuse(section.at("rolling"), "the window 'total' never ends, so it cannot roll")
    cap = SpendCap(
        window=cast("Window", window),
        limit=limit,
        action=cast("CapAction", section.one_of("action", ACTIONS) or "deny"),
        rolling=rolling,
        scope=cast("CapScope", section.one_of("scope", SCOPES) or "account"),
        model=model,
    )
    section.end()
    return cap


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
