"""A recogniser for an API of one's own: summaries of texts, as a whole or as a stream of server-sent events.

A request is {"model", "text", "max_tokens", "stream"}. An answer is {"summary", "units": {"read", "written"}}; a stream
is events with a "piece" each, and a last one with the units.
"""

import msgspec
from msgspec import Struct

from ducto_redis import UsageMetrics
from ducto_redis.middleware import ApiRequest, Estimates, MeteredRequest, Recogniser, ResponseReader, ServerSentEvent
from ducto_redis.middleware.recognisers.json_request import check_limit, decode_request, with_field
from ducto_redis.middleware.recognisers.prompt import measure_prompt
from ducto_redis.middleware.recognisers.reported import InvalidReportError, total, usage_of
from ducto_redis.middleware.recognisers.usage_reader import UsageReader, decode


class SummaryRequest(Struct):
    model: str
    text: str
    max_tokens: int | None = None
    stream: bool = False


class Summaries(Recogniser):
    operation_type = "summary"
    path_end = "/v1/summaries"

    def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
        asked = decode_request(request.body, msgspec.json.Decoder(SummaryRequest))
        check_limit(asked.max_tokens, "max_tokens")
        prompt = measure_prompt(estimates, asked.model, request.body, [asked.text.encode()])
        worst = UsageMetrics(asked.model, prompt.most_tokens, estimates.output(asked.max_tokens))
        return MeteredRequest(worst, prompt.likely_tokens, asked.stream, output_limit=asked.max_tokens)

    def read_response(self, request: MeteredRequest, estimates: Estimates) -> ResponseReader:
        return SummaryReader(request, estimates)

    def application_body(self, body: bytes, request: MeteredRequest, output_limit: int | None) -> bytes:
        return body if output_limit is None else with_field(body, ("max_tokens",), output_limit)


class SummaryReader(UsageReader):
    def document(self, body: bytes) -> None:
        answer = decode(body)
        fields = answer if isinstance(answer, dict) else {"piece": body.decode(errors="replace")}
        self.deliver(str(fields.get("piece") or fields.get("summary") or ""))
        if isinstance(units := fields.get("units"), dict):
            try:
                self.take_report(usage_of(total(units.get("read")), total(units.get("written")), {})[0])
            except InvalidReportError:
                self.invalid = True

    def event(self, event: ServerSentEvent) -> None:
        self.document(event.data)
