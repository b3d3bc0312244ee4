"""Terms: the meaning of a plan for an account at a time, sent to the engine, which knows no plans and time zones."""

from collections.abc import Iterable

from ducto_redis.engine.operation import Bounds, CapRule, Terms
from ducto_redis.errors import TermsNeeded
from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.money import to_signed_micro
from ducto_redis.pricing import Plan, PricingEngine
from ducto_redis.windows import TOTAL, period_bounds, window_bounds


def terms_of(pricing: Pricing | None, plan_id: str, asked: TermsNeeded) -> Terms:
    """Return the terms of a plan, for the account and the time that the engine asked about.

    A plan that is missing in the document gives nothing: no allowance, no caps.

    Args:
        pricing: the active document, or None if none was published.
        plan_id: the plan; empty for none.
        asked: the engine's question. Not yet assigned means now.

    Raises:
        ConfigError: for a time zone that is unknown on this machine.
    """
    plan = None if pricing is None else pricing.plan(plan_id)
    activation = 0 if pricing is None else pricing.activation
    if pricing is None or plan is None:
        return Terms(plan_id, activation, bounds=_bounds(asked.windows, asked.now_ms))
    zone = asked.time_zone or plan.time_zone
    caps = tuple(_plan_caps(pricing.engine, plan, zone))
    windows = {f"{cap.window}@{cap.time_zone}" for cap in caps if not cap.rolling and cap.window != TOTAL}
    period = None
    if plan.free_allowance:
        assigned_ms = asked.assigned_ms or asked.now_ms
        period = Bounds(*period_bounds(plan.period, plan.anchor, zone, assigned_ms, asked.now_ms))
    return Terms(
        plan_id,
        activation,
        plan.time_zone,
        to_signed_micro(plan.free_allowance),
        to_signed_micro(plan.rollover),
        period,
        caps,
        _bounds(sorted(windows.union(asked.windows)), asked.now_ms),
    )


def _plan_caps(engine: PricingEngine, plan: Plan, zone: str) -> Iterable[CapRule]:
    for cap in plan.spend_caps:
        scope = "members" if cap.scope == "member" else "account"
        if cap.model is not None:
            scope = f"model/{engine.cap_model(cap.model)}"
        yield CapRule(scope, cap.window, to_signed_micro(cap.limit), cap.action, cap.rolling, cap.time_zone or zone)


def _bounds(windows: Iterable[str], at_ms: int) -> tuple[tuple[str, Bounds], ...]:
    bounds = []
    for name in windows:
        window, _, zone = name.partition("@")
        bounds.append((name, Bounds(*window_bounds(window, zone, at_ms))))
    return tuple(bounds)
