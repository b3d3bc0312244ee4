"""List prices, the documents that are made of them, and the checks that compare with them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, TieredPrices, Usage
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import UsageMetrics
from ducto_redis.pricing import PricingDocument, PricingEngine
from ducto_redis.pricing.importing import formula_of, import_prices
from ducto_redis.pricing.list_prices import (
    MAKERS,
    MEASURE_OF_UNIT,
    ListPrice,
    Rates,
    list_price_of,
    list_prices,
    units_per,
)
from ducto_redis.pricing.plausibility import far_from_list_prices

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CREDITS_PER_DOLLAR = Decimal(1_000)

PRICES = list_prices((), MAKERS, NOW, deprecated=True)
# Where hours of the day count, the list's own price depends on the clock.
STEADY = [price for price in PRICES if "cheaper at some hours of the day" not in price.notes]

LISTED = {
    (provider.id, model.id): (provider, model)
    for provider in data_snapshot.get_snapshot().providers
    for model in provider.models
}

GENAI_NAMES = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "cache_read_audio_tokens": "cache_audio_read_tokens",
    "web_search_calls": "web_searches",
    "file_search_calls": "storage_searches",
}


@st.composite
def usages(draw: st.DrawFn) -> dict[str, int]:
    """Counts whose parts lie inside their totals."""
    counts = {name: draw(st.integers(0, 90_000)) for name in ("cache_read_tokens", "cache_write_tokens")}
    counts["cache_write_1h_tokens"] = draw(st.integers(0, counts["cache_write_tokens"]))
    counts["cache_read_audio_tokens"] = draw(st.integers(0, counts["cache_read_tokens"]))
    audio = draw(st.integers(0, 9_000))
    counts["audio_input_tokens"] = counts["cache_read_audio_tokens"] + audio
    counts["input_tokens"] = counts["cache_read_tokens"] + counts["cache_write_tokens"] + audio
    counts["input_tokens"] += draw(st.integers(0, 300_000))
    counts["audio_output_tokens"] = draw(st.integers(0, 9_000))
    counts["output_tokens"] = counts["audio_output_tokens"] + draw(st.integers(0, 9_000))
    counts["web_search_calls"] = draw(st.integers(0, 3))
    counts["file_search_calls"] = draw(st.integers(0, 3))
    return counts


@given(st.sampled_from(STEADY), usages(), st.sampled_from(["", "priority", "flex"]))
def test_charges_what_the_list_asks(price: ListPrice, counts: dict[str, int], tier: str) -> None:
    """A formula made of a list price charges what genai-prices calculates itself, rounded once."""
    if not {"input_mtok", "output_mtok"} <= price.rates[0].dollars.keys():
        return
    if "cache_audio_read_mtok" not in price.rates[0].dollars:  # its tokens would be in two units, and in no third one
        counts = {**counts, "cache_read_audio_tokens": 0}
    engine = PricingEngine(PricingDocument.from_dict({"models": {"m": formula_of(price, CREDITS_PER_DOLLAR)}}))
    usage = structs.replace(UsageMetrics(model="m", service_tier=tier or None), **counts)
    # By its id: some models of the list are not found by their own names.
    provider, model = LISTED[price.provider, price.model]
    listed = model.calc_price(
        Usage(**{GENAI_NAMES[name]: count for name, count in counts.items()}),
        provider,
        genai_request_timestamp=NOW,
        price_context={"service_tier": tier} if tier else None,
    )
    assert abs(engine.total(usage) - listed.total_price * CREDITS_PER_DOLLAR) <= Decimal("0.0000005")


def test_the_list_is_there() -> None:
    """The property above is about hundreds of models, some with tiers of size and of service."""
    assert len(STEADY) > 200
    assert any(len(price.rates) > 1 for price in STEADY)
    assert any(price.by_service_tier for price in STEADY)


def test_every_unit_is_known_to_the_list() -> None:
    """What units are called here is what genai-prices calls them."""
    assert {unit: units_per(unit) > 0 for unit in MEASURE_OF_UNIT} == dict.fromkeys(MEASURE_OF_UNIT, True)


def test_import() -> None:
    """An imported document says where it comes from, reads back, and prices the names that providers use."""
    text = import_prices(
        time=NOW, credits_per_dollar=Decimal(100), markup=Decimal("1.5"), models=["gpt-4o", "claude-sonnet-4-0"]
    )
    assert text.startswith("# List prices of genai-prices ")
    assert "# openai: input_tokens $2.5, cache_read_tokens $1.25, output_tokens $10 per 1,000,000" in text
    document = PricingDocument.from_yaml(text)
    assert document.credits_per_dollar == 100
    engine = PricingEngine(document)
    million = {"input_tokens": 1_000_000, "cache_read_tokens": 200_000}
    for name in ("gpt-4o", "gpt-4o-2024-11-20"):
        usage = structs.replace(UsageMetrics(model=name, output_tokens=100_000), **million)
        assert engine.total(usage) == Decimal("2.5") * 120 + Decimal("1.25") * 30 + 150
    assert engine.total(UsageMetrics(model="claude-sonnet-4-20250514", web_search_calls=2)) == 3


def test_service_tiers_and_sizes() -> None:
    """Tiers that cost the same share a branch; what is the same for all stands outside."""
    small, large = Rates(0, {"input_mtok": Decimal(1), "web_searches_kcount": Decimal(10)}), {"input_mtok": Decimal(2)}
    price = ListPrice(
        "p",
        "m",
        (small, Rates(200_000, {**large, "web_searches_kcount": Decimal(10)})),
        by_service_tier=dict.fromkeys(("flex", "batch"), (small,)),
    )
    assert formula_of(price, Decimal(1)) == (
        "(input_tokens * 1 if service_tier in ('flex', 'batch') else input_tokens * 2 if input_tokens > 200000"
        " else input_tokens * 1) / 1000000 + web_search_calls * 0.01"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["gtp-*"]}, "no model of .* is called gtp-\\*"),
        ({"providers": ["opnai"]}, "no provider 'opnai'; did you mean 'openai'"),
        ({"markup": Decimal(0)}, "markup must be above 0"),
        ({"markup": Decimal("NaN")}, "markup must be above 0"),
    ],
)
def test_wrong_imports(options: dict[str, Any], message: str) -> None:
    """What the list does not have is named."""
    with pytest.raises(ConfigError, match=message):
        import_prices(**{"time": NOW, "credits_per_dollar": Decimal(100), **options})


def documents() -> Iterator[Any]:
    right = {"gpt-4o": "input_tokens * 0.0025 + output_tokens * 0.01"}
    yield pytest.param({"models": right}, [], id="a thousand credits are a dollar")
    yield pytest.param({"models": {"unheard-of": "input_tokens * 9"}}, [], id="not on the list")
    yield pytest.param(
        {"models": {"gpt-4o": "input_tokens * 2.5 + output_tokens * 10"}},
        ["models.gpt-4o: input_tokens cost 1,000,000 credits", "models.gpt-4o: output_tokens cost 1,000,000 credits"],
        id="per million taken for per token",
    )
    yield pytest.param(
        {"models": {"gpt-4o": "input_tokens * 0.0025 + output_tokens * 0.00001", "o1": "input_tokens * 0.015"}},
        ["models.gpt-4o: output_tokens cost 1 credits"],
        id="one of three",
    )
    yield pytest.param(
        {"models": right, "credits_per_dollar": 1},
        ["models.gpt-4o: input_tokens cost 1,000 credits", "models.gpt-4o: output_tokens cost 1,000 credits"],
        id="said to be a dollar",
    )
    yield pytest.param({"models": {"gpt-4o": "requests * 3", "_default": "1"}}, [], id="not by tokens")


@pytest.mark.parametrize(("document", "warnings"), list(documents()))
def test_far_from_list_prices(document: dict[str, Any], warnings: list[str]) -> None:
    """Prices a thousand or a million times off are warned of, and no others."""
    found = far_from_list_prices(PricingDocument.from_dict(document), NOW)
    assert [warning.partition(" for a dollar")[0] for warning in found] == warnings


def test_list_price_of_a_dated_model() -> None:
    """Models are found by the names that requests give them."""
    found = list_price_of("claude-sonnet-4-20250514", NOW)
    assert found is not None
    assert (found.provider, found.model) == ("anthropic", "claude-sonnet-4-0")
    assert list_price_of("unheard-of", NOW) is None


def test_hours_of_the_day() -> None:
    """Where some hours are cheaper, the highest price is charged, and a note says so."""
    from genai_prices.data import providers

    def has_hours(model: ModelInfo) -> bool:
        return isinstance(model.prices, list) and any(
            type(each.constraint).__name__ == "TimeOfDateConstraint" for each in model.prices
        )

    seen = 0
    for provider in providers:
        for model in filter(has_hours, provider.models):
            (price,) = [it for it in list_prices([model.id], [provider.id], NOW) if it.model == model.id]
            assert "cheaper at some hours of the day" in price.notes
            outputs = [each.prices.output_mtok for each in model.prices]
            assert not any(isinstance(each, TieredPrices) for each in outputs)
            assert price.rates[0].dollars["output_mtok"] == max(each for each in outputs if each is not None)
            seen += 1
    assert seen
