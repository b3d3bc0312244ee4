"""The settings of the middleware, checked when it is made."""

from typing import Literal, TypeAlias, TypedDict

from msgspec import Struct

from ducto_redis.errors import ConfigError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.estimates import CountTokens
from ducto_redis.middleware.holds.learned import LearnedHolds
from ducto_redis.middleware.stored_answers import StoredAnswers
from ducto_redis.money import Amount

OnUnavailable: TypeAlias = Literal["refuse", "allow"]
OnDisconnect: TypeAlias = Literal["cut", "drain"]
HiddenReasoning: TypeAlias = Literal["drain", "hold"]
UnknownRoutes: TypeAlias = Literal["refuse", "pass"]
Hold: TypeAlias = Literal["worst_case", "incremental"]
OnShort: TypeAlias = Literal["refuse", "clamp"]
OnRepeat: TypeAlias = Literal["off", "conflict", "wait"]


class MeteringOptions(TypedDict, total=False):
    """Settings of the middleware, see `Settings`."""

    default_max_tokens: int
    max_tokens_ceiling: int | None
    count_tokens: CountTokens | None
    body_limit: int
    hold_json_up_to: int
    on_unavailable: OnUnavailable
    grace: Amount | None
    ttl_seconds: float
    background_ttl_seconds: float
    on_disconnect: OnDisconnect
    hidden_reasoning: HiddenReasoning
    drain_seconds: float
    metered_prefixes: tuple[str, ...]
    unknown_routes: UnknownRoutes
    counts: MeteringCounts | None
    hold: Hold
    hold_step_tokens: int
    on_short: OnShort
    min_output_tokens: int
    learned_holds: bool | LearnedHolds
    idempotency: OnRepeat
    idempotency_wait_seconds: float
    stored_answers: StoredAnswers | None


