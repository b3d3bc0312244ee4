"""The pricing document: what is priced by which formula, and the plans.

`PricingDocument.from_json`, `.from_yaml` and `.from_dict` read and check everything; a document that exists is right.
"""

import json
import keyword
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path

from msgspec import Struct, field, structs

from ducto_redis.errors import ConfigError
from ducto_redis.pricing.entries import read_formula, read_formulas
from ducto_redis.pricing.grammar import RESERVED
from ducto_redis.pricing.loading import load_json, load_yaml
from ducto_redis.pricing.measures import NUMBERS, TEXTS
from ducto_redis.pricing.plans import OperationLimits, Plan, read_plan
from ducto_redis.pricing.reading import Mistakes, Section, credits, kind_of, refuse
from ducto_redis.pricing.resolution import cap_model
from ducto_redis.pricing.spend_caps import SpendCap
from ducto_redis.suggestions import there_are

_NO_CREDITS = Decimal("0.000000")
_LOADERS = {".json": load_json, ".yaml": load_yaml, ".yml": load_yaml}
_MEASURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class PricingDocument(Struct, frozen=True, kw_only=True):
    """A checked pricing document. Formulas are texts, credits are Decimals with six places.

    Attributes:
        version: the author's own number for it; the numbers that publishing gives are others.
        measures: names of its own measures.
        models: formulas by model.
        tools: formulas by tool.
        search: the formula of searches, or None.
        cache_discount: the formula of the rebate for cached tokens, or None.
        fixed: credits by job.
        min_balance: the floor of strict accounts, in credits.
        signup_bonus: credits that a new account gets.
        credits_per_dollar: how many credits a dollar of a provider's list price is, or None. It prices nothing: checks
            compare formulas with list prices by it.
        default_plan: the plan of accounts that were assigned none, or None.
        plans: plans by id.
    """

    version: int = 1
    measures: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    search: str | None = None
    cache_discount: str | None = None
    fixed: Mapping[str, Decimal] = field(default_factory=dict)
    min_balance: Decimal = _NO_CREDITS
    signup_bonus: Decimal = _NO_CREDITS
    credits_per_dollar: Decimal | None = None
    default_plan: str | None = None
    plans: Mapping[str, Plan] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> "PricingDocument":
        """Read a document from plain Python values. A float counts as its shortest representation.

        Raises:
            ConfigError: for what is no pricing document, with the path of the mistake.
            ExpressionError: for what is no formula, with path and position.
        """
        return _read(document)

    @classmethod
    def from_json(cls, text: str | bytes) -> "PricingDocument":
        """Read a document from JSON text. Numbers are read exactly; a key given twice is refused.

        Raises:
            ConfigError, ExpressionError: as `from_dict`.
        """
        return _read(load_json(text))

    @classmethod
    def from_yaml(cls, text: str | bytes) -> "PricingDocument":
        """Read a document from YAML 1.2 text. Aliases, tags and a key given twice are refused.

        Raises:
            ConfigError, ExpressionError: as `from_dict`; and where the extra `yaml` is not installed.
        """
        return _read(load_yaml(text))

    @classmethod
    def from_file(cls, path: str | Path) -> "PricingDocument":
        """Read a document from a file whose name ends in .json, .yaml or .yml.

        Raises:
            ConfigError, ExpressionError: as `from_dict`; and where the file cannot be read.
        """
        return _read(_load_file(path))

    @staticmethod
    def problems(source: Mapping[str, object] | str | Path) -> list[str]:
        """Return everything that is wrong with a document, each with its path, in the order of reading.

        The first is what `from_dict` or `from_file` raises. A file that cannot be read as JSON or YAML has one problem.

        Args:
            source: the document as plain Python values, or the path of its file.

        Returns:
            The messages; none for a document that is right.

        >>> PricingDocument.problems({"models": {"m": "tokns"}, "plan": {}})
        ["models.m: unknown measure 'tokns' (at character 0)", "plan: unknown key; did you mean 'plans'?"]
        """
        mistakes = Mistakes(collect=True)
        with mistakes:
            _read(_load_file(source) if isinstance(source, str | Path) else source, mistakes)
        return mistakes.found

    @property
    def plans_models(self) -> dict[str, str]:
        """The entries by which plans price models in their own way, in the document's order."""
        return {entry: text for plan in self.plans.values() for entry, text in plan.rate_overrides.items()}

    def cap_model(self, model: str) -> str:
        """Return the name under which spend caps count the usage of a model: see `PricingEngine.cap_model`."""
        return cap_model(model, self.models, self.plans_models)

    def to_json(self) -> str:
        """Return the document as JSON: ASCII, keys sorted, exact, without what is at its default.

        It reads back as an equal document, and equal documents give equal text.
        """
        values: dict[str, object] = {"version": self.version, "models": self.models}
        values |= {
            key: getattr(self, key)
            for key in (
                "measures",
                "tools",
                "fixed",
                "min_balance",
                "signup_bonus",
                "credits_per_dollar",
                "default_plan",
            )
            if getattr(self, key)
        }
        if self.search is not None:
            values["search"] = {"costs": self.search}
        if self.cache_discount is not None:
            values["cache"] = {"discount": self.cache_discount}
        if self.plans:
            values["plans"] = self.plans
        return _json(values)


