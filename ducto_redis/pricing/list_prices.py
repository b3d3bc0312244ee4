"""List prices of providers, in dollars: the list in the package genai-prices."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from ducto_redis.errors import ConfigError
from ducto_redis.pricing.resolution import WILDCARD, resolve_version
from ducto_redis.suggestions import did_you_mean

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

MAKERS = ("openai", "anthropic", "google", "mistral", "cohere", "deepseek", "x-ai", "groq", "perplexity", "moonshotai")
"""Providers whose lists are read where none is named. Where two have a model of the same name, the first one counts."""

MEASURE_OF_UNIT: Mapping[str, str] = {
    "input_mtok": "input_tokens",
    "output_mtok": "output_tokens",
    "cache_read_mtok": "cache_read_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "cache_write_1h_mtok": "cache_write_1h_tokens",
    "input_audio_mtok": "audio_input_tokens",
    "output_audio_mtok": "audio_output_tokens",
    "cache_audio_read_mtok": "cache_read_audio_tokens",
    "input_image_mtok": "image_input_tokens",
    "output_image_mtok": "image_output_tokens",
    "input_tool_mtok": "tool_prompt_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "input_mchars": "input_characters",
    "audio_hours": "audio_seconds",
    "input_audio_hours": "audio_seconds",
    "output_audio_hours": "audio_seconds",
    "web_searches_kcount": "web_search_calls",
    "storage_searches_kcount": "file_search_calls",
    "rerank_searches_kcount": "search_queries",
    "requests_kcount": "requests",
}
"""What formulas call the units that lists price by. Other units can't be charged by a usage."""

Dollars: TypeAlias = Mapping[str, Decimal]
"""Dollars by unit, each for as many as `units_per` says."""


class Rates(Struct, frozen=True):
    """Prices that hold together.

    Attributes:
        above_input_tokens: the input tokens that a request must exceed for them; 0 for the first.
        dollars: prices by unit.
    """

    above_input_tokens: int
    dollars: Dollars


class ListPrice(Struct, frozen=True):
    """A provider's list price of a model.

    Attributes:
        provider, model: whose, and which.
        names: what else the model is called, as entries of a document: `name*` where it may go on.
        rates: by the size of the input, smallest first.
        by_service_tier: the same for the tiers that cost something else.
        left_out: units that have a price and that no measure counts.
        notes: what about the list cannot be said in one formula.
    """

    provider: str
    model: str
    rates: tuple[Rates, ...]
    names: tuple[str, ...] = ()
    by_service_tier: Mapping[str, tuple[Rates, ...]] = {}
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def has_list_prices() -> bool:
    """Tell whether genai-prices is installed."""
    return find_spec("genai_prices") is not None


def list_version() -> str:
    """Return which release of the list is installed. Raises ConfigError where there is none."""
    _snapshot()
    return version("genai-prices")


def units_per(unit: str) -> int:
    """Return for how many of it the list's price of a unit is, such as 1,000,000 tokens or 3,600 seconds."""
    return _unit(unit).per


def is_part_of(unit: str, whole: str) -> bool:
    """Tell whether what is counted by `unit` is counted by `whole` too."""
    return unit != whole and _unit(whole).dimensions.items() <= _unit(unit).dimensions.items()


def list_prices(
    models: Sequence[str], providers: Sequence[str], time: datetime, *, deprecated: bool = False
) -> list[ListPrice]:
    """Return the list prices of models, in the order of the providers and of their lists.

    Args:
        models: patterns of their names, such as `gpt-*`; none for all.
        providers: ids of providers.
        time: when the prices hold.
        deprecated: whether models that their provider gives up are among them.

    Raises:
        ConfigError: for a provider that the list does not know, a pattern that no model follows, or where genai-prices
            is not installed.
    """
    known = {provider.id: provider for provider in _snapshot().providers}
    found: dict[str, ListPrice] = {}
    unused = dict.fromkeys(models)
    for provider_id in providers:
        if provider_id not in known:
            raise ConfigError(f"the list has no provider {provider_id!r:.80}{did_you_mean(provider_id, known)}")
        for model in known[provider_id].models:
            names = (model.id, *_names(model))
            matching = [pattern for pattern in models if any(fnmatchcase(name, pattern) for name in names)]
            if (models and not matching) or (model.deprecated and not deprecated):
                continue
            for pattern in matching:
                unused.pop(pattern, None)
            if model.id not in found and (price := _read(provider_id, model, time)) is not None:
                found[model.id] = price
    if unused:
        raise ConfigError(
            f"no model of {', '.join(providers)} is called {', '.join(unused)}; patterns are written as for files:"
            " 'gpt-*'"
        )
    return list(found.values())


