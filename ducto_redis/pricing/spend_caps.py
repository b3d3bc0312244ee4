"""The spend caps of a plan: limits on what may be spent in a window."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from msgspec import Struct

from ducto_redis.pricing.reading import Section, refuse
from ducto_redis.pricing.resolution import DEFAULT, WILDCARD, cap_model, resolve
from ducto_redis.suggestions import there_are
from ducto_redis.windows import TOTAL, WINDOWS

Window: TypeAlias = Literal["minute", "hour", "day", "week", "month", "total"]
CapAction: TypeAlias = Literal["deny", "warn", "notify"]
CapScope: TypeAlias = Literal["account", "member"]

ACTIONS = ("deny", "warn", "notify")
SCOPES = ("account", "member")
MAX_CAPS = 16
"""How many spend caps may count the same: the account, each member, or one model."""


class SpendCap(Struct, frozen=True, kw_only=True):
    """A limit on what may be spent in a window.

    Attributes:
        window: how long it counts; "total" is for ever.
        limit: credits.
        action: what passing it does.
        rolling: whether the window ends now, instead of following the calendar.
        scope: whether it counts for the account, or for each of its members.
        model: the one model that it counts for the account, in all its versions; None for all models.
        time_zone: where the calendar is read, an IANA name; None: where the plan's is.
    """

    window: Window
    limit: Decimal
    action: CapAction = "deny"
    rolling: bool = False
    scope: CapScope = "account"
    model: str | None = None
    time_zone: str | None = None


def read_spend_caps(
    section: Section, time_zone: str, models: Mapping[str, str], overrides: Mapping[str, str]
) -> tuple[SpendCap, ...]:
    """Read and check the spend caps of the plan that `section` is of.

    Args:
        section: the plan's.
        time_zone: the plan's own.
        models: the document's, by name.
        overrides: the plan's own rates, by model.

    Raises:
        ConfigError: for the first mistake, with its path.
    """
    seen: dict[tuple[object, ...], str] = {}
    counts: dict[tuple[str, str], int] = {}

    def read(value: object, path: str) -> SpendCap:
        cap = _spend_cap(Section(value, path, section.mistakes), {**models, **overrides})
        counted = (cap.scope, cap_model(cap.model, models, overrides) if cap.model is not None else "")
        first = seen.setdefault((*counted, cap.window, cap.rolling, cap.action), path)
        if first != path:
            refuse(path, f"does the same in the same window as {first}; give one of the two")
        counts[counted] = counts.get(counted, 0) + 1
        if counts[counted] > MAX_CAPS:
            refuse(path, f"a plan has at most {MAX_CAPS} spend caps that count the same")
        return cap

    return tuple(section.items_of("spend_caps", read))


def wrong_cap_model(model: str, models: Collection[str]) -> str:
    """Return why a spend cap cannot count a model: nothing could ever price it, so that the cap would limit nothing.

    Where `_default` prices whatever is not named, any model may be meant. Empty where nothing is wrong.

    Args:
        model: the model's name.
        models: the entries that price models, also those of plans.
    """
    if model == DEFAULT or model.endswith(WILDCARD):
        return f"a spend cap counts one model or all, not {model!r}"
    if resolve(model, models) is None:
        return f"the document prices no model {model!r}; it prices {there_are(model, models)}"
    return ""


def _spend_cap(section: Section, models: Mapping[str, str]) -> SpendCap:
    if not (section.has("window") and section.has("limit")):
        refuse(section.path, "a spend cap needs a window and a limit")
    cap = SpendCap(
        window=cast("Window", section.one_of("window", WINDOWS)),
        limit=section.credits("limit") or Decimal("0.000000"),
        action=cast("CapAction", section.one_of("action", ACTIONS) or "deny"),
        rolling=section.boolean("rolling") or False,
        scope=cast("CapScope", section.one_of("scope", SCOPES) or "account"),
        model=section.name("model"),
        time_zone=section.time_zone("time_zone"),
    )
    section.end()
    if cap.rolling and cap.window == TOTAL:
        refuse(section.at("rolling"), "the window 'total' never ends, so it cannot roll")
    if cap.model is not None:
        if wrong := wrong_cap_model(cap.model, models):
            refuse(section.at("model"), wrong)
        if cap.scope == "member":
            refuse(section.at("model"), "a spend cap of members counts all models; one of a model is the account's")
    return cap
