"""OpenAI Realtime over a WebSocket, and the APIs of the same shape."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import structs

from ducto_redis.engine.ids import new_id
from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge
from ducto_redis.middleware.recognisers.json_request import check_name
from ducto_redis.middleware.recognisers.openai.media_usage import read_token_usage
from ducto_redis.middleware.recognisers.prompt import check_settings
from ducto_redis.middleware.recognisers.reported import InvalidReportError, take_parts, total, usage_of
from ducto_redis.middleware.recognisers.sockets import SessionReader, SocketRecogniser
from ducto_redis.middleware.recognisers.usage_reader import decode

_INPUT_PARTS = {
    "cached_tokens": "cache_read_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_CACHED_PARTS = {"audio_tokens": "cache_read_audio_tokens"}
_OUTPUT_PARTS = {"audio_tokens": "audio_output_tokens", "reasoning_tokens": "reasoning_tokens"}

# 24 kHz, 16 bit, in base64: 64,000 bytes a second. A second is 10 tokens of input and 20 of output.
_BYTES_PER_INPUT_TOKEN = 6_400
_BYTES_PER_OUTPUT_TOKEN = 3_200
_ENDS = 200


class OpenAIRealtime(SocketRecogniser):
    """`wss://.../realtime?model=...`: each response is charged when it is done, and each transcription of the input.

    Args:
        default_model: the priced model of a connection that names none.
        transcription_model: the priced model of transcriptions of the input, unless the session names one.
        hold_input_tokens: input tokens that are held for the next response, all of them as sound. A session with a
            larger context holds that.
        hold_output_tokens: output tokens that are held for the next response, all of them as sound.
        path_end: the end of the paths of the API.
    """

    operation_type = "realtime"

    def __init__(
        self,
        *,
        default_model: str | None = None,
        transcription_model: str = "whisper-1",
        hold_input_tokens: int = 16_000,
        hold_output_tokens: int = 4_096,
        path_end: str = "/realtime",
    ) -> None:
        check_settings(hold_input_tokens=hold_input_tokens, hold_output_tokens=hold_output_tokens)
        self.path_end = path_end
        self._default_model = default_model
        self._transcription_model = transcription_model
        self._hold = hold_input_tokens, hold_output_tokens

    def read_session(self, request: ApiRequest, estimates: Estimates) -> SessionReader:
        """Return the reader for a session with the model that the query names."""
        query = parse_qs(request.query.decode("latin-1"))
        named = query.get("model") or query.get("deployment")
        model = self._default_model if not named else named[0]
        check_name(model, "model")
        held_input, held_output = self._hold
        estimate = UsageMetrics(
            model=model,
            input_tokens=held_input,
            output_tokens=held_output,
            audio_input_tokens=held_input,
            audio_output_tokens=held_output,
            operation=self.operation_type,
        )
        return RealtimeReader(estimate, self._transcription_model, estimates)

    def error_event(self, refusal: Refusal) -> str:
        """Return an `error` event."""
        error = {**refusal.as_openai()["error"], "event_id": None}
        return msgspec.json.encode({"type": "error", "event_id": f"event_{new_id()}", "error": error}).decode()


class RealtimeReader(SessionReader):
    """A reader of one Realtime session.

    Usage is charged as `response.done` and completed transcriptions report it. The usage of a response that was cut off
    is counted: its delivered text, and as its input all of the session's known context.
    """

    def __init__(self, estimate: UsageMetrics, transcription_model: str, estimates: Estimates) -> None:
        self._estimate = estimate
        self._transcription_model = transcription_model
        self._estimates = estimates
        self._charged: set[str] = set()
        self._response_runs = False
        self._context_tokens = 0
        self._said: list[str] = []
        self._said_sound_bytes = 0
        self._heard_bytes = 0
        self._heard_sound_bytes = 0

    def next_estimate(self) -> UsageMetrics:
        """Return the hold for the next response: as configured, or the context that it reads, if that is more."""
        held = max(self._estimate.input_tokens, self._context_tokens)
        return structs.replace(self._estimate, input_tokens=held, audio_input_tokens=held)

    def sent(self, message: str | bytes) -> Charge | None:
        """Take an event to the client."""
        if _is_sound(message, "audio.delta"):
            self._said_sound_bytes += len(message)
            return None
        event: Any = decode(message.encode(errors="replace") if isinstance(message, str) else message)
        match event:
            case {"type": "response.created"}:
                self._response_runs = True
            case {"type": "response.done", "response": dict(response)}:
                return self._response_done(response)
            case {"type": "conversation.item.input_audio_transcription.completed", "usage": dict(usage)}:
                return self._transcribed(f"{event.get('item_id')}/{event.get('content_index')}", usage)
            case {"type": str(kind), "delta": str(delta)} if kind.startswith("response."):
                self._said.append(delta)
            case {"type": "session.created" | "session.updated", "session": dict(session)}:
                self._take_session(session)
        return None

    def received(self, message: str | bytes) -> None:
        """Count the client's messages: they are input of the next response."""
        if _is_sound(message, "input_audio_buffer.append"):
            self._heard_sound_bytes += len(message)
        else:
            self._heard_bytes += len(message)

    @property
    def between_work(self) -> bool:
        """True while no response is under way. A transcription that ends during one is charged with it."""
        return not self._response_runs

    def unfinished(self) -> Charge | None:
        """Return the counted usage of a response that was cut off; None where none was under way."""
        if not self._response_runs:
            return None
        return Charge(self._counted(), ("interrupted", "usage_counted"))

    def _response_done(self, response: Mapping[str, Any]) -> Charge | None:
        report, status = response.get("usage"), response.get("status")
        usage, flags = self._counted(), ["usage_counted"]
        if report is not None:
            try:
                usage, whole = read_usage(report)
                flags = [] if whole else ["usage_invalid"]
            except InvalidReportError:
                flags.append("usage_invalid")
        response_id = str(response.get("id") or "")
        self._response_runs = False
        self._said.clear()
        self._said_sound_bytes = self._heard_bytes = self._heard_sound_bytes = 0
        if (response_id and response_id in self._charged) or (report is None and status in ("failed", "cancelled")):
            return None
        self._charged.add(response_id)
        self._context_tokens = usage.input_tokens + usage.output_tokens
        return Charge(self._priced(usage), tuple(flags))

    def _transcribed(self, item: str, report: Mapping[str, Any]) -> Charge | None:
        if item in self._charged:
            return None
        self._charged.add(item)
        flags: tuple[str, ...] = ()
        try:
            usage, whole = read_token_usage(report)
            flags = () if whole else ("usage_invalid",)
        except InvalidReportError:
            sound = -(-self._heard_sound_bytes // _BYTES_PER_INPUT_TOKEN)
            usage = UsageMetrics(input_tokens=sound, audio_input_tokens=sound)
            flags = ("usage_counted", "usage_invalid")
        model, operation = self._transcription_model, self._estimate.operation
        return Charge(structs.replace(usage, model=model, operation=operation), flags)

    def _take_session(self, session: Mapping[str, Any]) -> None:
        match session:
            case {"audio": {"input": {"transcription": {"model": str(model)}}}} | {
                "input_audio_transcription": {"model": str(model)}
            } if 0 < len(model.encode(errors="replace")) <= 128:
                self._transcription_model = model

    def _counted(self) -> UsageMetrics:
        model, text = self._estimate.model, "".join(self._said)
        written = self._estimates.charged_tokens(model, len(text.encode(errors="replace")), lambda: text)
        spoken = -(-self._said_sound_bytes // _BYTES_PER_OUTPUT_TOKEN)
        typed = self._estimates.charged_tokens(None, self._heard_bytes, str) if self._heard_bytes else 0
        heard = -(-self._heard_sound_bytes // _BYTES_PER_INPUT_TOKEN)
        # Text of an unknown shape is never charged more than was held.
        held = self.next_estimate()
        input_tokens = min(self._context_tokens + typed + heard, held.input_tokens)
        output_tokens = min(written + spoken, held.output_tokens)
        return self._priced(
            UsageMetrics(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                audio_input_tokens=min(heard, input_tokens),
                audio_output_tokens=min(spoken, output_tokens),
            )
        )

    def _priced(self, usage: UsageMetrics) -> UsageMetrics:
        return structs.replace(usage, model=self._estimate.model, operation=self._estimate.operation)


def read_usage(report: object) -> tuple[UsageMetrics, bool]:
    """Return the usage that a response reports, and whether all of it could be used.

    Raises:
        InvalidReportError: where a total is missing, or is no count.
    """
    if not isinstance(report, dict):
        raise InvalidReportError("the usage is not an object")
    input_tokens, output_tokens = total(report.get("input_tokens")), total(report.get("output_tokens"))
    parts: dict[str, int] = {}
    inside = report.get("input_token_details")
    whole = take_parts(inside, _INPUT_PARTS, parts)
    if isinstance(inside, dict):
        whole &= take_parts(inside.get("cached_tokens_details"), _CACHED_PARTS, parts)
    whole &= take_parts(report.get("output_token_details"), _OUTPUT_PARTS, parts)
    usage, fits = usage_of(input_tokens, output_tokens, parts)
    return usage, whole and fits


def _is_sound(message: str | bytes, kind: str) -> bool:
    """Tell by the ends of a message, where its type stands, whether it is a piece of sound. There are many of them."""
    mark = f'{kind}"'
    ends = (message[:_ENDS], message[-_ENDS:]) if len(message) > _ENDS else (message,)
    return any(mark in (end if isinstance(end, str) else end.decode("latin-1")) for end in ends)
