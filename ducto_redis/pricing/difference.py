"""The difference between two pricing documents."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct, structs

from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.formula import Formula
from ducto_redis.pricing.plans import Plan
from ducto_redis.pricing.rates import Rate, compare_rates, linear_rates
from ducto_redis.pricing.reading import join
from ducto_redis.pricing.resolution import DEFAULT, resolve, resolve_named
from ducto_redis.pricing.spend_caps import SpendCap

ChangeKind: TypeAlias = Literal["added", "removed", "changed"]

SECTIONS = ("measures", "models", "tools", "search", "cache", "fixed", "plans", "settings")
"""In the order in which changes are told."""

_SETTINGS = ("version", "min_balance", "signup_bonus", "credits_per_dollar", "default_plan")


class DocumentChange(Struct, frozen=True, kw_only=True):
    """One thing that differs between two pricing documents.

    Attributes:
        section: which part of the document it stands in, one of `SECTIONS`.
        path: its place, such as `models.gpt-4o` or `plans.pro.free_allowance`.
        kind: added, removed or changed.
        before, after: what stands there; None where nothing does.
        priced_before, priced_after: where its price comes from in a document that does not name it: another entry's
            path; None where the document names it, or does not price it at all.
        rates: prices before and after, where both are sums of measures times constants.
        same_price: whether it only says the same in other words.
    """

    section: str
    path: str
    kind: ChangeKind
    before: object = None
    after: object = None
    priced_before: str | None = None
    priced_after: str | None = None
    rates: tuple[Rate, ...] = ()
    same_price: bool = False


def compare_documents(before: PricingDocument, after: PricingDocument) -> list[DocumentChange]:
    """Return everything that differs, in the order of `SECTIONS`, and by name in each.

    A model that only one of the documents names is compared with what prices it in the other: an entry `name*`, or
    `_default`.
    """
    comparison = _Comparison(before, after)
    return [
        *comparison.measures(),
        *comparison.formulas("models", "models", before.models, after.models),
        *comparison.formulas("tools", "tools", before.tools, after.tools),
        *comparison.formulas("search", "search", _named("costs", before.search), _named("costs", after.search)),
        *comparison.formulas(
            "cache", "cache", _named("discount", before.cache_discount), _named("discount", after.cache_discount)
        ),
        *_values("fixed", "fixed", before.fixed, after.fixed),
        *comparison.plans(),
        *_values("settings", "", _settings(before), _settings(after)),
    ]


class _Comparison:
    def __init__(self, before: PricingDocument, after: PricingDocument) -> None:
        self._before = before
        self._after = after
        self._own_before = frozenset(before.measures)
        self._own_after = frozenset(after.measures)

    def measures(self) -> Iterator[DocumentChange]:
        for name in sorted(self._own_before ^ self._own_after):
            added = name in self._own_after
            yield DocumentChange(
                section="measures",
                path=join("measures", name),
                kind="added" if added else "removed",
                before=None if added else name,
                after=name if added else None,
            )

    def formulas(
        self,
        section: str,
        path: str,
        before: Mapping[str, str],
        after: Mapping[str, str],
        *,
        base: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
    ) -> Iterator[DocumentChange]:
        """Compare formulas by name. `base` holds, for a plan's, the document's own that they stand in place of."""
        for name in sorted(before.keys() | after.keys()):
            old, old_path = _priced(name, path, before, base[0], section)
            new, new_path = _priced(name, path, after, base[1], section)
            if name in before and name in after and old == new:
                continue
            rates, same = self._rates(old, new)
            yield DocumentChange(
                section=section.partition(".")[0],
                path=join(path, name),
                kind="added" if name not in before else "removed" if name not in after else "changed",
                before=old,
                after=new,
                priced_before=None if name in before else old_path,
                priced_after=None if name in after else new_path,
                rates=rates,
                same_price=same,
            )

    def plans(self) -> Iterator[DocumentChange]:
        before, after = self._before.plans, self._after.plans
        for plan_id in sorted(before.keys() | after.keys()):
            path = join("plans", plan_id)
            old, new = before.get(plan_id), after.get(plan_id)
            if old is None or new is None:
                kind: ChangeKind = "added" if old is None else "removed"
                yield DocumentChange(section="plans", path=path, kind=kind, before=_given(old), after=_given(new))
                continue
            base = self._before.models, self._after.models
            overrides = join(path, "rate_overrides")
            yield from _values("plans", path, _fields(old), _fields(new))
            yield from self.formulas("plans", overrides, old.rate_overrides, new.rate_overrides, base=base)

    def _rates(self, before: str | None, after: str | None) -> tuple[tuple[Rate, ...], bool]:
        if before is None or after is None:
            return (), False
        old = linear_rates(Formula(before, "", self._own_before))
        new = linear_rates(Formula(after, "", self._own_after))
        if old is None or new is None:
            return (), before == after
        return compare_rates(old, new), old == new


def _priced(
    name: str, path: str, formulas: Mapping[str, str], base: Mapping[str, str], section: str
) -> tuple[str | None, str | None]:
    """Return the formula that prices `name`, and its place."""
    if name in formulas:
        return formulas[name], join(path, name)
    entry = None
    if section == "tools" or name == DEFAULT:
        entry = DEFAULT
    elif section == "models":
        entry = resolve(name, formulas)
    elif section == "plans":
        entry = resolve_named(name, formulas)
        if entry is None and resolve(name, base) == DEFAULT:
            entry = DEFAULT
    if entry is not None and entry in formulas:
        return formulas[entry], join(path, entry)
    entry = resolve(name, base) if name != DEFAULT else DEFAULT
    return (base[entry], join("models", entry)) if entry is not None and entry in base else (None, None)


def _values(
    section: str, path: str, before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[DocumentChange]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if (name in before) == (name in after) and _same(old, new):
            continue
        yield DocumentChange(
            section=section,
            path=f"{path}.{name}" if path else name,
            kind="added" if name not in before else "removed" if name not in after else "changed",
            before=old,
            after=new,
        )


def _same(one: object, other: object) -> bool:
    # To Python, True is 1 and False is 0; to whoever asks for a feature they are not.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _named(name: str, formula: str | None) -> dict[str, str]:
    return {} if formula is None else {name: formula}


def _settings(document: PricingDocument) -> dict[str, object]:
    return {name: getattr(document, name) for name in _SETTINGS if getattr(document, name) is not None}


def _fields(plan: Plan) -> dict[str, object]:
    """Everything about a plan but its rates, by path inside of it."""
    fields: dict[str, object] = {}
    for field in structs.fields(plan):
        value = getattr(plan, field.name)
        if field.name in ("id", "rate_overrides") or value is None:
            continue
        if field.name == "spend_caps":
            fields |= _caps(value)
        else:
            fields |= _leaves(field.name, value)
    return fields


def _leaves(path: str, value: Any) -> dict[str, object]:
    if isinstance(value, Struct):
        value = {key: each for key, each in structs.asdict(value).items() if each is not None}
    elif not isinstance(value, Mapping):
        return {path: value}
    leaves: dict[str, object] = {}
    for key, each in value.items():
        leaves |= _leaves(join(path, key), each)
    return leaves


def _caps(caps: tuple[SpendCap, ...]) -> dict[str, object]:
    """Return a cap's limit and action, under the key that tells it from the others."""
    fields: dict[str, object] = {}
    for cap in caps:
        name = f"spend_caps[{_cap_name(cap)}]"
        fields[f"{name}.limit"] = cap.limit
        fields[f"{name}.action"] = cap.action
    return fields


def _cap_name(cap: SpendCap) -> str:
    rolling = "rolling " if cap.rolling else ""
    model = f" {cap.model}" if cap.model is not None else ""
    zone = f" {cap.time_zone}" if cap.time_zone is not None else ""
    return f"{cap.scope} {rolling}{cap.window}{model}{zone}"


def _given(plan: Plan | None) -> dict[str, object] | None:
    """Return the settings of a plan that differ from their defaults."""
    if plan is None:
        return None
    fields: dict[str, object] = {}
    for field in structs.fields(plan):
        value = getattr(plan, field.name)
        if value != field.default and value != () and value != {}:
            fields[field.name] = value
    return fields
