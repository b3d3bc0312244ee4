"""Conditions as scripts take them, see `lua/lib/conditions.lua` and `lua/lib/plan_terms.lua`."""

from ducto_redis.engine.operation import PLAIN, Conditions, Terms
from ducto_redis.engine.text import ITEM_SEPARATOR, LIST_SEPARATOR, RECORD_SEPARATOR


def encode_conditions(conditions: Conditions) -> str:
    """Return the conditions as one argument of a script; empty for `PLAIN` alone."""
    if conditions is PLAIN:
        return ""
    return LIST_SEPARATOR.join(
        (
            "1" if conditions.opens else "0",
            str(conditions.bonus),
            str(conditions.activation),
            conditions.plan,
            conditions.member,
            ITEM_SEPARATOR.join(f"{name}{ITEM_SEPARATOR}{amount}" for name, amount in conditions.models),
            "" if conditions.max_concurrent is None else str(conditions.max_concurrent),
            " ".join(map(str, conditions.low_levels)),
            "1" if conditions.skip_allowance else "0",
            conditions.parent,
            "" if conditions.terms is None else _encode_terms(conditions.terms),
        )
    )


def _encode_terms(terms: Terms) -> str:
    period = terms.period
    parts = [
        terms.plan,
        str(terms.activation),
        terms.time_zone,
        str(terms.allowance),
        str(terms.rollover),
        str(period.start_ms if period else 0),
        str(period.end_ms if period else 0),
        str(len(terms.caps)),
    ]
    for cap in terms.caps:
        parts += (cap.scope, cap.window, "1" if cap.rolling else "0", cap.action, cap.time_zone, str(cap.limit))
    for name, bounds in terms.bounds:
        parts += (name, str(bounds.start_ms), str(bounds.end_ms))
    return RECORD_SEPARATOR.join(parts)
