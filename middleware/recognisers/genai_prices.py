"""Any other API whose usage genai-prices knows how to read."""

from collections.abc import Mapping
from decimal import Decimal
from math import ceil, isfinite
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT, UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import MeteredRequest, Recogniser, ResponseReader
from ducto_redis.middleware.recognisers.json_request import check_limit, check_name, decode_request
from ducto_redis.middleware.recognisers.prompt import check_settings, measure_prompt
from ducto_redis.middleware.recognisers.reported import count, usage_of
from ducto_redis.middleware.recognisers.usage_reader import DeferringReader, decode, texts
from ducto_redis.middleware.sse import ServerSentEvent

if TYPE_CHECKING:
    from genai_prices.types import Usage, UsageExtractor

# Units of genai-prices, and what UsageMetrics calls each.
_PARTS = {
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "cache_audio_read_tokens": "cache_read_audio_tokens",
    "input_audio_tokens": "audio_input_tokens",
    "input_image_tokens": "image_input_tokens",
    "input_tool_tokens": "tool_prompt_tokens",
    "output_audio_tokens": "audio_output_tokens",
    "output_image_tokens": "image_output_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "web_searches": "web_search_calls",
    "code_executions": "code_exec_calls",
    "storage_searches": "file_search_calls",
    "rerank_searches": "search_queries",
    "input_characters": "input_characters",
    "audio_seconds": "audio_seconds",
    "input_audio_seconds": "audio_seconds",
    "output_audio_seconds": "audio_seconds",
}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_TEXTS = (
    "choices", "candidates", "output", "outputs", "message", "messages", "delta", "content", "parts", "text",
    "response", "reasoning_content", "tool_calls", "function", "name", "arguments", "result", "generated_text",
)  # fmt: skip
_DONE = b"[DONE]"


class _Request(Struct):
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    max_new_tokens: int | None = None
    stream: bool | None = None


_decoder = msgspec.json.Decoder(_Request)


class GenaiPrices(Recogniser):
    """An API with JSON requests, whose responses genai-prices can read. Needs `ducto-redis[prices]`.

        routes={"/ocr": GenaiPrices("mistral", "ocr", measures={"input_document_pages": 50})}

    A request is refused in OpenAI's shape; it cannot be clamped, and a stream can only be cut.

    Args:
        provider: the provider's id in genai-prices, such as "mistral".
        api_flavor: the API of the provider, such as "chat" or "embeddings".
        path_end: the end of the paths that belong to it. Empty: only by `routes`.
        model: the priced model of a request that names none.
        operation_type: the name of the work in leases and in the ledger.
        measures: units of genai-prices that UsageMetrics has no field for, and the amount of each to hold for a
            request. Your pricing document declares measures of the same names.

    Raises:
        ConfigError: where genai-prices is not installed, or does not know the provider or its API, or where that
            reports a unit that would be lost.
    """

    def __init__(
        self,
        provider: str,
        api_flavor: str = "default",
        *,
        path_end: str = "",
        model: str | None = None,
        operation_type: str = "default",
        measures: Mapping[str, int] | None = None,
    ) -> None:
        self._measures = dict(measures or {})
        check_settings(**self._measures)
        self.path_end = path_end
        self.operation_type = operation_type
        self._model = model
        self._extractor = _find_extractor(provider, api_flavor)
        reported = {mapping.dest for mapping in self._extractor.mappings}
        if unknown := sorted(filter(_would_be_lost, reported - self._measures.keys())):
            raise ConfigError(f"{provider} reports {', '.join(unknown)}: name them in measures={...}")

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        """Return the worst case: all of the body as prompt, and the most output."""
        body = decode_request(request.body, _decoder)
        check_name(body.model, "model")
        limits: list[int] = []
        for name in _LIMITS:
            limit = getattr(body, name)
            check_limit(limit, name)
            if limit is not None:
                limits.append(limit)
        model = self._model if body.model is None else body.model
        prompt = measure_prompt(estimates, model, request.body, [])
        writes = any(mapping.dest == "output_tokens" for mapping in self._extractor.mappings)
        output = estimates.output(max(limits) if limits else None) if writes else 0
        if max(prompt.most_tokens, output) > MAX_COUNT:
            raise BadRequestError("the token limits are too large", param="max_tokens")
        estimate = UsageMetrics(
            model=model,
            input_tokens=prompt.most_tokens,
            output_tokens=output,
            operation=self.operation_type,
            measures=self._measures,
        )
        return MeteredRequest(
            estimate,
            prompt.likely_tokens,
            streams=bool(body.stream),
            output_limit=max(limits) if limits else None,
            holds_worst_case=bool(body.stream),
        )

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        """Return a reader for the response, plain or streamed."""
        return GenaiPricesReader(request, estimates, self._extractor)