def list_price_of(model: str, time: datetime) -> ListPrice | None:
    """Return what the maker of a model asks for it; None where the list does not know it.

    Raises:
        ConfigError: where genai-prices is not installed.
    """
    snapshot = _snapshot()
    for provider in (None, *MAKERS):
        try:
            found, info = snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            continue
        return _read(found.id, info, time)
    return None


def _read(provider: str, model: "ModelInfo", time: datetime) -> ListPrice | None:
    standard, notes = _standard(model, time)
    rates, left_out = _rates(standard)
    if not rates:
        return None
    tiers: dict[str, tuple[Rates, ...]] = {}
    for variant in model.price_variants or ():
        name = variant.when.get("service_tier") if len(variant.when) == 1 else None
        if name is None and variant.when == {"processing": "batch"} and provider == "anthropic":
            name = "batch"  # its answers say so in `service_tier`
        if name is None or (variant.constraint is not None and not variant.constraint.active(time)):
            continue
        context = dict(variant.when)
        variant_rates, more_left_out = _rates(model.get_prices(time, context))
        left_out |= more_left_out
        if variant_rates != rates:
            tiers.setdefault(name, variant_rates)
    return ListPrice(provider, model.id, rates, _names(model), tiers, tuple(sorted(left_out)), tuple(notes))


def _names(model: "ModelInfo") -> tuple[str, ...]:
    """Return the names beside its id, as far as entries of a document can express them."""
    from genai_prices.types import ClauseEquals, ClauseOr, ClauseStartsWith

    clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
    names = {model.id: None}
    for name in [clause.equals for clause in clauses if isinstance(clause, ClauseEquals)]:
        if resolve_version(name, names) is None:
            names[name] = None
    for start in [clause.starts_with for clause in clauses if isinstance(clause, ClauseStartsWith)]:
        if start not in names and start.rstrip("-@") not in names:
            names[start + WILDCARD] = None
    return tuple(names)[1:]


def _standard(model: "ModelInfo", time: datetime) -> tuple["ModelPrice", list[str]]:
    """Return the prices in force at a time; of those that depend on the hour, the highest."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    notes: list[str] = []
    if not isinstance(model.prices, list):
        return model.prices, notes
    hours = [each.prices for each in model.prices if isinstance(each.constraint, TimeOfDateConstraint)]
    for each in model.prices:
        if isinstance(each.constraint, StartDateConstraint) and not each.constraint.active(time):
            notes.append(f"other prices from {each.constraint.start_date:%Y-%m-%d}")
    if not hours:
        return model.get_prices(time), notes
    notes.append("cheaper at some hours of the day")
    return max(hours, key=_height), notes


def _height(price: "ModelPrice") -> Decimal:
    rates, _ = _rates(price)
    return sum(rates[-1].dollars.values(), Decimal(0)) if rates else Decimal(0)


def _rates(price: "ModelPrice") -> tuple[tuple[Rates, ...], set[str]]:
    from genai_prices.types import TieredPrices

    values = {unit: value for unit, value in _priced_units(price) if unit in MEASURE_OF_UNIT}
    left_out = {unit for unit, _ in _priced_units(price)} - values.keys()
    for narrow in [unit for unit in values if MEASURE_OF_UNIT[unit] == "audio_seconds" and unit != "audio_hours"]:
        if values.pop("audio_hours", None) is not None:  # the same seconds, named twice
            left_out.discard(narrow)
    if not values:
        return (), left_out
    starts = {tier.start for value in values.values() if isinstance(value, TieredPrices) for tier in value.tiers}
    return tuple(
        Rates(start, {unit: _at(value, start) for unit, value in values.items()}) for start in sorted({0, *starts})
    ), left_out


def _priced_units(price: "ModelPrice") -> Iterator[tuple[str, object]]:
    for unit, value in vars(price).items():
        if value is not None:
            yield unit, value


def _at(value: object, start: int) -> Decimal:
    """Return the price of requests with more than `start` input tokens."""
    if isinstance(value, Decimal):
        return value
    from genai_prices.types import TieredPrices

    assert isinstance(value, TieredPrices)
    prices = [value.base, *(tier.price for tier in value.tiers if tier.start <= start)]
    # A tier that begins at 0 holds for every request.
    return prices[-1]


def _unit(price_key: str) -> "UnitOfList":
    from genai_prices.data_units import unit_data

    for raw in unit_data.values():
        if raw.get("price_key") == price_key:
            return UnitOfList(raw["per"], raw.get("dimensions", {}))
    raise KeyError(price_key)


class UnitOfList(Struct, frozen=True):
    """Return the unit of a list price: the number that its price is for, and its measure."""

    per: int
    dimensions: Mapping[str, str]


def _snapshot() -> "DataSnapshot":
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise ConfigError("list prices need genai-prices: pip install 'ducto-redis[prices]'") from None
    return get_snapshot()