def _read(value: object, mistakes: Mistakes | None = None) -> PricingDocument:
    """Read and check a document. Where mistakes are collected, what is returned is right only if there are none."""
    mistakes = mistakes or Mistakes()
    if not isinstance(value, Mapping):
        refuse("", f"must be an object, not {kind_of(value)}")
    section = Section(value, "", mistakes)
    version = section.count("version") or 1
    measures = tuple(_measures(section))
    own = frozenset(measures)
    models = read_formulas(section, "models", own, wildcards=True)
    tools = read_formulas(section, "tools", own)
    search = _formula_in(section, "search", "costs", own)
    discount = _formula_in(section, "cache", "discount", own)
    fixed = section.entries_of("fixed", lambda _, each, path: credits(each, path))
    read_one = partial(read_plan, models=models, own_measures=own, mistakes=mistakes)
    plans = section.entries_of("plans", read_one)
    default_plan = section.text("default_plan")
    plan_ids = section.keys("plans")
    with mistakes:
        if default_plan is not None and default_plan not in plan_ids:
            plans_there_are = there_are(default_plan, plan_ids)
            refuse("default_plan", f"there is no plan {default_plan!r:.200}; there are {plans_there_are}")
    document = PricingDocument(
        version=version,
        measures=measures,
        models=models,
        tools=tools,
        search=search,
        cache_discount=discount,
        fixed=fixed,
        min_balance=section.credits("min_balance") or _NO_CREDITS,
        signup_bonus=section.credits("signup_bonus") or _NO_CREDITS,
        credits_per_dollar=section.credits("credits_per_dollar"),
        default_plan=default_plan,
        plans=plans,
    )
    section.end()
    with mistakes:
        if not any(section.keys(key) for key in ("models", "tools", "search", "fixed")):
            refuse("", "prices nothing; it needs at least one of models, tools, search and fixed")
    return document


def _measures(section: Section) -> list[str]:
    names: list[str] = []

    def read(name: object, path: str) -> str:
        if not isinstance(name, str):
            refuse(path, f"must be a name, not {kind_of(name)}")
        if not _MEASURE.fullmatch(name):
            refuse(path, f"a measure is named by up to 64 letters, digits and underscores, not {name!r:.200}")
        if name in RESERVED or keyword.iskeyword(name):
            refuse(path, f"{name!r} is a word of the grammar; choose another name")
        if name in NUMBERS or name in TEXTS:
            refuse(path, f"{name!r} is a built-in measure; leave it out, or choose another name")
        if name in names:
            refuse(path, f"{name!r} is listed twice")
        names.append(name)
        return name

    return section.items_of("measures", read)


def _formula_in(section: Section, key: str, inner: str, own: frozenset[str]) -> str | None:
    inner_section = section.section(key)
    if inner_section is None:
        return None
    value = inner_section.take(inner)
    inner_section.end()
    with section.mistakes:
        if value is None:
            refuse(inner_section.at(inner), "is missing")
        return read_formula(value, inner_section.at(inner), own).text
    return None


def _load_file(path: str | Path) -> object:
    path = Path(path)
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise ConfigError(f"a pricing document's file ends in .json, .yaml or .yml, not {path.name!r}")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
    return loader(text)


def _json(value: object) -> str:
    if isinstance(value, Plan | OperationLimits | SpendCap):
        value = _given(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return json.dumps(value)


def _given(struct: Plan | OperationLimits | SpendCap) -> dict[str, object]:
    """Return the fields of a struct that are not at their defaults."""
    given: dict[str, object] = {}
    for each in structs.fields(struct):
        value = getattr(struct, each.name)
        if value != each.default and not (isinstance(value, Mapping) and not value):
            given[each.name] = value
    return given
