"""The manager's part: a few plans, and what they mean at a time. Calendars are simple: a window has one length."""

from dataclasses import dataclass

from ducto_redis.engine.operation import Bounds, CapRule, Terms
from tests.model.caps import WINDOW_LENGTHS

ZONES = {"": 0, "UTC": 0, "Europe/Berlin": WINDOW_LENGTHS["hour"]}


@dataclass(frozen=True)
class PlanDefinition:
    allowance: int = 0
    window: str = ""
    """How long a period is; empty for none."""
    rollover: int = 0
    anchored: bool = False
    """Whether periods begin when the plan was assigned."""
    caps: tuple[CapRule, ...] = ()


def plans(activation: int) -> dict[str, PlanDefinition]:
    """The plans of a document: its limits change from one to the next."""
    more = 5 * (activation % 3)
    day = CapRule("account", "day", 30 + more)
    per_member = CapRule("members", "day", 12 + more)
    capped = (day, CapRule("account", "hour", 9, "warn"), CapRule("model/gpt", "day", 15, rolling=True), per_member)
    return {
        "free": PlanDefinition(20 + more, "day"),
        "pro": PlanDefinition(30, "week", rollover=25, caps=(day, CapRule("model/gpt", "hour", 8, "notify"))),
        "anchored": PlanDefinition(10 + more, "day", rollover=100, anchored=True),
        "capped": PlanDefinition(8, "hour", caps=capped if activation % 2 else capped[:1]),
        "bare": PlanDefinition(),
    }


def window(name: str, now: int) -> Bounds:
    """The calendar window that runs, by `day@Europe/Berlin`."""
    kind, _, zone = name.partition("@")
    length = WINDOW_LENGTHS[kind]
    start = (now + ZONES[zone]) // length * length - ZONES[zone]
    return Bounds(start, start + length)


def terms_of(plan: str, activation: int, zone: str, assigned: int, now: int, windows: tuple[str, ...]) -> Terms:
    """What a manager sends when the engine asks."""
    zone = zone or "UTC"
    definition = plans(activation)[plan] if plan else PlanDefinition()
    period = None
    if definition.window:
        period = window(f"{definition.window}@{zone}", now)
        if definition.anchored:
            length = WINDOW_LENGTHS[definition.window]
            start = now - (now - (assigned or now)) % length
            period = Bounds(start, start + length)
    needed = {f"{rule.window}@{rule.time_zone}" for rule in definition.caps if not rule.rolling} | set(windows)
    return Terms(
        plan,
        activation if plan else 0,
        zone,
        definition.allowance,
        definition.rollover,
        period,
        definition.caps,
        tuple((name, window(name, now)) for name in sorted(needed) if not name.startswith("total@")),
    )