class Settings(Struct, frozen=True, kw_only=True):
    """How a `MeteringMiddleware` meters.

    Attributes:
        default_max_tokens: output tokens that are held for a request that sets no limit.
        max_tokens_ceiling: output tokens that no model here exceeds, so that more are never held.
        count_tokens: `count_tokens(model, text)`, a tokeniser. Without it a hold assumes a token per UTF-8 byte.
        body_limit: the largest request body, in bytes.
        hold_json_up_to: the size in bytes up to which a JSON answer is held back until it is charged, so that its
            headers can say what it cost.
        on_unavailable: "refuse" (503) while the engine is away, or "allow": let pass, and charge once it is back.
        grace: credits, with on_unavailable="allow": the most that requests may cost together which this process has let
            pass and the engine has not charged yet. More is refused.
        ttl_seconds: how long a hold outlives a process that was killed. While a request runs it is renewed.
        background_ttl_seconds: how long the hold stays of work that goes on after its answer, such as a response in the
            background, until a later answer shows it finished.
        on_disconnect: what becomes of an answer whose client left. "cut": the application is told, and what it
            delivered is charged. "drain": it is not told and runs to its end, so that the true cost is charged.
        hidden_reasoning: the same where the model may have reasoned unseen, so that what was delivered does not say
            what it cost. "drain": as above, and where that does not give the usage, the hold is charged. "hold": it is
            charged at once.
        drain_seconds: how long an application whose client left may go on before it is told.
        metered_prefixes: paths such as "/v1" under which every request is metered: `unknown_routes` says what becomes
            of one that no recogniser knows.
        unknown_routes: "refuse" (404) such a request, or let it "pass", which is logged and counted.
        counts: where requests are counted that a metric should show.
        hold: what is held for a stream. "worst_case": everything that it could cost. "incremental": its prompt and a
            step of output, then more as it runs; it is ended where the account can pay no more.
        hold_step_tokens: output tokens of a step.
        on_short: what becomes of a request that its account can't pay whole. "refuse" it, or "clamp": lower its limit
            on output to what the account can pay.
        min_output_tokens: the lowest limit that a request is lowered to; with less it is refused.
        learned_holds: hold what answers of the same route and model really use, in place of the worst case; True, or a
            `LearnedHolds` that says how careful that is.
        idempotency: what becomes of a request whose Idempotency-Key another one had. "off": keys are not looked at.
            "wait": it waits while the first runs; "conflict": it is refused at once. Once the first has ended, it gets
            the stored answer, or, without one, is refused.
        idempotency_wait_seconds: how long it waits, before it is refused after all.
        stored_answers: how answers are kept to be given again; None: they are not.

    Raises:
        ConfigError: where a setting is wrong.
    """

    default_max_tokens: int = 4096
    max_tokens_ceiling: int | None = None
    count_tokens: CountTokens | None = None
    body_limit: int = 16 * 2**20
    hold_json_up_to: int = 2**20
    on_unavailable: OnUnavailable = "refuse"
    grace: Amount | None = None
    ttl_seconds: float = 120
    background_ttl_seconds: float = 3600
    on_disconnect: OnDisconnect = "cut"
    hidden_reasoning: HiddenReasoning = "drain"
    drain_seconds: float = 60
    metered_prefixes: tuple[str, ...] = ()
    unknown_routes: UnknownRoutes = "refuse"
    counts: MeteringCounts | None = None
    hold: Hold = "worst_case"
    hold_step_tokens: int = 256
    on_short: OnShort = "refuse"
    min_output_tokens: int = 16
    learned_holds: bool | LearnedHolds = False
    idempotency: OnRepeat = "off"
    idempotency_wait_seconds: float = 30
    stored_answers: StoredAnswers | None = None

    def __post_init__(self) -> None:
        _check_choice("on_unavailable", self.on_unavailable, "refuse", "allow")
        _check_choice("on_disconnect", self.on_disconnect, "cut", "drain")
        _check_choice("hidden_reasoning", self.hidden_reasoning, "drain", "hold")
        _check_choice("unknown_routes", self.unknown_routes, "refuse", "pass")
        _check_choice("hold", self.hold, "worst_case", "incremental")
        _check_choice("on_short", self.on_short, "refuse", "clamp")
        for name, tokens in (
            ("hold_step_tokens", self.hold_step_tokens),
            ("min_output_tokens", self.min_output_tokens),
        ):
            if type(tokens) is not int or not 1 <= tokens <= MAX_COUNT:
                raise ConfigError(f"{name} must be a number of tokens, 1 or more, not {tokens!r}")
        learned: object = self.learned_holds
        if not isinstance(learned, bool | LearnedHolds):
            raise ConfigError(f"learned_holds must be True, False or LearnedHolds(...), not {learned!r}")
        _check_choice("idempotency", self.idempotency, "off", "conflict", "wait")
        if (self.on_unavailable == "allow") != (self.grace is not None):
            raise ConfigError("grace (credits) and on_unavailable='allow' go together")
        for name, value in (("body_limit", self.body_limit), ("hold_json_up_to", self.hold_json_up_to)):
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name} must be a number of bytes, not {value!r}")
        seconds: object = self.drain_seconds
        if type(seconds) not in (int, float) or not 0 < self.drain_seconds < float("inf"):
            raise ConfigError(f"drain_seconds must be a number of seconds above 0, not {seconds!r}")
        ttl_to_ms(self.ttl_seconds)
        ttl_to_ms(self.background_ttl_seconds)
        prefixes: object = self.metered_prefixes
        if isinstance(prefixes, str) or not all(
            isinstance(prefix, str) and prefix.startswith("/") for prefix in self.metered_prefixes
        ):
            raise ConfigError(f"metered_prefixes are paths such as ('/v1',), not {prefixes!r}")
        ttl_to_ms(self.idempotency_wait_seconds)
        if not isinstance(self.stored_answers, StoredAnswers | None):
            raise ConfigError(f"stored_answers must be a StoredAnswers, not a {type(self.stored_answers).__name__}")
        if self.stored_answers is not None and self.idempotency == "off":
            raise ConfigError("stored_answers are for repeats, which idempotency='conflict' or 'wait' recognises")
        if not isinstance(self.counts, MeteringCounts | None):
            raise ConfigError(f"counts must be a MeteringCounts, not {self.counts!r}")


def _check_choice(name: str, value: object, *choices: str) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