class GenaiPricesReader(DeferringReader):
    """A reader of one response: of a stream, the last event that reports a usage counts."""

    lines_are_stream = True

    def __init__(self, request: MeteredRequest, estimates: Estimates, extractor: "UsageExtractor") -> None:
        super().__init__(request, estimates)
        root = extractor.root
        first = root if isinstance(root, str) else root[0]
        self.report_fields = (str(first).encode(), b"error")
        self._extractor = extractor

    def document(self, body: bytes) -> None:
        """Take the whole response."""
        self._take(decode(body), body)

    def event(self, event: ServerSentEvent) -> None:
        """Take one event."""
        if event.data == _DONE:
            self.done = True
        else:
            self._take(decode(event.data), event.data)

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none: measures are those that were held."""
        return structs.replace(super().counted_usage(), measures=self.request.estimate.measures)

    def _take(self, response: object, text: bytes) -> None:
        if not isinstance(response, Mapping):
            self.deliver_all(text)
            return
        for written in texts(response, _TEXTS):
            self.deliver(written)
        if response.get("error"):
            self.failed = True
        try:
            _, found = self._extractor.extract(response)
        except ValueError:
            return  # this event reports nothing
        self._take_usage(found)

    def _take_usage(self, found: "Usage") -> None:
        parts: dict[str, int] = {}
        whole = True
        for unit, part in _PARTS.items():
            reported = _whole_number(found.reported_value(unit))
            whole &= reported is not None
            if reported:
                parts[part] = parts.get(part, 0) + reported
        totals = [_whole_number(found.reported_value(name)) for name in ("input_tokens", "output_tokens")]
        usage, fits = usage_of(totals[0] or 0, totals[1] or 0, parts)
        own = {unit: Decimal(str(found.reported_value(unit))) for unit in self.request.estimate.measures}
        self.take_report(structs.replace(usage, measures=own), whole=whole and fits and None not in totals)


def _find_extractor(provider: str, api_flavor: str) -> "UsageExtractor":
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise ConfigError("GenaiPrices needs genai-prices: pip install 'ducto-redis[prices]'") from None
    try:
        extractors = get_snapshot().find_provider(None, provider, None).extractors or []
    except LookupError:
        raise ConfigError(f"genai-prices knows no provider {provider!r}") from None
    for extractor in extractors:
        if extractor.api_flavor == api_flavor:
            return extractor
    flavors = ", ".join(repr(extractor.api_flavor) for extractor in extractors) or "none"
    raise ConfigError(f"genai-prices reads no API {api_flavor!r} of {provider}; it reads {flavors}")


def _would_be_lost(unit: str) -> bool:
    if unit in _PARTS or unit in ("input_tokens", "output_tokens"):
        return False
    # Finer parts of tokens: the totals have them.
    return not (unit.endswith("_tokens") and unit.startswith(("input_", "output_", "cache_")))


def _whole_number(value: int | float | Decimal) -> int | None:
    """Return a reported number, rounded up; None for one that makes no sense."""
    return count(ceil(value)) if isfinite(value) else None
